"""Selector or gate of a merged model: each task is weighed as in the model it came from.

A merged model has the task adapters of all its parts, then the shared adapters of all its parts. A row belongs to the part that its
task came from; that part's own selector and gate weigh that part's own adapters, and no others:

    tasks      | a b | c     |        parts 0 and 1
    adapters   | a b | c     | shared 0 1 | shared 0 |

Every part's module runs on every row and the row's own answer is taken, so that shapes depend on no row; its arithmetic is small
beside that of the adapters. Each row holds the columns of its part alone, so the adapters' cost does not grow with the number of parts.

Shapes: B rows, S tokens, T tasks, N task adapters, M shared adapters, K columns that a row holds; P marks what is one part's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, cast

import torch
from torch import nn
from torch.nn import functional

from alter.mta_settings import GATES, PartSettings
from alter.nn.gate_shape import GateInputs, GateShape, kept_apart
from alter.nn.mixing import Weights


class Parts(nn.Module):
    """The selectors (or gates) of all parts.

    Args:
        parts: the parts, in the order of their tasks and adapters.
        shape: sizes of the whole site.
    """

    part_of_T: torch.Tensor
    local_T: torch.Tensor

    def __init__(self, parts: Sequence[PartSettings], shape: GateShape) -> None:
        super().__init__()
        self.parts = list(parts)
        self.role: Literal["selector", "gate"] = shape.role
        self.num_adapters = shape.num_adapters
        self.members = nn.ModuleList(GATES.get(getattr(part, shape.role).kind)(*self._own(part, shape)) for part in parts)
        self.task_starts = _starts(part.num_tasks for part in parts)
        self.adapter_starts = _starts(part.num_adapters for part in parts)
        self.shared_starts = _starts(part.num_shared for part in parts)
        numbers = [(position, task) for position, part in enumerate(parts) for task in range(part.num_tasks)]
        self.register_buffer("part_of_T", torch.tensor([position for position, _ in numbers]), persistent=False)
        self.register_buffer("local_T", torch.tensor([task for _, task in numbers]), persistent=False)

    def _own(self, part: PartSettings, shape: GateShape) -> tuple[GateShape, Any]:
        num_shared = part.num_shared if shape.role == "gate" else 0
        own = replace(shape, num_tasks=part.num_tasks, num_adapters=part.num_adapters, num_shared=num_shared)
        return own, getattr(part, shape.role)

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Let each part begin at its own block of the given weights."""
        for position, (part, member) in enumerate(zip(self.parts, self.members, strict=True)):
            task, adapter = self.task_starts[position], self.adapter_starts[position]
            start = cast(Any, member).start_from
            start(weights_TN[task : task + part.num_tasks, adapter : adapter + part.num_adapters])

    def forward(self, inputs: GateInputs) -> Weights:
        """Return each row's weights over its own part's adapters: (B, K) or (B, S, K), and their index among all adapters."""
        part_B = self.part_of_T.index_select(0, inputs.task_ids_B)
        local_B = self.local_T.index_select(0, inputs.task_ids_B)
        found = [self._of_part(position, inputs, part_B, local_B) for position in range(len(self.parts))]
        num_columns = max(weights.values.shape[-1] for weights in found)
        by_token = any(weights.values.dim() == 3 for weights in found)
        shape = (part_B.shape[0], inputs.x_BSD.shape[1], num_columns) if by_token else (part_B.shape[0], num_columns)
        values = torch.zeros(shape, dtype=inputs.x_BSD.dtype, device=part_B.device)
        index = torch.zeros(shape, dtype=torch.int64, device=part_B.device)
        for position, weights in enumerate(found):
            assert weights.index is not None
            mine = (part_B == position).reshape(-1, *[1] * (len(shape) - 1))
            values = torch.where(mine, _spread(weights.values, num_columns, by_token=by_token).to(values.dtype), values)
            index = torch.where(mine, _spread(weights.index, num_columns, by_token=by_token), index)
        return Weights(values=values, index=index)

    def _of_part(self, position: int, inputs: GateInputs, part_B: torch.Tensor, local_B: torch.Tensor) -> Weights:
        """Return one part's weights for all rows, by adapters' places in the whole; those of other parts' rows mean nothing."""
        part = self.parts[position]
        selected = None if inputs.selected is None else self._selected(position, inputs.selected)
        if self.role == "gate" and part.router == "selector":  # stage 1 was released: the selector's weights hold
            assert selected is not None
            return self._placed(position, selected)
        # What gates by row keep while text is written is each part's own.
        with kept_apart(inputs.kept, f"{position}:") as kept:
            own = replace(
                inputs,
                task_ids_B=torch.where(part_B == position, local_B, 0),
                selected=selected,
                outputs=lambda x_BSD, weights: inputs.outputs(x_BSD, self._placed(position, weights)),
                kept=kept,
            )
            weights: Weights = self.members[position](own)
        return self._placed(position, weights)

    def _selected(self, position: int, selected: Weights) -> Weights:
        """Return the selector's weights by the part's own numbers; padding has weight 0, whatever it points at."""
        assert selected.index is not None
        index = (selected.index - self.adapter_starts[position]).clamp(0, self.parts[position].num_adapters - 1)
        return Weights(values=selected.values, index=index)

    def _placed(self, position: int, weights: Weights) -> Weights:
        """Return weights over the part's adapters by the adapters' places in the whole."""
        values, index = weights.values, weights.index
        if index is None:
            index = torch.arange(values.shape[-1], device=values.device).expand(values.shape[0], -1)
        own = self.parts[position].num_adapters
        shared = index - own + self.num_adapters + self.shared_starts[position]
        return Weights(values=values, index=torch.where(index < own, index + self.adapter_starts[position], shared))


def _starts(numbers: Any) -> list[int]:
    """Return where each part begins."""
    starts = [0]
    for number in numbers:
        starts.append(starts[-1] + number)
    return starts[:-1]


def _spread(columns: torch.Tensor, num_columns: int, *, by_token: bool) -> torch.Tensor:
    """Return columns padded with 0, with a token dimension where another part has one."""
    padded = functional.pad(columns, (0, num_columns - columns.shape[-1]))
    return padded.unsqueeze(1) if by_token and padded.dim() == 2 else padded
