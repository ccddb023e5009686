"""Learning curves: loss by task and validation average over the steps of both stages."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

from alter.comparison import mean
from alter.errors import counted
from alter.reporting.arms import Arm, Member, Part
from alter.reporting.blocks import Block, Cell, Figures, Fold, Lines, Note, Series, Table
from alter.reporting.run_folder import Event, RunFolder
from alter.reporting.sections._piece import Piece
from alter.reporting.sections._released import PRECISION, is_rounded
from alter.reporting.words import NONE, number, number_cell, seconds_text, stage_name
from alter.results import StageResult

TITLE = "Learning curves"
MOST_LINES = 6
"""Lines in one chart; more could not be told apart without colours."""
MOST_POINTS = 150
LEAST_POINTS = 2
"""A curve of fewer points is none; the table has the number."""
STEPS = "optimizer steps"
LOSS = "training loss (mean since last logged step)"


def piece(part: Part) -> Piece:
    """Show the curves of every arm that is one run a seed."""
    if part.is_bare:
        return Piece(reading=())
    shown = [arm for arm in part.arms if any(run.journal for run in arm.runs)]
    close = [arm for arm in shown if arm.is_close]
    reading = [sentence for arm in close for sentence in _reading(arm, named=len(part.arms) > 1)]
    without = [arm.name for arm in part.close if arm not in shown]
    reading += [f"There is no metrics.jsonl of {name}, so its curves are missing." for name in without]
    if "validation" in part.splits and any(is_rounded(member) for arm in shown for member in arm.members):
        reading.append(PRECISION)
    if len(part.arms) == 1:
        return Piece(reading=reading, blocks=_arm_blocks(shown[0]) if shown else ())
    ordered = close + [arm for arm in shown if not arm.is_close]
    folds = [Fold(title=arm.name, blocks=_arm_blocks(arm), is_open=arm.is_close) for arm in ordered]
    return Piece(reading=reading or ["No arm left a journal."], blocks=folds)


def _reading(arm: Arm, *, named: bool) -> list[str]:
    found = []
    for stage in _stages(arm.runs):
        results = [run.results.stages[stage] for run in arm.runs if stage in run.results.stages]
        if not results:
            continue
        best, at, of = (
            mean(values) for values in zip(*[(one.average, one.best_step, one.steps) for one in results], strict=True)
        )
        name = f"{arm.name}, {stage_name(stage)}" if named else stage_name(stage).capitalize()
        over = f" (mean over {counted(len(results), 'seed')})" if len(results) > 1 else ""
        found.append(
            f"{name}: best validation average {number(best)} at step {number(at, 0)} of {number(of, 0)}{over}{_fall(arm, stage)}."
        )
    return found


def _fall(arm: Arm, stage: str) -> str:
    """Say from where to where the training loss went, on average over tasks."""
    lines = [
        event for run in arm.runs for event in run.journal if event.event == "step" and event.stage == stage and event.losses
    ]
    if not lines:
        return ""
    first, last = (mean(mean(one.losses.values()) for one in lines if one.step == step) for step in _ends(lines))
    return f"; the training loss went from {number(first, 2)} to {number(last, 2)}"


def _ends(lines: Sequence[Event]) -> tuple[int, int]:
    return min(line.step for line in lines), max(line.step for line in lines)


def _arm_blocks(arm: Arm) -> list[Block]:
    runs = [run for run in arm.runs if run.journal]
    offsets, marks = _offsets(runs)
    losses = loss_curves(runs, offsets)
    charts = _evenly(losses)
    of_seeds = f", mean over {len(runs)} seeds" if len(runs) > 1 else ""
    figures = [
        _chart(f"Training loss{_place(number, charts)}{of_seeds}", LOSS, lines, marks) for number, lines in enumerate(charts)
    ]
    validation = _validation_curves(arm, offsets)[:MOST_LINES]
    if any(len(one.x) >= LEAST_POINTS for one in validation):
        figures.append(_chart("Validation average", "average over tasks, percent", validation, marks))
    if not figures and not validation:
        return [Note("The journal has no lines to draw.")]
    caption = "Steps of stage 2 are counted on from stage 1." if marks else ""
    return [*([Figures(caption=caption, figures=figures)] if figures else []), _table(arm)]


def _evenly(lines: Sequence[Series]) -> list[Sequence[Series]]:
    """Return the lines of each chart: about as many in every one, so that none has a line by itself."""
    number = math.ceil(len(lines) / MOST_LINES)
    ends = [round(len(lines) * place / number) for place in range(number + 1)] if number else [0]
    return [lines[start:end] for start, end in itertools.pairwise(ends)]


def _place(number: int, charts: Sequence[Sequence[Series]]) -> str:
    """Return what tells a chart's title from another's; a line by itself has no legend that names it."""
    alone = f" of {charts[number][0].name}" if len(charts[number]) == 1 else ""
    return f"{alone} ({number + 1} of {len(charts)})" if len(charts) > 1 else alone


def _chart(title: str, y_label: str, series: Sequence[Series], marks: Sequence[tuple[float, str]]) -> Lines:
    ends = [f"{one.name} from {number(one.y[0], 2)} to {number(one.y[-1], 2)}" for one in series]
    alt = f"{title} against {STEPS}: {'; '.join(ends)}."
    return Lines(title=title, alt=alt, x_label=STEPS, y_label=y_label, series=series, marks=marks)


def _stages(runs: Sequence[RunFolder]) -> list[str]:
    return sorted({event.stage for run in runs for event in run.journal})


def _offsets(runs: Sequence[RunFolder]) -> tuple[dict[str, int], list[tuple[float, str]]]:
    """Return how many steps were taken before each stage, and a mark where the next one begins."""
    offsets: dict[str, int] = {}
    marks, before = [], 0
    for stage in _stages(runs):
        offsets[stage] = before
        if before:
            marks.append((float(before), stage_name(stage)))
        before += max(event.step for run in runs for event in run.journal if event.stage == stage)
    return offsets, marks


def loss_curves(runs: Sequence[RunFolder], offsets: Mapping[str, int]) -> list[Series]:
    """Return each task's loss, the mean over seeds at those steps that all of them logged."""
    found: dict[str, dict[int, list[float]]] = {}
    for run in runs:
        for event in run.journal:
            if event.event == "step":
                for task, loss in event.losses.items():
                    found.setdefault(task, {}).setdefault(offsets[event.stage] + event.step, []).append(loss)
    curves = []
    for task, by_step in found.items():
        points = [(step, sum(losses) / len(losses)) for step, losses in sorted(by_step.items()) if len(losses) == len(runs)]
        finite = [(step, loss) for step, loss in points if math.isfinite(loss)]
        if finite:
            curves.append(_thinned(task, finite))
    return curves


