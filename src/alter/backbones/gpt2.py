"""GPT-2: its projections are transformers' `Conv1D`, which stores weights transposed; its dropout comes after `c_proj`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family, layers_of
from alter.nn.site import FFNSite

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer."""
    return [_site(f"{path}.mlp", block.get_submodule("mlp")) for path, block in layers_of(model, "GPT2Block")]


def _site(path: str, mlp: nn.Module) -> FFNSite:
    return FFNSite(
        owner=path,
        inputs=(f"{path}.c_fc",),
        down=f"{path}.c_proj",
        activation=mlp.get_submodule("act"),
        stack="decoder",
    )


FAMILY = Family(model_types=("gpt2",), kind="decoder", find_sites=find_sites)
