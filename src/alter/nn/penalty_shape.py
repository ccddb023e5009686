"""What a penalty on gate weights is and what it sees: the contract of `nn/penalties/`.

A penalty file defines `PENALTY`, a class below `Penalty`. A step's rows may be cut into micro-batches and processes, and a function of
all of them must not depend on the cuts. So a penalty on weights is a function of sums over rows, and the sums are all that the cuts share:

    value( sum over rows of ... , gate )        one site; the trainer takes the mean over sites, times the recipe's factor

Shapes: B rows, S tokens, T tasks, N task adapters, E all adapters of a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from alter.nn.tokens import mean_over_tokens


@dataclass(frozen=True, kw_only=True)
class SiteWeights:
    """The gate weights of a batch at one site.

    Attributes:
        weights: (B, E), or (B, S, E) where they differ by token; with their graph, in float32 or float64.
        task_ids_B: task of each row.
        mask_BS: 1 for tokens that count where weights differ by token, 0 for padding; None: all.
        counts_B: 1 for rows that count, 0 for those that only keep a process company.
        num_tasks: T.
        num_adapters: N, where the shared adapters begin.
        gate: what weighed: the selector in stage 1, the gate in stage 2.
    """

    weights: torch.Tensor
    task_ids_B: torch.Tensor
    mask_BS: torch.Tensor | None
    counts_B: torch.Tensor
    num_tasks: int
    num_adapters: int
    gate: nn.Module

    @property
    def by_row(self) -> torch.Tensor:
        """The weights as means over each row's tokens, (B, E)."""
        return self.over_tokens(self.weights)

    def over_tokens(self, values: torch.Tensor) -> torch.Tensor:
        """Return values that may differ by token as means over each row's tokens, (B, ...)."""
        return values if values.dim() == 2 else mean_over_tokens(values, self.mask_BS)


class Penalty:
    """A penalty: on the weights of a step's rows, or on what gates have learned, but not on both.

    Attributes:
        reads_rows: False for one that looks at the gate's own parameters alone; `sums` is then not called.
    """

    reads_rows = True

    def sums(self, site: SiteWeights) -> torch.Tensor:
        """Return what `value` needs of the rows: sums over those that count, of one shape at all sites and for all batches."""
        raise NotImplementedError

    def value(self, sums: torch.Tensor, gate: nn.Module) -> torch.Tensor:
        """Return the penalty of one site, a scalar, from sums over all rows of the step (no numbers where `reads_rows` is False)."""
        raise NotImplementedError

    def __call__(self, sites: Sequence[SiteWeights]) -> torch.Tensor:
        """Return the penalty of one whole batch: the mean over its sites."""
        return torch.stack([self.value(self._sums(site), site.gate) for site in sites]).mean()

    def _sums(self, site: SiteWeights) -> torch.Tensor:
        return self.sums(site) if self.reads_rows else site.weights.new_zeros(0)
