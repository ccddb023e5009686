"""DARE: drop entries of the task vectors at random, rescale the others, add them up.

    theta = theta_0 + scale * sum_t m_t * tau_t / density,        m_t = 1 with probability density, else 0

Yu et al. 2024 (arXiv 2311.03099), who drop with probability p = 1 - density and merge by task arithmetic, as here. In expectation over
seeds it is task arithmetic with the same scale.
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic

from alter.config import Settings
from alter.merging._trim import drop_at_random
from alter.merging._vectors import Merged, TaskVector, stacked


class DareSettings(Settings):
    """Settings of `dare`."""

    density: float = pydantic.Field(default=0.5, gt=0, le=1)
    """Probability that an entry is kept."""
    scale: float = pydantic.Field(default=0.3, gt=0)
    """What the sum of the task vectors is multiplied by."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Seed of what is dropped."""


def merge(vectors: Sequence[TaskVector], settings: DareSettings) -> Merged:
    """Yield each tensor's scaled sum of what was kept.

    Raises:
        ConfigError: the vectors do not fit together.
    """
    for name, stack_TX in stacked(drop_at_random(vectors, settings.density, settings.seed)):
        yield name, settings.scale * stack_TX.sum(0)


SETTINGS = DareSettings
