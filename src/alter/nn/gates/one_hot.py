"""Strict task adapters: a task uses the adapters it owns, with equal weights, and no others.

With one owned adapter this is a plain adapter per task; its cost does not grow with the number of tasks. Nothing to learn.
"""

from __future__ import annotations

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, owned_adapters
from alter.nn.mixing import Weights


class OneHot(nn.Module):
    """w_t = 1 / num_owned on the owned adapters; shared adapters get nothing."""

    owned_TK: torch.Tensor

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.register_buffer(
            "owned_TK", owned_adapters(shape.num_tasks, shape.num_adapters, settings.num_owned), persistent=False
        )

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Do nothing: these weights are fixed."""

    def forward(self, inputs: GateInputs) -> Weights:
        """Return 1 / num_owned for each owned adapter, (B, num_owned)."""
        index_BK = self.owned_TK.index_select(0, inputs.task_ids_B)
        return Weights(values=torch.full_like(index_BK, 1, dtype=inputs.x_BSD.dtype) / index_BK.shape[1], index=index_BK)


GATE = OneHot
