"""Mutual information of tasks and adapters, to be large: each task keeps to few adapters, and all adapters are used.

    minus I(T; E) = - sum_te P(t, e) log( P(t, e) / (P(t) P(e)) ),        P(t, e) = P(t) P(e | t)

P(t) is task t's share of the step's rows, P(e | t) the mean gate weight of its rows on adapter e, scaled so that its adapters sum to one,
P(e) = sum_t P(t, e). A weight below zero (a `table` may learn one) counts as large as it is, for a probability is never negative. The
value lies between -log(number of tasks) (each task has adapters of its own, equal shares) and 0 (all tasks weigh alike). A task without
rows in the step has P(t) = 0: it adds nothing and gets no gradient; with one task alone there is nothing to tell apart. So let a step
have rows of all tasks.

Mod-Squad, Chen et al. 2023 (arXiv 2212.08066), which divides by all weight instead of counting rows: the same where weights sum to one.

Shapes: B rows, T tasks, E adapters.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alter.nn.penalty_shape import Penalty, SiteWeights

LEAST = 1e-12
"""Probabilities below this are taken for it in a logarithm, so that 0 log 0 is 0 and has a gradient."""


class MutualInformation(Penalty):
    """Minus I(T; E), in nats."""

    def sums(self, site: SiteWeights) -> torch.Tensor:
        """Return the sum of weights by task and adapter, and each task's rows in a last column, (T, E + 1)."""
        rows_BE = site.by_row.abs()
        told_BE1 = torch.cat([rows_BE, torch.ones_like(rows_BE[:, :1])], dim=-1) * site.counts_B.to(rows_BE.dtype).unsqueeze(-1)
        return functional.one_hot(site.task_ids_B, site.num_tasks).to(rows_BE.dtype).T @ told_BE1

    def value(self, sums: torch.Tensor, gate: nn.Module) -> torch.Tensor:
        """Return minus I(T; E)."""
        weights_TE, rows_T1 = sums[:, :-1], sums[:, -1:]
        share_T1 = rows_T1 / rows_T1.sum()
        joint_TE = share_T1 * weights_TE / weights_TE.sum(-1, keepdim=True).clamp_min(LEAST)
        apart_TE = share_T1 * joint_TE.sum(0)
        return -(joint_TE * (joint_TE.clamp_min(LEAST).log() - apart_TE.clamp_min(LEAST).log())).sum()


PENALTY = MutualInformation
