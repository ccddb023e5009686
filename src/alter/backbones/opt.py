"""OPT: its layers flatten rows and tokens into one dimension before the FFN, so the projections read (B*S, D)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._fc import fc_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return fc_sites(model, "OPTDecoderLayer", stack="decoder")


FAMILY = Family(model_types=("opt",), kind="decoder", find_sites=find_sites)
