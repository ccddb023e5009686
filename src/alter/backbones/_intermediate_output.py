"""The FFN layout that BERT began: `intermediate.dense` -> activation -> `output.dense`, both children of the layer.

The dropout in `output` comes after `output.dense`, so the FFN itself has none inside.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import layers_of
from alter.nn.site import FFNSite

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def intermediate_output_sites(model: PreTrainedModel, *class_names: str) -> list[FFNSite]:
    """Return the sites of all layers of the given classes."""
    return [_site(path, layer) for path, layer in layers_of(model, *class_names)]


def _site(path: str, layer: nn.Module) -> FFNSite:
    return FFNSite(
        owner=path,
        inputs=(f"{path}.intermediate.dense",),
        down=f"{path}.output.dense",
        activation=layer.get_submodule("intermediate.intermediate_act_fn"),
    )
