"""The FFN layout of fairseq: `fc1` -> `activation_fn` -> `fc2`, children of the layer itself or of its MLP.

`activation_dropout`, where a layer has it, is the rate between activation and `fc2`; the dropout called `dropout` comes after `fc2`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import layers_of
from alter.nn.site import FFNSite, Stack

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def fc_sites(model: PreTrainedModel, class_name: str, *, inside: str = "", stack: Stack) -> list[FFNSite]:
    """Return the sites of all layers of the given class; `inside` names the layer's child that holds the FFN, if one does."""
    return [_site(path, layer, inside, stack) for path, layer in layers_of(model, class_name)]


def fc_sites_of_both_stacks(model: PreTrainedModel, encoder_layer: str, decoder_layer: str) -> list[FFNSite]:
    """Return the sites of the encoder's layers, then those of the decoder's."""
    return [*fc_sites(model, encoder_layer, stack="encoder"), *fc_sites(model, decoder_layer, stack="decoder")]


def _site(path: str, layer: nn.Module, inside: str, stack: Stack) -> FFNSite:
    owner = f"{path}.{inside}" if inside else path
    holder = layer.get_submodule(inside)
    return FFNSite(
        owner=owner,
        inputs=(f"{owner}.fc1",),
        down=f"{owner}.fc2",
        activation=holder.get_submodule("activation_fn"),
        dropout=float(getattr(holder, "activation_dropout", 0.0)),
        stack=stack,
    )
