"""Plain answers: the questions of a comparison, each a difference of two arms with its interval."""

from __future__ import annotations

import math

from alter.comparison import Difference
from alter.errors import counted
from alter.reporting.arms import Part
from alter.reporting.blocks import Cell, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import NONE, number, number_cell, plain

TITLE = "Plain answers"
WORDS = ("better", "worse", "not told apart")


def verdict(one: Difference) -> str:
    """Return better or worse where the whole interval lies on one side of zero, all seeds agree and there is a digit to show."""
    if not all(map(math.isfinite, (one.low, one.high))):
        return "no interval"
    seeds = one.by_seed or [one.difference]
    if number(one.difference) == number(0.0):
        return "not told apart"
    if one.low > 0 and min(seeds) > 0:
        return "better"
    return "worse" if one.high < 0 and max(seeds) < 0 else "not told apart"


def piece(part: Part) -> Piece | None:
    """Show what a comparison answers; None where it asks nothing."""
    if not part.differences:
        return Piece(reading=["No two arms of this comparison answer a question."]) if part.is_comparison else None
    told = [verdict(one) for one in part.differences]
    counts = ", ".join(f"{told.count(word)} {word}" for word in WORDS if word in told) or "none with an interval"
    reading = [f"{counted(len(told), 'question')}: {counts}.", *_clearest(part)]
    rows = [_row(one) for one in part.differences]
    columns = ["question", "answer", "arm", "against", "rows", "difference in points", "95 % interval", "by seed"]
    caption = "Differences of averages over tasks; the interval is a paired bootstrap over rows"
    return Piece(reading=reading, blocks=[Table(caption=caption, columns=columns, rows=rows, num_text=5)])


def _clearest(part: Part) -> list[str]:
    apart = [one for one in part.differences if verdict(one) in ("better", "worse")]
    if not apart:
        return ["No interval excludes zero: other test rows of the same kind could turn each difference around."]
    most = max(apart, key=lambda one: abs(one.difference))
    return [
        f"The largest difference told apart: {most.arm} is {verdict(most)} than {most.against} by {number(abs(most.difference))} points "
        f"({number(most.low, signed=True)} to {number(most.high, signed=True)})."
    ]


def _row(one: Difference) -> list[Cell]:
    low, high = plain(one.low), plain(one.high)
    interval = NONE if low is None or high is None else f"{number(low, signed=True)} to {number(high, signed=True)}"
    return [
        Cell(one.question),
        Cell(verdict(one), is_best=verdict(one) in ("better", "worse")),
        Cell(one.arm),
        Cell(one.against),
        Cell(one.split),
        number_cell(one.difference, signed=True),
        Cell(interval, [low, high]),
        Cell(", ".join(number(seed, signed=True) for seed in one.by_seed), [plain(seed) for seed in one.by_seed]),
    ]
