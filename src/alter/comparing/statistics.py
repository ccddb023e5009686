"""Numbers over seeds: mean and standard deviation, delta_m against one model a task, the mean of small tasks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence

from alter.comparison import ArmRun, ComparedTask, Spread, Summary
from alter.results import SplitScores, average

LEAST = 1.0
"""Percent. Below it a single-task score makes a quotient that is noise."""


def spread(values: Sequence[float]) -> Spread:
    """Return mean and standard deviation (n - 1) of one number a seed; a number that is none makes both none."""
    # Python 3.11's stdev breaks on NaN.
    sd = statistics.stdev(values) if len(values) > 1 and all(map(math.isfinite, values)) else math.nan
    return Spread(mean=statistics.fmean(values), sd=sd, seeds=len(values))


def next_to_nothing(singles: Iterable[SplitScores]) -> list[str]:
    """Return the tasks whose single-task score is below `LEAST`, or no number, with any seed."""
    found = {
        task: None
        for scores in singles
        for task, one in scores.tasks.items()
        if not (math.isfinite(one.score) and one.score >= LEAST)
    }
    return list(found)


def delta_m(scores: SplitScores, single: SplitScores, *, without: Collection[str] = ()) -> tuple[float, list[str]]:
    """Return the mean relative gain over single-task models, in percent, and the tasks left out.

        delta_m = 1/T sum_t 100 (score_t - single_t) / single_t        (Maninis et al. 2019, arXiv 1904.08918; all metrics rise)

    A task is left out where the single-task score is below `LEAST`, and those of `without` are; without any task left the gain is NaN.
    """
    gains, left_out = [], []
    for task, score in scores.tasks.items():
        own = single.tasks[task].score
        if task not in without and math.isfinite(own) and own >= LEAST and math.isfinite(score.score):
            gains.append(100 * (score.score - own) / own)
        else:
            left_out.append(task)
    return (statistics.fmean(gains) if gains else math.nan), left_out


def small_tasks(tasks: Mapping[str, ComparedTask], below: int) -> list[str]:
    """Return the tasks with fewer training rows than `below`; none where these are all tasks."""
    small = [name for name, task in tasks.items() if task.rows.get("train", 0) < below]
    return small if len(small) < len(tasks) else []


def summarise(
    runs: Sequence[ArmRun], singles: Mapping[int, ArmRun], tasks: Mapping[str, ComparedTask], *, split: str, small: Sequence[str]
) -> Summary | None:
    """Return an arm's summary on one split; None where it was not scored there.

    Args:
        runs: the arm's runs, one a seed.
        singles: seed -> the run of the arm that has one model a task.
        tasks: the tasks.
        split: the split.
        small: the small tasks.
    """
    scored = [(run.seed, run.splits[split]) for run in runs if split in run.splits]
    if not scored:
        return None
    groups = {name: task.group for name, task in tasks.items()}
    # A task that comes and goes with the seed would make means over seeds of different tasks.
    faint = {
        *next_to_nothing(run.splits[split] for run in singles.values() if split in run.splits),
        *(task for _, scores in scored for task, one in scores.tasks.items() if not math.isfinite(one.score)),
    }
    gains: list[float] = []
    left_out: list[str] = []
    for seed, scores in scored:
        single = singles.get(seed)
        if single is not None and split in single.splits:
            gain, without = delta_m(scores, single.splits[split], without=faint)
            gains.append(gain)
            left_out += [task for task in without if task not in left_out]
    mine = [task for task in small if task in scored[0][1].tasks]
    if len(mine) == len(scored[0][1].tasks):  # the average over again: the other tasks have no rows in this split
        mine = []
    of_small = [average({task: scores.tasks[task].score for task in mine}, groups) for _, scores in scored]
    return Summary(
        average=spread([scores.average for _, scores in scored]),
        small=spread(of_small) if mine else None,
        delta_m=spread(gains) if gains else None,
        left_out=left_out,
        tasks={task: spread([scores.tasks[task].score for _, scores in scored]) for task in scored[0][1].tasks},
    )
