"""Load balance of the shared adapters: none of them should lie idle.

    M sum_j f_j P_j

f_j is the share of tokens (of rows, where weights are by row) whose largest weight among shared adapters is j's, P_j the mean of j's
weight, scaled so that shared adapters sum to one. Rows count alike, however many tokens they have, and a weight below zero (a `table` may
learn one) counts as large as it is. The value is 1 where both are even, and up to M where one adapter gets all; only P has a gradient.

Switch Transformer, Fedus et al. 2022 (arXiv 2101.03961); MixLoRA (arXiv 2404.15159) uses it on LoRA adapters, at 0.001.

Shapes: B rows, S tokens, N task adapters, M shared adapters.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alter.nn.penalty_shape import Penalty, SiteWeights

LEAST = 1e-12


class LoadBalance(Penalty):
    """M sum_j f_j P_j over shared adapters."""

    def sums(self, site: SiteWeights) -> torch.Tensor:
        """Return how often each shared adapter is the first, and the sum of its share of the weight, (2, M)."""
        shared = site.weights[..., site.num_adapters :].abs()
        first = functional.one_hot(shared.argmax(-1), shared.shape[-1]).to(shared.dtype)
        share = shared / shared.sum(-1, keepdim=True).clamp_min(LEAST)
        counts_B1 = site.counts_B.to(shared.dtype).unsqueeze(-1)
        return torch.stack([(site.over_tokens(each) * counts_B1).sum(0) for each in (first, share)])

    def value(self, sums: torch.Tensor, gate: nn.Module) -> torch.Tensor:
        """Return M sum_j f_j P_j."""
        first_M, share_M = sums / sums[0].sum()
        total: torch.Tensor = sums.shape[-1] * (first_M * share_M).sum()
        return total


PENALTY = LoadBalance
