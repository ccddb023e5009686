"""The sum of the task vectors, scaled.

    theta = theta_0 + scale * sum_t tau_t,        tau_t = theta_t - theta_0

Ilharco et al. 2023, "Editing models with task arithmetic" (arXiv 2212.04089). With scale 1 / T it is the average. On eight GLUE tasks
and Flan-T5-base 0.1 to 0.2 was best and answers broke from 0.5 on (published sweep, docs/how-to/merge.md): try several.
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic

from alter.config import Settings
from alter.merging._vectors import Merged, TaskVector, stacked


class TaskArithmeticSettings(Settings):
    """Settings of `task_arithmetic`."""

    scale: float = pydantic.Field(default=0.3, gt=0)
    """What the sum of the task vectors is multiplied by."""


def merge(vectors: Sequence[TaskVector], settings: TaskArithmeticSettings) -> Merged:
    """Yield each tensor's scaled sum.

    Raises:
        ConfigError: the vectors do not fit together.
    """
    for name, stack_TX in stacked(vectors):
        yield name, settings.scale * stack_TX.sum(0)


SETTINGS = TaskArithmeticSettings
