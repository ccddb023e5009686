"""Arms and questions of a comparison, in a line each."""

from __future__ import annotations

import math
from typing import Any

from tests.reporting.folders import arm_of, scores

from alter.comparison import ArmResult, Budget, Difference, Spread

TWO_STAGES = {"stage1": (50.0, 60.0), "stage2": (49.0, 61.5)}


def hand(family: str, averages: dict[int, float], **more: Any) -> ArmResult:
    return arm_of(family, {seed: {"test": scores({"a": average})} for seed, average in averages.items()}, **more)


def asked(
    against: str, by_seed: list[float], *, question: str = "", low: float | None = None, high: float | None = None
) -> Difference:
    found = sum(by_seed) / len(by_seed)
    return Difference(
        question=question or f"Is it better than {against}?", arm="alter-lite", against=against, split="test", difference=found,
        low=found - 0.4 if low is None else low, high=found + 0.4 if high is None else high, by_seed=by_seed,
    )  # fmt: skip


def released(*stages: str) -> dict[int, str]:
    return dict(enumerate(stages))


def costly(parameters: int) -> Budget:
    return Budget(trainable_parameters=parameters, relative_time=parameters / 100)


def spread(mean: float, seeds: int = 3) -> Spread:
    return Spread(mean=mean, sd=math.nan, seeds=seeds)
