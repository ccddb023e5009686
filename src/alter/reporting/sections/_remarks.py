"""What a score alone would hide: one answer for all rows, cut texts, answers that are none, tasks that delta_m leaves out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alter.reporting.arms import Part
from alter.reporting.blocks import Note
from alter.reporting.sections._standing import columns_of
from alter.reporting.words import listed
from alter.results import TaskScore

MOST_REMARKS = 8
MOST_ARMS = 4
Case = tuple[str, int, int]
"""Arm, rows that it happened to, rows."""


def remarks(part: Part) -> list[Note]:
    """Return a note on each kind of thing that happened, task by task."""
    found: dict[str, dict[str, list[Case]]] = {}
    for arm, task, split, score in _each_score(part):
        for what, number_of in (
            ("One and the same answer for every row", score.num_examples if score.constant_prediction is not None else 0),
            ("Answers that are no label or number", score.num_invalid),
            ("Texts that were cut at max_length", score.num_truncated),
        ):
            if number_of:
                cases = found.setdefault(f"{what}, on {split} rows", {}).setdefault(task, [])
                cases.append((arm, number_of, score.num_examples))
    told = {what: [_told(task, cases) for task, cases in by_task.items()] for what, by_task in found.items()}
    told.update(_left_out(part))
    return [Note(f"{what}: {listed(where, most=MOST_REMARKS)}.") for what, where in told.items()]


def _told(task: str, cases: Sequence[Case]) -> str:
    """Say what happened on a task, seeds of one arm at once: `alter-lite on hate (3 of 100)`."""
    arms = list(dict.fromkeys(arm for arm, _, _ in cases))
    numbers = sorted({number_of for _, number_of, _ in cases})
    rows = max(of for _, _, of in cases)
    span = f"{numbers[0]:,}" if len(numbers) == 1 else f"{numbers[0]:,} to {numbers[-1]:,}"
    return f"{listed(arms, most=MOST_ARMS)} on {task} ({span} of {rows:,})"


def _left_out(part: Part) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for split in part.splits:
        names = dict.fromkeys(task for column in columns_of(part, split) for task in column.splits[split].left_out)
        if names:
            found[f"Left out of delta_m on {split} rows, for a score below 1 percent, or none, with a seed"] = list(names)
    return found


def _each_score(part: Part) -> Iterator[tuple[str, str, str, TaskScore]]:
    """Yield arm, task, split and score of every arm that was trained: a yardstick's one answer is no surprise."""
    for arm in part.arms:
        for member in arm.members if arm.family != "yardstick" else ():
            for split, scores in member.scores.items():
                for task, score in scores.tasks.items():
                    yield arm.name, task, split, score
