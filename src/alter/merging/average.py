"""The mean of the models, or a weighted one.

    theta = sum_t w_t theta_t / sum_t w_t,        w_t = 1 unless they are given

Wortsman et al. 2022, "Model soups" (arXiv 2203.05482), average fine-tuned models of one base. The base cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic

from alter.config import Settings
from alter.errors import ConfigError
from alter.merging._vectors import Merged, TaskVector, stacked, weighted_sum

NEEDS_BASE = False


class AverageSettings(Settings):
    """Settings of `average`."""

    weights: list[float] | None = None
    """How much each model counts, in the order in which they are given; by default all alike. They are divided by their sum."""

    @pydantic.field_validator("weights")
    @classmethod
    def _sum_above_zero(cls, weights: list[float] | None) -> list[float] | None:
        if weights is not None and (min(weights, default=0.0) < 0 or sum(weights) <= 0):
            raise ValueError("weights must be at least 0, and one of them above 0")
        return weights


def merge(vectors: Sequence[TaskVector], settings: AverageSettings) -> Merged:
    """Yield each tensor's mean.

    Raises:
        ConfigError: there are not as many weights as vectors, or these do not fit together.
    """
    weights = settings.weights or [1.0] * len(vectors)
    if len(weights) != len(vectors):
        raise ConfigError(
            f"average: weights holds {len(weights)} numbers, and there are {len(vectors)} to merge; give one number each"
        )
    total = sum(weights)
    for name, stack_TX in stacked(vectors):
        yield name, weighted_sum(stack_TX, [weight / total for weight in weights])


SETTINGS = AverageSettings
