"""Weights by task as plain numbers, w_t: no softmax, and no sum to keep. `alter extract` writes models of this kind.

They start as strict task adapters (own 1, others 0) with shared adapters at 1/2, or exactly at stage 1's weights. Where they train,
each is free to go anywhere.
"""

from __future__ import annotations

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, owned_adapters
from alter.nn.mixing import Weights


class Table(nn.Module):
    """w (T, N + M)."""

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.num_adapters = shape.num_adapters
        own_TN = torch.zeros(shape.num_tasks, shape.num_adapters)
        own_TN.scatter_(1, owned_adapters(shape.num_tasks, shape.num_adapters, 1), 1.0)
        shared_logits_TM = shape.shared_logits()
        shared = [] if shared_logits_TM is None else [torch.sigmoid(shared_logits_TM)]
        self.weights_TE = nn.Parameter(torch.cat([own_TN, *shared], dim=-1))

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Begin at stage 1's weights, exactly."""
        with torch.no_grad():
            self.weights_TE[:, : self.num_adapters] = weights_TN

    def forward(self, inputs: GateInputs) -> Weights:
        """Return w_t, (B, N + M)."""
        return Weights(values=self.weights_TE.index_select(0, inputs.task_ids_B))


GATE = Table
