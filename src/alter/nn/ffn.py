"""The modules of one FFN, found: what an adapter bank reads shapes and starting values from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from alter.nn.site import FFNForm, FFNSite, projection_shape

Activation = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class FFN:
    """One FFN with its modules at hand; see `FFNSite` for the fields' meaning."""

    site: FFNSite
    inputs: tuple[nn.Module, ...]
    down: nn.Module

    @property
    def form(self) -> FFNForm:
        """How the projections combine."""
        return self.site.form

    @property
    def projections(self) -> tuple[nn.Module, ...]:
        """All projections, in the order in which a forward pass calls them; `down` comes last."""
        return (*self.inputs, self.down)

    @property
    def paths(self) -> tuple[str, ...]:
        """Dotted paths of the projections."""
        return (*self.site.inputs, self.site.down)

    @property
    def dim(self) -> int:
        """Width D of what the FFN reads."""
        return projection_shape(self.inputs[0])[0]

    @property
    def output_dim(self) -> int:
        """Width of what the FFN writes; D in all known models."""
        return projection_shape(self.down)[1]

    def combine(self) -> Callable[[list[torch.Tensor]], torch.Tensor]:
        """Return the function from the readings of `inputs` to what `down` reads, without dropout."""
        # A partial, not a closure: deepcopy and pickle carry the activation along.
        return partial({"plain": _plain, "gated": _gated, "fused_gated": _fused_gated}[self.form], self.site.activation)


def _plain(activation: Activation, readings: list[torch.Tensor]) -> torch.Tensor:
    return activation(readings[0])


def _gated(activation: Activation, readings: list[torch.Tensor]) -> torch.Tensor:
    return activation(readings[0]) * readings[1]


def _fused_gated(activation: Activation, readings: list[torch.Tensor]) -> torch.Tensor:
    first, second = readings[0].chunk(2, dim=-1)
    return activation(first) * second


def find_ffn(model: nn.Module, site: FFNSite) -> FFN:
    """Look up a site's modules in `model`."""
    return FFN(site=site, inputs=tuple(model.get_submodule(path) for path in site.inputs), down=model.get_submodule(site.down))
