"""Linear gate on the FFN's input: a = softmax(W_a z + log w_t) over task adapters, g = sigmoid(W_s z + v_t) for shared ones.

z is each token's state (`granularity: token`) or the mean over the row's tokens (`sequence`; where text is written, over the prompt's
tokens, or in the decoder of an encoder-decoder over the encoder's output: see `GateInputs.row_BD`). W starts at zero and log w at stage 1's
weights (floored at 1e-3), so the gate starts as the task-level gate. `over: shared` keeps stage 1's weights for task adapters exactly.
"""

from __future__ import annotations

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, keep_top, with_shared
from alter.nn.mixing import Weights


class LinearGate(nn.Module):
    """W_a (N, D) and log w (T, N) where they are learned, W_s (M, D) and v (T, M)."""

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.num_adapters = shape.num_adapters
        self.top_k = settings.top_k
        self.granularity = settings.granularity
        learned = settings.over == "all" or shape.role == "selector"
        width = shape.dim if settings.granularity == "token" else shape.row_dim
        self.weight_ND = nn.Parameter(torch.zeros(shape.num_adapters, width)) if learned else None
        self.logits_TN = nn.Parameter(torch.zeros(shape.num_tasks, shape.num_adapters)) if learned else None
        self.shared_weight_MD = nn.Parameter(torch.zeros(shape.num_shared, width)) if shape.num_shared else None
        shared_logits_TM = shape.shared_logits()
        self.shared_logits_TM = None if shared_logits_TM is None else nn.Parameter(shared_logits_TM)

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Begin at stage 1's weights."""
        if self.logits_TN is not None:
            with torch.no_grad():
                self.logits_TN.copy_(weights_TN.clamp_min(1e-3).log())

    def forward(self, inputs: GateInputs) -> Weights:
        """Return weights by row (B, ...) or by token (B, S, ...)."""
        z = inputs.x_BSD if self.granularity == "token" else inputs.row_BD
        task = inputs.selected
        if self.weight_ND is not None and self.logits_TN is not None:
            logits = z @ self.weight_ND.T + self._by_task(self.logits_TN, z, inputs)
            task = keep_top(torch.softmax(logits, dim=-1), self.top_k)
        assert task is not None
        if self.shared_weight_MD is None or self.shared_logits_TM is None:
            return task
        shared = torch.sigmoid(z @ self.shared_weight_MD.T + self._by_task(self.shared_logits_TM, z, inputs))
        return with_shared(task, shared, num_adapters=self.num_adapters)

    def _by_task(self, bias: torch.Tensor, z: torch.Tensor, inputs: GateInputs) -> torch.Tensor:
        rows = bias.index_select(0, inputs.task_ids_B)
        return rows.unsqueeze(1) if z.dim() == 3 else rows


GATE = LinearGate
