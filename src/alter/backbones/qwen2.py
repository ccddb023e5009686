"""Qwen2 and Qwen2.5, which share one model type."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._gated_mlp import gated_mlp_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return gated_mlp_sites(model, "Qwen2DecoderLayer", stack="decoder")


FAMILY = Family(model_types=("qwen2",), kind="decoder", find_sites=find_sites)
