"""The FFN layout that Llama began: `mlp.gate_proj`, `mlp.up_proj`, `mlp.down_proj`, with no dropout inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import layers_of
from alter.nn.site import FFNSite, Stack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def gated_mlp_sites(model: PreTrainedModel, *class_names: str, stack: Stack) -> list[FFNSite]:
    """Return the sites of all layers of the given classes."""
    return [_site(f"{path}.mlp", layer.get_submodule("mlp"), stack) for path, layer in layers_of(model, *class_names)]


def _site(path: str, mlp: nn.Module, stack: Stack) -> FFNSite:
    return FFNSite(
        owner=path,
        inputs=(f"{path}.gate_proj", f"{path}.up_proj"),
        down=f"{path}.down_proj",
        activation=mlp.get_submodule("act_fn"),
        form="gated",
        stack=stack,
    )
