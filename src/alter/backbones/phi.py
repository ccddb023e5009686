"""Phi 1, 1.5 and 2; attention and FFN of a layer read the same input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._fc import fc_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return fc_sites(model, "PhiDecoderLayer", inside="mlp", stack="decoder")


FAMILY = Family(model_types=("phi",), kind="decoder", find_sites=find_sites)
