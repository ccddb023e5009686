"""ELECTRA: the discriminator and the generator have the same layers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._intermediate_output import intermediate_output_sites

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return intermediate_output_sites(model, "ElectraLayer")


FAMILY = Family(model_types=("electra",), kind="encoder", find_sites=find_sites)
