"""Task-level gate: a_t = softmax(l_t) over task adapters, g_t = sigmoid(v_t) for shared ones. No input, so it folds into one LoRA.

`over: all` learns both, from stage 1's weights (floored at 1e-3; exact where stage 1's weights are above it). `over: shared` keeps
stage 1's weights for task adapters as they are, exactly, and learns g only.
"""

from __future__ import annotations

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, keep_top, with_shared
from alter.nn.mixing import Weights


class TaskGate(nn.Module):
    """Logits l (T, N) where they are learned, and v (T, M)."""

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.num_adapters = shape.num_adapters
        self.top_k = settings.top_k
        learned = settings.over == "all" or shape.role == "selector"
        self.logits_TN = nn.Parameter(torch.zeros(shape.num_tasks, shape.num_adapters)) if learned else None
        shared_logits_TM = shape.shared_logits()
        self.shared_logits_TM = None if shared_logits_TM is None else nn.Parameter(shared_logits_TM)

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Begin at stage 1's weights."""
        if self.logits_TN is not None:
            with torch.no_grad():
                self.logits_TN.copy_(weights_TN.clamp_min(1e-3).log())

    def forward(self, inputs: GateInputs) -> Weights:
        """Return (B, N + M) weights, or (B, K + M) with an index where stage 1's weights or top_k are sparse."""
        if self.logits_TN is None:
            assert inputs.selected is not None
            task = inputs.selected
        else:
            weights_TN = torch.softmax(self.logits_TN, dim=-1)
            task = keep_top(weights_TN.index_select(0, inputs.task_ids_B), self.top_k)
        if self.shared_logits_TM is None:
            return task
        shared_BM = torch.sigmoid(self.shared_logits_TM).index_select(0, inputs.task_ids_B)
        return with_shared(task, shared_BM, num_adapters=self.num_adapters)


GATE = TaskGate
