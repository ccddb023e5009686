"""TAPS: a learned score per task and site switches the task's own adapters on there, or leaves the site as all tasks share it.

    w_t = 1[s_t >= threshold] / num_owned on the adapters that t owns, 0 elsewhere

The step has no gradient, so s gets that of w itself (straight through): a score below the threshold can come back, though its
adapters get no gradient meanwhile. Scores start above the threshold at `start`; the penalty `sparsity` pulls them down, and the task's loss
holds up those of sites that it needs. After each optimizer step they are clipped to [0, 1].

Task Adaptive Parameter Sharing, Wallingford et al. 2022 (arXiv 2203.16708), with adapters in the place of its weight differences. A row
whose weight is 0 costs as much as any other while training, for its score needs the gradient; `alter extract` leaves such sites out.

Shapes: B rows, T tasks, K owned adapters.
"""

from __future__ import annotations

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, owned_adapters
from alter.nn.mixing import Weights


class Taps(nn.Module):
    """Scores s (T): one parameter a task, so that those of absent tasks stand still; shared adapters get nothing."""

    owned_TK: torch.Tensor

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.threshold = settings.threshold
        self.start = settings.start
        self.scores = nn.ParameterList(nn.Parameter(torch.tensor(settings.start)) for _ in range(shape.num_tasks))
        self.register_buffer(
            "owned_TK", owned_adapters(shape.num_tasks, shape.num_adapters, settings.num_owned), persistent=False
        )

    @property
    def scores_T(self) -> torch.Tensor:
        """The scores of all tasks, (T,)."""
        return torch.stack(list(self.scores))

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Switch on what has any weight among a task's own adapters: stage 1's function after one_hot or taps with as many owned."""
        used_T = weights_TN.gather(1, self.owned_TK).sum(-1) > 0
        with torch.no_grad():
            for score, used in zip(self.scores, used_T.tolist(), strict=True):
                score.fill_(max(self.start, self.threshold) if used else 0.0)

    def after_step(self) -> None:
        """Clip scores to [0, 1]: one far from the threshold would need many steps to come back to it."""
        with torch.no_grad():
            for score in self.scores:
                score.clamp_(0, 1)

    def forward(self, inputs: GateInputs) -> Weights:
        """Return 1[s_t >= threshold] / K for each owned adapter, (B, K), with the gradient of s_t / K."""
        index_BK = self.owned_TK.index_select(0, inputs.task_ids_B)
        scores_B = self.scores_T.index_select(0, inputs.task_ids_B)
        used_B = (scores_B >= self.threshold).to(scores_B.dtype) + (scores_B - scores_B.detach())
        values_BK = (used_B / index_BK.shape[1]).to(inputs.x_BSD.dtype).unsqueeze(-1).expand(index_BK.shape)
        return Weights(values=values_BK, index=index_BK)


GATE = Taps
