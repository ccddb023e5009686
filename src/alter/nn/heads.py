"""Per-task heads of an encoder-only model, as one padded bank: a batch may mix tasks, and there is no loop over them.

A classification task has one output per label, a regression task one output. The padded outputs of smaller tasks are -inf, so softmax
and argmax never see them.

Shapes: B rows, S tokens, D model width, T tasks, C outputs of the largest task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from alter.nn.tokens import first_token, mean_over_tokens
from alter.recipe import HeadSettings


class Head(nn.Module):
    """One task's head: `linear` (weight, bias), and for kind `mlp` a dense layer with tanh before it."""

    def __init__(self, dim: int, num_outputs: int, settings: HeadSettings) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, dim).normal_(std=0.02))
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        mlp = settings.kind == "mlp"
        self.dense_weight = nn.Parameter(torch.empty(dim, dim).normal_(std=0.02)) if mlp else None
        self.dense_bias = nn.Parameter(torch.zeros(dim)) if mlp else None


class HeadBank(nn.Module):
    """The heads of all tasks."""

    real_TC: torch.Tensor
    slot_TC: torch.Tensor
    is_regression_T: torch.Tensor

    def __init__(self, dim: int, num_outputs: Sequence[int], settings: HeadSettings) -> None:
        super().__init__()
        self.pooling = settings.pooling
        self.kind = settings.kind
        self.dropout = nn.Dropout(settings.dropout)
        self.heads = nn.ModuleList(Head(dim, outputs, settings) for outputs in num_outputs)
        counts_T = torch.tensor(list(num_outputs))
        column_1C = torch.arange(int(counts_T.max()))[None, :]
        real_TC = column_1C < counts_T[:, None]
        self.register_buffer("real_TC", real_TC, persistent=False)
        self.register_buffer("is_regression_T", counts_T == 1, persistent=False)
        # Where an output lies among all tasks' outputs, one after the other; padding reads the first and is masked.
        slot_TC = torch.where(real_TC, (counts_T.cumsum(0) - counts_T)[:, None] + column_1C, 0)
        self.register_buffer("slot_TC", slot_TC, persistent=False)

    def forward(self, x_BSD: torch.Tensor, task_ids_B: torch.Tensor, mask_BS: torch.Tensor | None) -> torch.Tensor:
        """Return each row's outputs under its own task's head, (B, C), -inf where its task has no such output."""
        pooled_BD = self.dropout(pool(x_BSD, mask_BS, self.pooling))
        if self.kind == "mlp":
            pooled_BD = self.dropout(torch.tanh(self._dense(pooled_BD, task_ids_B)))
        slot_BC: torch.Tensor = self.slot_TC.index_select(0, task_ids_B)
        weights_BCD = (
            torch.cat([head.weight for head in self._members()]).index_select(0, slot_BC.flatten()).unflatten(0, slot_BC.shape)
        )
        biases_BC = (
            torch.cat([head.bias for head in self._members()]).index_select(0, slot_BC.flatten()).unflatten(0, slot_BC.shape)
        )
        logits_BC: torch.Tensor = torch.bmm(weights_BCD, pooled_BD.unsqueeze(-1)).squeeze(-1) + biases_BC
        if logits_BC.dtype in (torch.float16, torch.bfloat16):  # softmax and squared error need the digits
            logits_BC = logits_BC.float()
        return logits_BC.masked_fill(~self.real_TC.index_select(0, task_ids_B), float("-inf"))

    def _members(self) -> list[Head]:
        return cast("list[Head]", list(self.heads))

    def _dense(self, pooled_BD: torch.Tensor, task_ids_B: torch.Tensor) -> torch.Tensor:
        members = self._members()
        weights_TDD = torch.stack([head.dense_weight for head in members if head.dense_weight is not None])
        biases_TD = torch.stack([head.dense_bias for head in members if head.dense_bias is not None])
        dense_BD = torch.bmm(weights_TDD.index_select(0, task_ids_B), pooled_BD.unsqueeze(-1)).squeeze(-1)
        return dense_BD + biases_TD.index_select(0, task_ids_B)


def pool(x_BSD: torch.Tensor, mask_BS: torch.Tensor | None, pooling: str) -> torch.Tensor:
    """Return one vector per row, (B, D): the mean or the maximum over its tokens, or its first token (`cls`)."""
    if pooling == "cls":
        return first_token(x_BSD, mask_BS)[:, 0]
    if pooling == "mean":
        return mean_over_tokens(x_BSD, mask_BS)
    if mask_BS is not None:
        x_BSD = x_BSD.masked_fill(mask_BS.unsqueeze(-1) == 0, torch.finfo(x_BSD.dtype).min)
    return x_BSD.amax(dim=1)
