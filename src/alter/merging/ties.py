"""TIES: trim each task vector, elect a sign for each entry, average the entries that agree.

    trim    keep the share `density` of tau_t's entries that is largest in magnitude (over the whole model), set the rest to 0
    elect   gamma = sign(sum_t tau_t)
    merge   theta = theta_0 + scale * mean of tau_t over the t whose entry has the sign gamma

Yadav et al. 2023 (arXiv 2306.01708), with its density 0.2 and scale 1 as defaults. Where the sum is exactly 0 the merged entry is 0; the
authors' code takes the sign that most entries of the model have there.
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic

from alter.config import Settings
from alter.merging._elect import mean_of_agreeing
from alter.merging._trim import keep_largest
from alter.merging._vectors import Merged, TaskVector, check_vectors, stacked


class TiesSettings(Settings):
    """Settings of `ties`."""

    density: float = pydantic.Field(default=0.2, gt=0, le=1)
    """Share of each task vector's entries that is kept."""
    scale: float = pydantic.Field(default=1.0, gt=0)
    """What the merged vector is multiplied by."""


def merge(vectors: Sequence[TaskVector], settings: TiesSettings) -> Merged:
    """Yield each tensor's mean over the trimmed vectors that agree.

    Raises:
        ConfigError: the vectors do not fit together.
    """
    check_vectors(vectors)
    for name, stack_TX in stacked(keep_largest(vectors, settings.density)):
        yield name, settings.scale * mean_of_agreeing(stack_TX)


SETTINGS = TiesSettings
