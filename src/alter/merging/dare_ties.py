"""DARE, then TIES' election: drop at random and rescale, elect signs, average the entries that agree.

    tau_t' = m_t * tau_t / density                                m_t = 1 with probability density, else 0
    theta  = theta_0 + scale * mean of tau_t' over the t whose entry has the sign of sum_t tau_t'

DARE (Yu et al. 2024, arXiv 2311.03099) stands in the place of the trimming of TIES (Yadav et al. 2023, arXiv 2306.01708).
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic

from alter.config import Settings
from alter.merging._elect import mean_of_agreeing
from alter.merging._trim import drop_at_random
from alter.merging._vectors import Merged, TaskVector, stacked


class DareTiesSettings(Settings):
    """Settings of `dare_ties`."""

    density: float = pydantic.Field(default=0.5, gt=0, le=1)
    """Probability that an entry is kept."""
    scale: float = pydantic.Field(default=1.0, gt=0)
    """What the merged vector is multiplied by."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Seed of what is dropped."""


def merge(vectors: Sequence[TaskVector], settings: DareTiesSettings) -> Merged:
    """Yield each tensor's mean over what was kept and agrees.

    Raises:
        ConfigError: the vectors do not fit together.
    """
    for name, stack_TX in stacked(drop_at_random(vectors, settings.density, settings.seed)):
        yield name, settings.scale * mean_of_agreeing(stack_TX)


SETTINGS = DareTiesSettings
