"""Task Weights Selector: w_t = softmax(S_t / tau), one learned row of S per task over all task adapters.

ALTER's stage 1 (arXiv 2309.11042). Two ways to start: from logits as the authors' reference has them (`own_logit` 0.22,
`other_logit` 0.20, tau 0.1, two owned adapters), or from the weight that owned adapters should get together (`own_weight` 0.9).
"""

from __future__ import annotations

import math

import torch
from torch import nn

from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, keep_top, owned_adapters
from alter.nn.mixing import Weights


class Selector(nn.Module):
    """S (T, N), learned; as a gate it starts at stage 1's weights and leaves shared adapters out."""

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        self.temperature = settings.temperature
        self.top_k = settings.top_k
        owned_TK = owned_adapters(shape.num_tasks, shape.num_adapters, settings.num_owned)
        logits_TN = torch.full((shape.num_tasks, shape.num_adapters), settings.other_logit)
        logits_TN.scatter_(1, owned_TK, _own_logit(settings, shape.num_adapters, owned_TK.shape[1]))
        self.logits_TN = nn.Parameter(logits_TN)

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Begin at the given weights (floored at 1e-3, so that no adapter is out of reach)."""
        with torch.no_grad():
            self.logits_TN.copy_(self.temperature * weights_TN.clamp_min(1e-3).log())

    def forward(self, inputs: GateInputs) -> Weights:
        """Return softmax(S_t / tau), (B, N)."""
        weights_TN = torch.softmax(self.logits_TN / self.temperature, dim=-1)
        return keep_top(weights_TN.index_select(0, inputs.task_ids_B), self.top_k)


def _own_logit(settings: GateSettings, num_adapters: int, num_owned: int) -> float:
    """Return the owned adapters' logit: as given, or such that together they start at `own_weight`."""
    if settings.own_logit is not None:
        return settings.own_logit
    others = num_adapters - num_owned
    if others == 0:
        return settings.other_logit
    odds = settings.own_weight / (1 - settings.own_weight) * others / num_owned
    return settings.other_logit + settings.temperature * math.log(odds)


GATE = Selector
