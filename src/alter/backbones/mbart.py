"""mBART, also mBART-50."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._fc import fc_sites_of_both_stacks

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer, the encoder's first."""
    return fc_sites_of_both_stacks(model, "MBartEncoderLayer", "MBartDecoderLayer")


FAMILY = Family(model_types=("mbart",), kind="encoder-decoder", find_sites=find_sites)
