"""ModernBERT: `Wi` holds the activated half and the gating half in one matrix, and dropout sits before `Wo`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from alter.backbones._family import Family, layers_of
from alter.nn.site import FFNSite

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return [_site(path, layer) for path, layer in layers_of(model, "ModernBertEncoderLayer")]


def _site(path: str, layer: nn.Module) -> FFNSite:
    dropout = layer.get_submodule("mlp.drop")
    assert isinstance(dropout, nn.Dropout)
    return FFNSite(
        owner=f"{path}.mlp",
        inputs=(f"{path}.mlp.Wi",),
        down=f"{path}.mlp.Wo",
        activation=layer.get_submodule("mlp.act"),
        form="fused_gated",
        dropout=float(dropout.p),
    )


FAMILY = Family(model_types=("modernbert",), kind="encoder", find_sites=find_sites)
