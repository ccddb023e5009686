"""DistilBERT: the FFN is a module of its own (`ffn.lin1`, `ffn.lin2`); its dropout comes after `lin2`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family, layers_of
from alter.nn.site import FFNSite

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return [_site(path, block) for path, block in layers_of(model, "TransformerBlock")]


def _site(path: str, block: nn.Module) -> FFNSite:
    return FFNSite(
        owner=f"{path}.ffn",
        inputs=(f"{path}.ffn.lin1",),
        down=f"{path}.ffn.lin2",
        activation=block.get_submodule("ffn.activation"),
    )


FAMILY = Family(model_types=("distilbert",), kind="encoder", find_sites=find_sites)
