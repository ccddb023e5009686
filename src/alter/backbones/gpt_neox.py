"""GPT-NeoX, and what is stored as GPT-NeoX: Pythia."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._h_to_4h import h_to_4h_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return h_to_4h_sites(model, "GPTNeoXLayer", activation="act", stack="decoder")


FAMILY = Family(model_types=("gpt_neox",), kind="decoder", find_sites=find_sites)
