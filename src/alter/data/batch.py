"""Mixed-task batches: features of any tasks, padded together.

Shapes: B rows, S tokens of the longest row, T tokens of the longest text to write.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alter.data.codec import Codec
from alter.data.encode import Features
from alter.nn.losses import NOT_A_CLASS
from alter.nn.packing import Packing, pack_rows


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows of any tasks, padded together.

    Attributes:
        inputs: the backbone's inputs, each (B, S): input_ids, attention_mask, and token_type_ids where the model has them.
        task_ids_B: task of each row.
        label_ids_B: class of each row, NOT_A_CLASS for regression.
        targets_B: standardised targets of regression rows.
        labels_BT: ids of the texts to write, NOT_A_CLASS elsewhere: (B, T), or (B, S) where one stack reads and writes; None for encoders.
        packing: where rows lie, where several share a sequence; `inputs` and `labels_BT` are padded rows all the same.
        num_kept: last positions at which any row has something to write; None: all. Before them nobody needs logits, which for prompts
            and a large vocabulary are most of a pass's memory.
    """

    inputs: dict[str, torch.Tensor]
    task_ids_B: torch.Tensor
    label_ids_B: torch.Tensor
    targets_B: torch.Tensor
    labels_BT: torch.Tensor | None = None
    packing: Packing | None = None
    num_kept: int | None = None

    def to(self, device: torch.device) -> Batch:
        """Return the batch on another device."""
        return Batch(
            inputs={name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()},
            task_ids_B=self.task_ids_B.to(device, non_blocking=True),
            label_ids_B=self.label_ids_B.to(device, non_blocking=True),
            targets_B=self.targets_B.to(device, non_blocking=True),
            labels_BT=None if self.labels_BT is None else self.labels_BT.to(device, non_blocking=True),
            packing=None if self.packing is None else self.packing.to(device),
            num_kept=self.num_kept,
        )

    @property
    def supervised(self) -> dict[str, Any]:
        """What a training pass is given beside `inputs` and the task ids."""
        if self.labels_BT is None:
            return {"label_ids": self.label_ids_B, "targets": self.targets_B}
        told = {"packing": self.packing, "logits_to_keep": self.num_kept}
        return {"labels": self.labels_BT, **{name: value for name, value in told.items() if value is not None}}


def collate(rows: Sequence[Features], codec: Codec, *, prompts: bool = False, pack_to: int | None = None) -> Batch:
    """Pad rows to the longest of them.

    Args:
        rows: of any tasks.
        codec: the base model's way with text.
        prompts: leave out what is to be written, as generation needs it.
        pack_to: put several rows into one sequence of at most so many tokens (decoder-only models).
    """
    writes = codec.kind != "encoder" and not prompts
    joins = codec.kind == "decoder" and writes
    tokenizer = codec.tokenizer
    # A row that is to be continued must end where all rows end; one that is only read lies as the tokenizer has it.
    left = codec.kind == "decoder" and prompts if codec.kind != "encoder" else tokenizer.padding_side == "left"
    fills = {"input_ids": tokenizer.pad_token_id, "token_type_ids": tokenizer.pad_token_type_id}
    columns = {name: [[*row.inputs[name], *(row.target_ids if joins else ())] for row in rows] for name in rows[0].inputs}
    inputs = {name: _tensor(values, int(fills.get(name) or 0), left=left) for name, values in columns.items()}
    lengths = [len(ids) for ids in columns["input_ids"]]
    inputs["attention_mask"] = _tensor([[1] * length for length in lengths], 0, left=left)
    labels_BT, num_kept = None, None
    if writes:
        unread = [len(row.inputs["input_ids"]) if joins else 0 for row in rows]
        labels_BT = _tensor(
            [[NOT_A_CLASS] * n + list(row.target_ids) for n, row in zip(unread, rows, strict=True)], NOT_A_CLASS, left=left
        )
        num_kept = max(lengths) - max(min(unread) - 1, 0) if joins and pack_to is None else None
    return Batch(
        inputs=inputs,
        task_ids_B=torch.tensor([row.task_id for row in rows]),
        label_ids_B=torch.tensor([row.label_id for row in rows]),
        targets_B=torch.tensor([row.target for row in rows], dtype=torch.float32),
        labels_BT=labels_BT,
        packing=pack_rows(lengths, pack_to) if joins and pack_to is not None else None,
        num_kept=num_kept,
    )


def _tensor(rows: Sequence[Sequence[int]], fill: int, *, left: bool) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([_pad(row, longest, fill, left=left) for row in rows])


def _pad(values: Sequence[int], length: int, fill: int, *, left: bool) -> list[int]:
    padding = [fill] * (length - len(values))
    return [*padding, *values] if left else [*values, *padding]


def batches_by_length(rows: Sequence[Features], batch_size: int) -> Iterator[list[int]]:
    """Yield positions of rows in batches of similar length, longest first, so that a batch too large fails at once."""
    order = sorted(range(len(rows)), key=lambda position: -rows[position].length)
    for start in range(0, len(order), batch_size):
        yield order[start : start + batch_size]
