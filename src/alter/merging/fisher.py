"""Fisher merging: each entry is averaged by how much each model's answers depend on it.

    theta = sum_t F_t * theta_t / sum_t F_t,        F_t the diagonal of model t's Fisher information, entry by entry

Matena and Raffel 2022 (arXiv 2111.09832). F_t comes from model t's own rows (`alter.combining.statistics.diagonal_fisher`). An entry
that no model's answers depend on (sum_t F_t = 0) is averaged. The base cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from alter.config import Settings
from alter.errors import ConfigError
from alter.merging._vectors import Merged, TaskVector, stacked

NEEDS_BASE = False
STATISTICS = "the diagonal of the Fisher information, in each tensor's own shape"


class FisherSettings(Settings):
    """Settings of `fisher`: there are none."""


def merge(vectors: Sequence[TaskVector], settings: FisherSettings, statistics: Sequence[TaskVector]) -> Merged:
    """Yield each tensor's mean, weighed entry by entry.

    Args:
        vectors: what the models changed.
        settings: none.
        statistics: for each vector the same names -> F, at least 0.

    Raises:
        ConfigError: the vectors do not fit together, or the statistics do not fit them.
    """
    for name, stack_TX in stacked(vectors):
        weights_TX = torch.stack([_checked(statistics, position, name, stack_TX[0]) for position in range(len(vectors))])
        total_X = weights_TX.sum(0)
        weighed_X = (weights_TX * stack_TX).sum(0) / torch.where(total_X > 0, total_X, 1.0)
        yield name, torch.where(total_X > 0, weighed_X, stack_TX.mean(0))


def _checked(statistics: Sequence[TaskVector], position: int, name: str, like: torch.Tensor) -> torch.Tensor:
    found = statistics[position].get(name)
    what = None
    if found is None:
        what = "is missing"
    elif found.shape != like.shape:
        what = f"has the shape {tuple(found.shape)}, the model's tensor has {tuple(like.shape)}"
    elif not bool((found >= 0).all()):
        what = "holds values below 0 or NaN, and squares of gradients are at least 0"
    if what is not None or found is None:
        raise ConfigError(
            f"fisher: '{name}' {what} in statistics {position + 1}; compute them on this model with diagonal_fisher"
        )
    return found.double()


SETTINGS = FisherSettings
