"""The FFN layout of Megatron: `mlp.dense_h_to_4h` -> activation -> `mlp.dense_4h_to_h`, with no dropout inside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import layers_of
from alter.nn.site import FFNSite, Stack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def h_to_4h_sites(model: PreTrainedModel, class_name: str, *, activation: str, stack: Stack) -> list[FFNSite]:
    """Return the sites of all layers of the given class; `activation` is its name in the MLP."""
    return [_site(f"{path}.mlp", layer.get_submodule(f"mlp.{activation}"), stack) for path, layer in layers_of(model, class_name)]


def _site(path: str, activation: nn.Module, stack: Stack) -> FFNSite:
    return FFNSite(
        owner=path,
        inputs=(f"{path}.dense_h_to_4h",),
        down=f"{path}.dense_4h_to_h",
        activation=activation,
        stack=stack,
    )
