"""What is held side by side: a part of a report is one comparison, or all runs that were given, as arms of one or more seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from alter.comparison import Budget, ComparedTask, Difference, Spread, StageScores, Summary, mean_budget
from alter.reporting.run_folder import SPLITS, Answer, RunFolder
from alter.results import SplitScores

METHOD_FAMILIES = ("alter", "own", "gate", "stage2")
"""Families whose arms have gates worth a map."""

K = TypeVar("K")


@dataclass(frozen=True, kw_only=True)
class Column:
    """Scores that stand beside others: an arm's, or those of one of its stages; `seeds` are those that a split's are means over."""

    name: str
    splits: Mapping[str, Summary]
    seeds: Mapping[str, Sequence[int]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Member:
    """An arm with one seed.

    Attributes:
        seed: the seed.
        run: its run directory; None of yardsticks, of arms of one task at a time, and where it was deleted.
        scores: split -> scores.
        budget: what it cost.
        answers: split -> task -> rows; only of arms that are looked at closely.
        stages: stage -> validation and test average at its best step; the test one where it was scored.
        released: the stage whose model was kept.
    """

    seed: int
    run: RunFolder | None = None
    scores: Mapping[str, SplitScores] = field(default_factory=dict)
    budget: Budget
    answers: Mapping[str, Mapping[str, Sequence[Answer]]] = field(default_factory=dict)
    stages: Mapping[str, StageScores] = field(default_factory=dict)
    released: str = ""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """An arm over all seeds.

    Attributes:
        name: as the tables have it.
        title: what it is, in a line.
        family: see `alter.comparison.Family`; `run` of runs that are in no comparison.
        members: one a seed.
        splits: split -> its scores, over seeds.
        columns: what the table of scores has of it: of a plain run its yardsticks and stages too.
        is_close: whether it is looked at closely: confusions, worst answers, a gate map per site.
        failed: why it has no scores.
    """

    name: str
    title: str
    family: str
    members: Sequence[Member]
    splits: Mapping[str, Summary]
    columns: Sequence[Column]
    is_close: bool = False
    failed: str = ""

    @property
    def runs(self) -> list[RunFolder]:
        """Its run directories, by seed."""
        return [member.run for member in self.members if member.run is not None]

    @property
    def budget(self) -> Budget:
        """What it cost, on average over its seeds."""
        return mean_budget([member.budget for member in self.members])

    def seeds(self, split: str) -> list[int]:
        """Return the seeds that were scored on a split."""
        return [member.seed for member in self.members if split in member.scores]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One comparison, or all runs that are in none.

    Attributes:
        title: what it is.
        folders: the arguments that it was read from.
        facts: what it is, by name, for the first table.
        tasks: by name.
        arms: in the order of the tables.
        small_below: a task with fewer training rows is small.
        closely: of a comparison which arm is looked at closely, and why, in a sentence.
        differences: what a comparison answers.
        environments: where from -> versions and machine.
        is_last_call: whether these are those of the last call alone, since no run directory is there that has its own.
        is_comparison: whether it is one.
    """

    title: str
    folders: Sequence[Path]
    facts: Sequence[Mapping[str, str]]
    tasks: Mapping[str, ComparedTask]
    arms: Sequence[Arm]
    small_below: int
    closely: str = ""
    differences: Sequence[Difference] = ()
    environments: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    is_last_call: bool = False
    is_comparison: bool = False

    @property
    def splits(self) -> list[str]:
        """Splits with scores, test first."""
        return [split for split in SPLITS if any(split in column.splits for arm in self.arms for column in arm.columns)]

    @property
    def close(self) -> list[Arm]:
        """The arms that are looked at closely."""
        return [arm for arm in self.arms if arm.is_close]

    @property
    def is_bare(self) -> bool:
        """Whether there is neither a run directory nor an answer of any arm: nothing but tables can be shown."""
        members = [member for arm in self.arms for member in arm.members]
        return self.is_comparison and not any(member.run is not None or any(member.answers.values()) for member in members)


def spread(values: Iterable[float]) -> Spread:
    """Return mean and standard deviation (n - 1) of one number a seed; what is no number is left out."""
    found = [value for value in values if math.isfinite(value)]
    sd = statistics.stdev(found) if len(found) > 1 else math.nan
    return Spread(mean=statistics.fmean(found) if found else math.nan, sd=sd, seeds=len(found))
