"""Who stands where: the sentences above the tables of scores."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from alter.comparison import Spread, Summary
from alter.errors import counted
from alter.reporting.arms import Column, Part
from alter.reporting.sections._released import sentences
from alter.reporting.sections.questions import answer
from alter.reporting.words import equated, few, listed, number, spread_text

MOST_TIED = 4


def columns_of(part: Part, split: str) -> list[Column]:
    """Return the columns with scores on a split."""
    return [column for arm in part.arms for column in arm.columns if split in column.splits]


def least_seeds(part: Part, split: str) -> int:
    """Return the seeds that it takes to be called the best: those of the arm that is looked at closely. One lucky seed beats a mean."""
    return min(
        (column.splits[split].average.seeds for arm in part.close for column in arm.columns if split in column.splits), default=1
    )


def seeds_differ(columns: Sequence[Column], split: str) -> bool:
    """Whether averages are over other seeds in one column than in another."""
    return len({tuple(column.seeds.get(split, ())) for column in columns}) > 1


def without_score(summary: Summary) -> str:
    """Return why there is no average: `: a has no score`."""
    tasks = [task for task, one in summary.tasks.items() if not math.isfinite(one.mean)]
    return f": {listed(tasks)} {'has' if len(tasks) == 1 else 'have'} no score" if tasks else ""


def standing(part: Part, split: str) -> list[str]:
    """Say which arm is best, on which tasks, what was gained over one model a task, and which stage the scores are of."""
    columns = [one for one in columns_of(part, split) if math.isfinite(one.splits[split].average.mean)]
    if not columns:
        return [f"On {split} rows no average is a number: a task's score is missing."]
    least = least_seeds(part, split)
    able = [column for column in columns if column.splits[split].average.seeds >= least]
    among = "" if len(able) == len(columns) else f" of those with {counted(least, 'seed')} or more"
    said = _first(part, split, alike(able, split), among) if able else []
    if len(able) > 1 and len(part.tasks) > 1:
        said.append(_wins(part, split, merged(able, split)))
    said += _without_average(part, split)
    # One model a task is what is gained over.
    gained = [(arm.name, arm.splits[split].delta_m) for arm in part.close if split in arm.splits and arm.name != "single-full"]
    said += [_gain(part, name, gain) for name, gain in gained if gain is not None and math.isfinite(gain.mean)]
    if part.is_comparison:
        said += sentences(part, [[one.name for one in same] for same in alike(columns, split)])
    return [*said, *_caveats(part, split, columns, among)]


def _without_average(part: Part, split: str) -> list[str]:
    """Say which arms that are looked at closely have no average, and so stand nowhere."""
    found: dict[str, list[str]] = {}
    for column in (column for arm in part.close for column in arm.columns if split in column.splits):
        if not math.isfinite(column.splits[split].average.mean):
            found.setdefault(without_score(column.splits[split]), []).append(column.name)
    return [f"{listed(names)} {'has' if len(names) == 1 else 'have'} no average{why}." for why, names in found.items()]


def _caveats(part: Part, split: str, columns: Sequence[Column], among: str) -> list[str]:
    said = []
    if seeds_differ(columns, split):
        best = [f"called the best is one{among}"] if among else []
        asked = ["the questions take the same seeds"] if part.differences else []
        more = f": {'; '.join([*best, *asked])}" if best or asked else ""
        said.append(f"Not all of them have the same seeds, so averages do not quite compare{more}.")
    averaged_over = {tuple(sorted(column.splits[split].tasks)) for column in columns}
    if len(averaged_over) > 1:
        said.append("Not all of them have the same tasks, so their averages do not compare.")
    return said


def alike(columns: Sequence[Column], split: str) -> list[list[Column]]:
    """Return the columns, those that have all scores in common together: gates on one stage 1 that was released, for the most part."""
    found: dict[tuple[tuple[str, float], ...], list[Column]] = {}
    for column in columns:
        found.setdefault(tuple((task, one.mean) for task, one in column.splits[split].tasks.items()), []).append(column)
    return list(found.values())


def merged(columns: Sequence[Column], split: str) -> list[Column]:
    """Return one column of those that have all scores in common."""
    return [Column(name=_name(same), splits=same[0].splits) if len(same) > 1 else same[0] for same in alike(columns, split)]


def _name(same: Sequence[Column]) -> str:
    return equated([one.name for one in same])


def _first(part: Part, split: str, groups: Sequence[list[Column]], among: str) -> list[str]:
    """Say who is best, and how the arm that is looked at closely stands; averages that read alike are a tie, and no ranking."""
    # Among averages that read alike the arm that is looked at closely comes first, for a long list is cut.
    looked_at = {arm.name for arm in part.close}

    def rank(same: list[Column]) -> tuple[float, bool, float]:
        average = same[0].splits[split].average.mean
        return -round(average, 1), looked_at.isdisjoint(one.name for one in same), -average

    ranked = sorted(groups, key=rank)
    texts = [number(same[0].splits[split].average.mean) for same in ranked]
    best = [same for same, text in zip(ranked, texts, strict=True) if text == texts[0]]
    if len(ranked) == 1:
        return [_alone(ranked[0], split)]
    if len(best) > 1:
        shown = best
        said = (
            f"On {split} rows {listed([_name(same) for same in best], most=MOST_TIED)} share the best average{among}, {texts[0]}"
        )
    else:
        # What comes next may be a tie, too.
        shown = [same for same, text in zip(ranked, texts, strict=True) if text in texts[:2]]
        after = [_name(same) for same in shown[1:]]
        first, second = (spread_text(same[0].splits[split].average) for same in shown[:2])
        next_come = f"next {'comes' if len(after) == 1 else 'come'} {listed(after, most=MOST_TIED)} with {second}"
        said = f"On {split} rows {_name(best[0])} has the best average{among}, {first}; {next_come}"
    told = {name for same in shown for name in few([one.name for one in same])}
    close = [arm for arm in part.close if part.is_comparison and arm.name not in told and split in arm.splits]
    averages = [(arm.name, arm.splits[split].average) for arm in close]
    return [f"{said}.", *(f"{name} has {spread_text(found)}." for name, found in averages if math.isfinite(found.mean))]


def _alone(same: Sequence[Column], split: str) -> str:
    found = same[0].splits[split]
    tasks = sorted(((one.mean, task) for task, one in found.tasks.items() if math.isfinite(one.mean)))
    said = f"On {split} rows {_name(same)} has an average of {spread_text(found.average)}"
    if len(tasks) < 2:
        return f"{said}."
    return f"{said}, from {number(tasks[0][0])} ({tasks[0][1]}) to {number(tasks[-1][0])} ({tasks[-1][1]})."


def _wins(part: Part, split: str, columns: Sequence[Column]) -> str:
    wins: Counter[str] = Counter()
    without = []
    for task in part.tasks:
        found = [(column.name, one.mean) for column in columns if (one := column.splits[split].tasks.get(task)) is not None]
        finite = [(name, mean) for name, mean in found if math.isfinite(mean)]
        most = max((mean for _, mean in finite), default=math.nan)
        wins.update(name for name, mean in finite if number(mean) == number(most))
        without += [] if finite else [task]
    told = [f"{name} on {count}" for name, count in wins.most_common()]
    no_rows = all(not part.tasks[task].rows.get(split) for task in without)
    what = f"no {split} rows" if no_rows else f"no score on {split} rows"
    lacking = f"; {listed(without)} {'has' if len(without) == 1 else 'have'} {what}" if without else ""
    tasks = counted(len(part.tasks) - len(without), "task")
    return f"Best score by task, of {tasks}: {listed(told)} (ties count for each){lacking}."


def _gain(part: Part, name: str, gain: Spread) -> str:
    against = f"Against one fine-tuned model a task, {name} is"
    asked = [one for one in part.differences if (one.arm, one.against) == (name, "single-full")]
    verdict = f"; as a difference of averages: {answer(asked[0])}" if asked else "; one seed" if gain.seeds == 1 else ""
    if number(gain.mean) == "0.0":
        return f"{against} as good on average over tasks (delta_m {spread_text(gain)}){verdict}."
    change = f"{number(abs(gain.mean))} percent {'better' if gain.mean > 0 else 'worse'}"
    return (
        f"{against} {change} on average over tasks, relative to their scores (delta_m {spread_text(gain, signed=True)}){verdict}."
    )
