"""A random adapter while training, the mean of all afterwards (AdaMix), whatever the task: the control for learned weights.

    training    w = 1 on one adapter, drawn anew at each site for each batch, whatever the task
    afterwards  w = 1 / (N + M) on all of them

Wang et al. 2022 (arXiv 2205.12410). Theirs shares the up-projection, draws the halves of an adapter apart, has a loss that pulls two draws
together, and averages parameters, so that one adapter answers. Ours draws whole adapters, has no such loss, and averages what they write
(their parameters under kind `merged_bottleneck`), so that all of them answer, at their cost. Adapters that were not drawn have gradients of
zero, so that the optimizer's momentum and weight decay still move them.
"""

from __future__ import annotations

import torch

from alter.nn.gate_shape import GateInputs
from alter.nn.gates.uniform import Uniform
from alter.nn.mixing import Weights


class AdaMix(Uniform):
    """One adapter of the N + M in training mode, equal weights in evaluation mode; nothing to learn."""

    def forward(self, inputs: GateInputs) -> Weights:
        """Return 1 for the drawn adapter, (B, 1) with an index; in evaluation mode 1 / (N + M) for every adapter, (B, N + M)."""
        if not self.training:
            return super().forward(inputs)
        drawn = torch.randint(self.num_weighed, (1, 1), device=inputs.x_BSD.device)
        rows = inputs.task_ids_B.shape[0]
        return Weights(values=inputs.x_BSD.new_ones((rows, 1)), index=drawn.expand(rows, 1))


GATE = AdaMix
