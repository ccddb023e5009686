"""Gemma 2."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._gated_mlp import gated_mlp_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return gated_mlp_sites(model, "Gemma2DecoderLayer", stack="decoder")


FAMILY = Family(model_types=("gemma2",), kind="decoder", find_sites=find_sites)
