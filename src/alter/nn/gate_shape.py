"""What a selector or gate is built from and what it sees: the contract of `nn/gates/`.

A gate file defines `GATE`, an `nn.Module` class:

    GATE(shape: GateShape, settings: GateSettings)
    gate(inputs: GateInputs) -> Weights          over task adapters 0..N-1 and shared adapters N..N+M-1
    gate.start_from(weights_TN)                  begin at stage 1's weights, as far as the kind can

Shapes: B rows, S tokens, D site width, T tasks, N task adapters, M shared adapters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

from alter.nn.mixing import Weights
from alter.nn.tokens import first_token, last_token, mean_over_tokens


@dataclass(frozen=True, kw_only=True)
class GateShape:
    """Sizes at one site; a selector (stage 1) has no shared adapters to weigh, so its `num_shared` is 0.

    `equal_start`: all adapters start equal (FFN copies), so under equal weights they would get equal gradients for ever.
    `encoder_dim`: width of the encoder's output, at the sites of a decoder that has an encoder beside it.
    """

    role: Literal["selector", "gate"]
    num_tasks: int
    num_adapters: int
    num_shared: int
    dim: int
    output_dim: int
    equal_start: bool = False
    encoder_dim: int | None = None

    @property
    def row_dim(self) -> int:
        """Width of what gates by row read (`GateInputs.row_BD`)."""
        return self.dim if self.encoder_dim is None else self.encoder_dim

    def shared_logits(self) -> torch.Tensor | None:
        """Return the starting logits of shared adapters, (T, M): 0, or random where equal weights would keep copies equal."""
        if not self.num_shared:
            return None
        # Copies that nothing has trained change nothing, whatever their weight: random weights leave the function as it is.
        return (torch.randn if self.equal_start else torch.zeros)(self.num_tasks, self.num_shared)


@dataclass(frozen=True, kw_only=True)
class GateInputs:
    """What a gate may look at.

    Attributes:
        x_BSD: what the FFN reads.
        task_ids_B: task of each row.
        mask_BS: 1 for tokens that gates by row may look at, 0 for padding and for the answer that a decoder writes, or None: all.
        selected: the selector's weights for these rows; None inside the selector itself.
        outputs: (x, weights) -> the weighed adapters' output, for gates that look at outputs.
        encoder_BD: mean of the encoder's output, at the sites of a decoder that has an encoder beside it.
        reads_last: whether the token that tells most of a row is the last one of `mask_BS` (decoder-only models), not the first.
        kept: what gates by row read when a decoder read the prompt, which holds while the answer is written; None outside generation.
    """

    x_BSD: torch.Tensor
    task_ids_B: torch.Tensor
    mask_BS: torch.Tensor | None
    selected: Weights | None
    outputs: Callable[[torch.Tensor, Weights], torch.Tensor]
    encoder_BD: torch.Tensor | None = None
    reads_last: bool = False
    kept: dict[str, torch.Tensor] | None = None

    @property
    def row_BD(self) -> torch.Tensor:
        """What a gate by row reads: the encoder's mean output, or the mean over the tokens it may look at."""
        if self.encoder_BD is not None:
            return self.encoder_BD
        return self._keep("row", lambda: mean_over_tokens(self.x_BSD, self.mask_BS))

    def key_token(self, values: torch.Tensor, *, of: str) -> torch.Tensor:
        """Return `values` (B, S, ...) at the one token that gates by row may read: the first, or the prompt's last; (B, 1, ...).

        Args:
            values: what to read there.
            of: its name, by which it is known again while an answer is written.
        """
        return self._keep(of, lambda: (last_token if self.reads_last else first_token)(values, self.mask_BS))

    def _keep(self, name: str, read: Callable[[], torch.Tensor]) -> torch.Tensor:
        if self.kept is None:
            return read()
        if name not in self.kept:
            self.kept[name] = read()
        return self.kept[name]


@contextlib.contextmanager
def kept_apart(kept: dict[str, torch.Tensor] | None, tag: str) -> Iterator[dict[str, torch.Tensor] | None]:
    """Lend what one of several routers at a site has kept of `GateInputs.kept`, and put back what it has kept then; None stays None."""
    if kept is None:
        yield None
        return
    own = {name.removeprefix(tag): value for name, value in kept.items() if name.startswith(tag)}
    yield own
    kept.update({f"{tag}{name}": value for name, value in own.items()})


def owned_adapters(num_tasks: int, num_adapters: int, num_owned: int) -> torch.Tensor:
    """Return the adapters each task owns, (T, num_owned): its own and the next ones, wrapping around.

    A task owns at most all adapters but one: where every task owned all of them, nothing would tell equal copies apart.
    """
    owned = max(1, min(num_owned, num_adapters - 1))
    return (torch.arange(num_tasks)[:, None] + torch.arange(owned)[None, :]) % num_adapters


def with_shared(task: Weights, shared_values: torch.Tensor, *, num_adapters: int) -> Weights:
    """Join weights over task adapters with weights over all shared adapters.

    Args:
        task: weights over task adapters.
        shared_values: (B, M) or (B, S, M).
        num_adapters: N, where the shared adapters begin.
    """
    num_shared = shared_values.shape[-1]
    values = task.values
    if values.dim() < shared_values.dim():
        values = values.unsqueeze(1).expand(*shared_values.shape[:-1], -1)
    elif shared_values.dim() < values.dim():
        shared_values = shared_values.unsqueeze(1).expand(*values.shape[:-1], -1)
    index = task.index
    if index is None:
        values = torch.nn.functional.pad(values, (0, num_adapters - values.shape[-1]))
        return Weights(values=torch.cat([values, shared_values], dim=-1))
    shared = torch.arange(num_adapters, num_adapters + num_shared, device=values.device).expand(*index.shape[:-1], -1)
    return Weights(values=torch.cat([values, shared_values], dim=-1), index=torch.cat([index, shared], dim=-1))


def keep_top(values: torch.Tensor, top_k: int | None) -> Weights:
    """Keep the `top_k` largest weights of the last dimension, renormalised to the same sum; all of them where None."""
    if top_k is None or top_k >= values.shape[-1]:
        return Weights(values=values)
    kept, index = values.topk(top_k, dim=-1)
    return Weights(values=kept * (values.sum(-1, keepdim=True) / kept.sum(-1, keepdim=True)), index=index)
