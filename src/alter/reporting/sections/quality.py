"""Budget against quality: what an arm's parameters and time bought."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alter.comparison import Budget
from alter.reporting.arms import Arm, Part
from alter.reporting.blocks import Block, Figure, Figures, Note, Point, Scatter
from alter.reporting.sections._piece import Piece
from alter.reporting.words import count_text, listed, number

TITLE = "Budget against quality"


def piece(part: Part) -> Piece | None:
    """Show arms by what they cost and reached; None where there is one arm only, which has nothing beside it."""
    if len(part.arms) < 2 or not part.splits:
        return None
    split = part.splits[0]
    scored = [(arm, arm.budget) for arm in part.arms if _average(arm, split) is not None]
    by_size = _points(scored, split, "trainable_parameters")
    has_relative = any(budget.relative_time is not None for _, budget in scored)
    by_time = _points(scored, split, "relative_time" if has_relative else "seconds")
    figures: list[Figure] = []
    label = f"average on {split} rows, percent"
    if len(by_size) > 1:
        figures.append(_chart("Trained parameters", by_size, "parameters trained (logarithmic)", label, is_log=True))
    if len(by_time) > 1:
        figures.append(_chart("Time", by_time, "time relative to multi-full" if has_relative else "training time, s", label))
    blocks: list[Block] = [Figures(caption=_caption(part, split), figures=figures)] if figures else []
    untrained = [f"{arm.name} ({number(_average(arm, split))})" for arm, budget in scored if not budget.trainable_parameters]
    if untrained:
        blocks.append(
            Note(f"Not in the first chart, for their parameters trained are none or unknown: {listed(untrained, most=9)}.")
        )
    return Piece(reading=_reading(by_size, by_time, has_relative=has_relative), blocks=blocks)


def _average(arm: Arm, split: str) -> float | None:
    summary = arm.splits.get(split)
    return summary.average.mean if summary is not None and math.isfinite(summary.average.mean) else None


def _points(scored: Sequence[tuple[Arm, Budget]], split: str, what: str) -> list[Point]:
    found = []
    for arm, budget in scored:
        cost, summary = getattr(budget, what), arm.splits.get(split)
        if cost and summary is not None:
            sd = summary.average.sd if math.isfinite(summary.average.sd) else None
            found.append(Point(name=arm.name, kind=arm.family, x=float(cost), y=summary.average.mean, sd=sd))
    return found


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats: none is at least as good for at most the cost, and better in one of both."""
    return [
        one
        for one in points
        if not any(other.x <= one.x and other.y >= one.y and (other.x, other.y) != (one.x, one.y) for other in points)
    ]


def _reading(by_size: Sequence[Point], by_time: Sequence[Point], *, has_relative: bool) -> list[str]:
    found = []
    if len(by_size) > 1:
        kept = sorted(front(by_size), key=lambda point: point.x)
        told = [f"{one.name} ({count_text(one.x)}, {number(one.y)})" for one in kept]
        found.append(f"By trained parameters, nothing cheaper is as good as {listed(told)}.")
    if len(by_time) > 1:
        kept = sorted(front(by_time), key=lambda point: point.x)
        unit = "" if has_relative else " s"
        told = [f"{one.name} ({number(one.x, 2)}{unit}, {number(one.y)})" for one in kept]
        found.append(f"By time, nothing quicker is as good as {listed(told)}.")
    return found or ["Fewer than two arms have a known cost, so there is nothing to draw."]


def _chart(title: str, points: Sequence[Point], x_label: str, y_label: str, *, is_log: bool = False) -> Scatter:
    told = "; ".join(f"{one.name} {count_text(one.x) if is_log else number(one.x, 2)}, {number(one.y)}" for one in points)
    return Scatter(
        title=title, alt=f"{y_label} against {x_label}: {told}.", x_label=x_label, y_label=y_label, points=points, is_log=is_log
    )


def _caption(part: Part, split: str) -> str:
    seeds = max((len(arm.members) for arm in part.arms), default=1)
    return (
        f"Up and to the left is better. Bars are a standard deviation over seeds on {split} rows."
        if seeds > 1
        else "Up and to the left is better."
    )
