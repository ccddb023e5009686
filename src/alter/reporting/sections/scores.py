"""Scores of tasks beside those of baselines, over seeds, for each split."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from alter.comparison import Spread, Summary
from alter.errors import counted
from alter.reporting.arms import Column, Part
from alter.reporting.blocks import Block, Cell, Note, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import listed, number, spread_cell, spread_text
from alter.results import TaskScore

TITLE = "Scores"
WIDE = 7
"""With more columns than this, arms become rows: a page is longer than it is wide."""
MOST_REMARKS = 8
Row = tuple[str, Callable[[Summary], Spread | None], bool]


def piece(part: Part) -> Piece:
    """Show the scores of a part."""
    if not part.splits:
        return Piece(reading=["No split was scored: there were neither validation nor test rows."])
    blocks: list[Block] = []
    for split in part.splits:
        blocks.append(_table(part, split, columns_of(part, split), least=_least_seeds(part, split)))
    return Piece(reading=_reading(part, part.splits[0]), blocks=[*blocks, *_remarks(part)])


def columns_of(part: Part, split: str) -> list[Column]:
    """Return the columns with scores on a split."""
    return [column for arm in part.arms for column in arm.columns if split in column.splits]


def _table(part: Part, split: str, columns: Sequence[Column], *, least: int) -> Table:
    rows: list[Row] = [(task, _of_task(task), False) for task in part.tasks]
    rows.append(("average", lambda summary: summary.average, False))
    if any(column.splits[split].small is not None for column in columns):
        rows.append((f"average of tasks below {part.small_below:,} training rows", lambda summary: summary.small, False))
    if any(column.splits[split].delta_m is not None for column in columns):
        rows.append(("delta_m", lambda summary: summary.delta_m, True))
    able = [column.splits[split].average.seeds >= least for column in columns]
    grid = [_cells([take(column.splits[split]) for column in columns], able, signed=signed) for _, take, signed in rows]
    names, heads = [name for name, _, _ in rows], [column.name for column in columns]
    among = "" if all(able) else f" of those with {counted(least, 'seed')} or more"
    best = f"; the best{among} in bold" if len(columns) > 1 else ""
    caption = f"Scores on {split} rows, in percent{_seeds(columns, split)}{best}"
    if len(columns) <= WIDE:
        table = [[Cell(name), *cells] for name, cells in zip(names, grid, strict=True)]
        return Table(caption=caption, columns=["task", *heads], rows=table)
    turned = [[Cell(head), *(cells[position] for cells in grid)] for position, head in enumerate(heads)]
    return Table(caption=caption, columns=["arm", *names], rows=turned)


def _of_task(task: str) -> Callable[[Summary], Spread | None]:
    return lambda summary: summary.tasks.get(task)


def _least_seeds(part: Part, split: str) -> int:
    """Return the seeds that it takes to be called the best: those of the arm that is looked at closely. One lucky seed beats a mean."""
    return min(
        (column.splits[split].average.seeds for arm in part.close for column in arm.columns if split in column.splits), default=1
    )


def _cells(spreads: Sequence[Spread | None], able: Sequence[bool], *, signed: bool) -> list[Cell]:
    """Return one line of scores; of those that may be the best every one that reads like it is marked, if they are not all alike."""
    shown = [
        number(one.mean) if may and one is not None and math.isfinite(one.mean) else None
        for one, may in zip(spreads, able, strict=True)
    ]
    means = [one.mean for one, text in zip(spreads, shown, strict=True) if one is not None and text is not None]
    best = number(max(means)) if means and len(set(shown) - {None}) > 1 else None
    return [
        spread_cell(one, is_best=best is not None and text == best, signed=signed)
        for one, text in zip(spreads, shown, strict=True)
    ]


def _seeds(columns: Sequence[Column], split: str) -> str:
    most = max(column.splits[split].average.seeds for column in columns)
    return f", mean and standard deviation over up to {most} seeds" if most > 1 else ""


def _reading(part: Part, split: str) -> list[str]:
    columns = [one for one in columns_of(part, split) if math.isfinite(one.splits[split].average.mean)]
    if not columns:
        return [f"On {split} rows no average is a number: a task's score is missing."]
    least = _least_seeds(part, split)
    alike = _alike([column for column in columns if column.splits[split].average.seeds >= least], split)
    sentences = [_first(sorted(alike, key=lambda column: -column.splits[split].average.mean), split)] if alike else []
    if len(alike) > 1 and len(part.tasks) > 1:
        sentences.append(_wins(part, split, alike))
    gained = [(arm.name, summary.delta_m) for arm in part.close if (summary := arm.splits.get(split)) is not None]
    sentences += [_gain(name, gain) for name, gain in gained if gain is not None and math.isfinite(gain.mean)]
    if len({one.splits[split].average.seeds for one in columns}) > 1:
        sentences.append(
            f"Some have more seeds than others, so averages do not quite compare: called the best are those with "
            f"{counted(least, 'seed')} or more; delta_m and the questions take the same seeds."
        )
    averaged_over = {tuple(sorted(column.splits[split].tasks)) for column in columns}
    if len(averaged_over) > 1:
        sentences.append("Not all of them have the same tasks, so their averages do not compare.")
    return sentences


def _alike(columns: Sequence[Column], split: str) -> list[Column]:
    """Return the columns, those that have all scores in common as one: gates on one stage 1 that was released, for the most part."""
    found: dict[tuple[tuple[str, float], ...], list[Column]] = {}
    for column in columns:
        found.setdefault(tuple((task, one.mean) for task, one in column.splits[split].tasks.items()), []).append(column)
    return [
        Column(name=" = ".join(one.name for one in same), splits=same[0].splits) if len(same) > 1 else same[0]
        for same in found.values()
    ]


def _first(ranked: Sequence[Column], split: str) -> str:
    best = ranked[0].splits[split]
    if len(ranked) > 1:
        said = f"On {split} rows {ranked[0].name} has the best average, {spread_text(best.average)}"
        return f"{said}; next comes {ranked[1].name} with {spread_text(ranked[1].splits[split].average)}."
    tasks = sorted(((one.mean, task) for task, one in best.tasks.items() if math.isfinite(one.mean)))
    said = f"On {split} rows {ranked[0].name} has an average of {spread_text(best.average)}"
    if len(tasks) < 2:
        return f"{said}."
    return f"{said}, from {number(tasks[0][0])} ({tasks[0][1]}) to {number(tasks[-1][0])} ({tasks[-1][1]})."


def _wins(part: Part, split: str, columns: Sequence[Column]) -> str:
    wins: Counter[str] = Counter()
    for task in part.tasks:
        found = [(column.name, one.mean) for column in columns if (one := column.splits[split].tasks.get(task)) is not None]
        finite = [(name, mean) for name, mean in found if math.isfinite(mean)]
        most = max((mean for _, mean in finite), default=math.nan)
        wins.update(name for name, mean in finite if number(mean) == number(most))
    told = [f"{name} on {count}" for name, count in wins.most_common()]
    return f"Best score by task, of {counted(len(part.tasks), 'task')}: {listed(told)} (ties count for each)."


def _gain(name: str, gain: Spread) -> str:
    if number(gain.mean) == "0.0":
        return f"Against one fine-tuned model a task, {name} is as good on average over tasks (delta_m {spread_text(gain)})."
    change = f"{number(abs(gain.mean))} percent {'better' if gain.mean > 0 else 'worse'}"
    return (
        f"Against one fine-tuned model a task, {name} is {change} on average over tasks, relative to their scores (delta_m "
        f"{spread_text(gain, signed=True)})."
    )


def _remarks(part: Part) -> list[Note]:
    """Say what a score alone would hide: one answer for all rows, cut texts, answers that are none, tasks that delta_m leaves out."""
    found: dict[str, dict[str, None]] = {}
    for arm, task, split, score in _each_score(part):
        for what, number_of in (
            ("One and the same answer for every row", score.num_examples if score.constant_prediction is not None else 0),
            ("Answers that are no label or number", score.num_invalid),
            ("Texts that were cut at max_length", score.num_truncated),
        ):
            if number_of:
                found.setdefault(f"{what}, on {split} rows", {})[f"{arm} on {task} ({number_of:,} of {score.num_examples:,})"] = (
                    None
                )
    for split in part.splits:
        for column in columns_of(part, split):
            if left_out := column.splits[split].left_out:
                found.setdefault(
                    f"Left out of delta_m on {split} rows, for a score below 1 percent, or none, with a seed",
                    {},
                ).update(dict.fromkeys(left_out))
    return [Note(f"{what}: {listed(list(where), most=MOST_REMARKS)}.") for what, where in found.items()]


def _each_score(part: Part) -> Iterator[tuple[str, str, str, TaskScore]]:
    """Yield arm, task, split and score of every arm that was trained: a yardstick's one answer is no surprise."""
    for arm in part.arms:
        for member in arm.members if arm.family != "yardstick" else ():
            for split, scores in member.scores.items():
                for task, score in scores.tasks.items():
                    yield arm.name, task, split, score
