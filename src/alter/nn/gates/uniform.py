"""Equal weights on all adapters, whatever the task: the control for "is it routing or averaging?" (AdaMix, arXiv 2205.12410)."""

from __future__ import annotations

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape
from alter.nn.mixing import Weights


class Uniform(nn.Module):
    """w = 1 / (N + M); as a selector M is 0, so 1 / N on task adapters."""

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.num_weighed = shape.num_adapters + shape.num_shared

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Do nothing: these weights are fixed."""

    def forward(self, inputs: GateInputs) -> Weights:
        """Return 1 / (N + M) for every adapter, (B, N + M)."""
        rows = inputs.task_ids_B.shape[0]
        return Weights(values=inputs.x_BSD.new_full((rows, self.num_weighed), 1 / self.num_weighed))


GATE = Uniform
