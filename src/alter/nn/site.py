"""An FFN sub-layer of a stock transformers model: where an MTA goes.

plain        down(act(up(x)))                      BERT, RoBERTa, DistilBERT, ELECTRA, DeBERTa, T5 v1.0, GPT-2
gated        down(act(gate(x)) * up(x))            Llama, Qwen, T5 v1.1        (input projections: gate, up)
fused_gated  a, b = up(x).chunk(2); down(act(a) * b)    ModernBERT
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from alter.errors import ConfigError

FFNForm = Literal["plain", "gated", "fused_gated"]
Stack = Literal["encoder", "decoder"]
Kind = Literal["encoder", "encoder-decoder", "decoder"]
"""How a model reads and writes text: reads only, reads with one stack and writes with another, or one stack does both."""


@dataclass(frozen=True, kw_only=True)
class FFNSite:
    """One FFN: its modules by dotted path from the model they were found in.

    Attributes:
        owner: the module that receives the MTA as a child (the transformer block or its MLP).
        inputs: the projections that read the FFN's input; for `gated`: (gate, up).
        down: the projection that writes the FFN's output.
        activation: the FFN's activation, as a function of a tensor.
        form: how the projections combine.
        dropout: dropout rate inside the FFN, between activation and `down`.
        stack: which stack of the model the FFN is in; a decoder's reads the text from left to right.
    """

    owner: str
    inputs: tuple[str, ...]
    down: str
    activation: Callable[[torch.Tensor], torch.Tensor]
    form: FFNForm = "plain"
    dropout: float = 0.0
    stack: Stack = "encoder"


def choose_sites(sites: str | list[int], num_layers: int, *, num_decoder_layers: int = 0) -> list[int]:
    """Return the positions of the FFNs that carry an MTA, in order; an encoder-decoder's stacks are chosen from alike.

    Args:
        sites: `all`, `last`, `none`, `every-K` (each of every stack), or positions among all FFNs, the encoder's first.
        num_layers: FFNs of the encoder.
        num_decoder_layers: FFNs of the decoder, which come after them.

    Raises:
        ConfigError: a position does not exist; negative ones count from the last.
    """
    total = num_layers + num_decoder_layers
    if sites == "none":
        return []
    if isinstance(sites, str):
        every = {"all": 1, "last": total}.get(sites) or int(sites.removeprefix("every-"))
        stacks = (range(num_layers), range(num_layers, total))
        return sorted(position for stack in stacks for position in stack[::-1][::every])
    wrong = [position for position in sites if not -total <= position < total]
    if wrong:
        raise ConfigError(f"mta.sites names {wrong}, but this model has {total} FFNs; allowed: 0 to {total - 1}")
    return sorted({position % total for position in sites})


def projection_shape(module: nn.Module) -> tuple[int, int]:
    """Return (inputs, outputs) of a projection: `nn.Linear` or transformers' transposed `Conv1D` (GPT-2)."""
    weight = module.weight
    if not isinstance(weight, torch.Tensor):
        raise TypeError(f"{type(module).__name__} is no projection: its weight is no tensor")
    first, second = weight.shape
    return (second, first) if isinstance(module, nn.Linear) else (first, second)


def projection_weight(module: nn.Module) -> torch.Tensor:
    """Return a projection's weight as (outputs, inputs), a view where it is stored transposed."""
    weight = module.weight
    assert isinstance(weight, torch.Tensor)
    return weight if isinstance(module, nn.Linear) else weight.T
