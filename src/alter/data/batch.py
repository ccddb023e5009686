"""Mixed-task batches: features of any tasks, padded together.

Shapes: B rows, S tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from alter.data.encode import Features


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of any tasks, padded together.

    Attributes:
        inputs: the backbone's inputs, each (B, S): input_ids, attention_mask, and token_type_ids where the model has them.
        task_ids_B: task of each row.
        label_ids_B: class of each row, NOT_A_CLASS for regression.
        targets_B: standardised targets of regression rows.
    """

    inputs: dict[str, torch.Tensor]
    task_ids_B: torch.Tensor
    label_ids_B: torch.Tensor
    targets_B: torch.Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(
            inputs={name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()},
            task_ids_B=self.task_ids_B.to(device, non_blocking=True),
            label_ids_B=self.label_ids_B.to(device, non_blocking=True),
            targets_B=self.targets_B.to(device, non_blocking=True),
        )


def collate(rows: Sequence[Features], tokenizer: PreTrainedTokenizerBase) -> Batch:
    """Pad rows to the longest of them, on the tokenizer's padding side."""
    longest = max(row.length for row in rows)
    left = tokenizer.padding_side == "left"
    inputs = {}
    for name in rows[0].inputs:
        fill = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}.get(name, 0)
        inputs[name] = torch.tensor([_pad(row.inputs[name], longest, int(fill or 0), left=left) for row in rows])
    inputs["attention_mask"] = torch.tensor([_pad([1] * row.length, longest, 0, left=left) for row in rows])
    return Batch(
        inputs=inputs,
        task_ids_B=torch.tensor([row.task_id for row in rows]),
        label_ids_B=torch.tensor([row.label_id for row in rows]),
        targets_B=torch.tensor([row.target for row in rows], dtype=torch.float32),
    )


def _pad(values: Sequence[int], length: int, fill: int, *, left: bool) -> list[int]:
    padding = [fill] * (length - len(values))
    return [*padding, *values] if left else [*values, *padding]


def batches_by_length(rows: Sequence[Features], batch_size: int) -> Iterator[list[int]]:
    """Yield positions of rows in batches of similar length, longest first, so that a batch too large fails at once."""
    order = sorted(range(len(rows)), key=lambda position: -rows[position].length)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