def _validation_curves(arm: Arm, offsets: Mapping[str, int]) -> list[Series]:
    curves = []
    for run in arm.runs:
        events = [event for event in run.journal if event.event == "validation" and math.isfinite(event.average)]
        points = sorted((offsets[event.stage] + event.step, event.average) for event in events)
        if points:
            curves.append(_thinned(f"seed {run.results.seed}", points))
    return curves


def _thinned(name: str, points: Sequence[tuple[int, float]]) -> Series:
    """Return a line of at most `MOST_POINTS` points, each the mean of its neighbours, where there are more."""
    width = math.ceil(len(points) / MOST_POINTS)
    parts = [points[start : start + width] for start in range(0, len(points), width)]
    return Series(
        name=name,
        x=[sum(x for x, _ in part) / len(part) for part in parts],
        y=[sum(y for _, y in part) / len(part) for part in parts],
    )


def _table(arm: Arm) -> Table:
    """Return each stage of each seed; columns that say nothing are left out."""
    rows = []
    for member in arm.members:
        for stage, one in member.run.results.stages.items() if member.run is not None else ():
            rows.append(_row(member, stage, one))
    heads = ["seed", "stage", "best validation average", "test average", "at step", "of steps", "time", "taken from"]
    kept = [column for column, _ in enumerate(heads) if any(row[column].text != NONE for row in rows)]
    return Table(
        caption="Stages",
        columns=[heads[column] for column in kept],
        rows=[[row[column] for column in kept] for row in rows],
        num_text=2,
    )


def _row(member: Member, stage: str, one: StageResult) -> list[Cell]:
    test = member.stages[stage].test if stage in member.stages else None
    return [
        Cell(str(member.seed), member.seed), Cell(stage_name(stage)), number_cell(one.average), number_cell(test),
        Cell(f"{one.best_step:,}", one.best_step), Cell(f"{one.steps:,}", one.steps), Cell(seconds_text(one.seconds), one.seconds),
        Cell(one.taken_from or NONE),
    ]  # fmt: skip
