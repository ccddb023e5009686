"""Mean of the scores of TAPS: pulls a task off the sites that it does not need (kind taps).

    1 / T sum_t |s_t|, and the mean over sites

Wallingford et al. 2022 (arXiv 2203.16708), where every site has one score a task. The score of a task without rows in a step stands
still in it, as all that belongs to one task does.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from alter.errors import ConfigError
from alter.nn.penalty_shape import Penalty


class Sparsity(Penalty):
    """Mean |s| of a gate that has `scores_T`."""

    reads_rows = False

    def value(self, sums: torch.Tensor, gate: nn.Module) -> torch.Tensor:
        """Return the mean over tasks.

        Raises:
            ConfigError: the gate has no scores.
        """
        if not hasattr(gate, "scores_T"):
            raise ConfigError(f"the penalty sparsity needs scores, and a {type(gate).__name__} has none; use kind taps")
        return cast(torch.Tensor, gate.scores_T).abs().mean()


PENALTY = Sparsity
