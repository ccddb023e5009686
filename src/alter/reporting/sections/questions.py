"""Plain answers: the questions of a comparison, each a difference of two arms with its interval."""

from __future__ import annotations

import math

from alter.comparison import LEAST, Difference, verdict
from alter.errors import counted
from alter.reporting.arms import Part
from alter.reporting.blocks import Cell, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import interval_text, number, number_cell, plain

TITLE = "Plain answers"
WORDS = ("better", "worse", "not told apart", "the same scores", "no interval")
TOLD_APART = ("better", "worse")


def answer(one: Difference) -> str:
    """Return the verdict on a difference, or that it has no interval; one seed is said to be one."""
    found = _word(one)
    return f"{found} (one seed)" if found in TOLD_APART and len(one.by_seed) == 1 else found


def _word(one: Difference) -> str:
    return verdict(one) if math.isfinite(one.low) and math.isfinite(one.high) else "no interval"


def piece(part: Part) -> Piece | None:
    """Show what a comparison answers; None where it asks nothing."""
    if not part.differences:
        return Piece(reading=["No two arms of this comparison answer a question."]) if part.is_comparison else None
    told = [_word(one) for one in part.differences]
    counts = ", ".join(f"{told.count(word)} {word}" for word in WORDS if word in told)
    reading = [f"{counted(len(told), 'question')}: {counts}.", *_clearest(part)]
    rows = [_row(one) for one in part.differences]
    columns = ["question", "answer", "arm", "against", "rows", "difference in points", "95 % interval", "by seed"]
    caption = "Differences of averages over tasks; the interval is a paired bootstrap over rows"
    return Piece(reading=reading, blocks=[Table(caption=caption, columns=columns, rows=rows, num_text=5)])


def _clearest(part: Part) -> list[str]:
    apart = [one for one in part.differences if verdict(one) in TOLD_APART]
    if not apart:
        why = f"its interval holds zero, seeds disagree, it is below {LEAST} points, or it has no interval"
        return [f"No difference is told apart, each for one of these reasons: {why}."]
    most = max(apart, key=lambda one: abs(one.difference))
    return [
        f"The largest difference told apart: {most.arm} is {verdict(most)} than {most.against} by {number(abs(most.difference))} points "
        f"({interval_text(most.low, most.high)}{'; one seed' if len(most.by_seed) == 1 else ''})."
    ]


def _row(one: Difference) -> list[Cell]:
    return [
        Cell(one.question),
        Cell(answer(one), is_best=verdict(one) in TOLD_APART),
        Cell(one.arm),
        Cell(one.against),
        Cell(one.split),
        number_cell(one.difference, signed=True),
        Cell(interval_text(one.low, one.high), [plain(one.low), plain(one.high)]),
        Cell(", ".join(number(seed, signed=True) for seed in one.by_seed), [plain(seed) for seed in one.by_seed]),
    ]
