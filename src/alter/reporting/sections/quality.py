"""Budget against quality: what an arm's parameters and time bought."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alter.comparison import Budget
from alter.reporting.arms import Arm, Part
from alter.reporting.blocks import Block, Figure, Figures, Note, Scatter
from alter.reporting.sections._piece import Piece
from alter.reporting.sections._places import Place, front, is_as_good, merged, points
from alter.reporting.words import count_text, listed, number

TITLE = "Budget against quality"
MOST_TOLD = 9
NOT_TESTED = "Whether two averages differ by more than chance is not asked here; see Plain answers."


def piece(part: Part) -> Piece | None:
    """Show arms by what they cost and reached; None where there is one arm only, which has nothing beside it."""
    if len(part.arms) < 2 or not part.splits:
        return None
    split = part.splits[0]
    scored = [(arm, arm.budget) for arm in part.arms if _average(arm, split) is not None]
    by_size = _places(scored, split, "trainable_parameters")
    has_relative = any(budget.relative_time is not None for _, budget in scored)
    by_time = _places(scored, split, "relative_time" if has_relative else "seconds")
    label = f"average on {split} rows, percent"
    time_label = "time relative to multi-full" if has_relative else "training time, s"
    drawn = [places for places in (by_size, by_time) if len(places) > 1]
    figures: list[Figure] = [
        _chart("Trained parameters", part, places, "parameters trained (logarithmic)", label, is_log=True)
        if places is by_size
        else _chart("Time", part, places, time_label, label)
        for places in drawn
    ]
    blocks: list[Block] = (
        [Figures(caption=_caption(part, split), figures=figures), *_missing(scored, split, drawn)] if drawn else []
    )
    return Piece(reading=_reading(part, split, by_size, by_time, has_relative=has_relative), blocks=blocks)


def _average(arm: Arm, split: str) -> float | None:
    summary = arm.splits.get(split)
    return summary.average.mean if summary is not None and math.isfinite(summary.average.mean) else None


def _places(scored: Sequence[tuple[Arm, Budget]], split: str, what: str) -> list[Place]:
    """Return where each arm with a known cost lies."""
    return [
        Place(arm=arm, cost=float(cost), average=arm.splits[split].average, seeds=arm.seeds(split))
        for arm, budget in scored
        if (cost := getattr(budget, what))
    ]


def _missing(scored: Sequence[tuple[Arm, Budget]], split: str, drawn: Sequence[Sequence[Place]]) -> list[Note]:
    """Say which arms are in no chart, or in one alone, since what they cost is nothing or unknown."""
    charts = [{place.arm.name for place in places} for places in drawn]
    found: dict[str, list[str]] = {}
    for arm, _ in scored:
        present = [arm.name in names for names in charts]
        if not all(present):
            found.setdefault(_where(present), []).append(f"{arm.name} ({number(_average(arm, split))})")
    return [
        Note(f"{where}, for what they cost is nothing or unknown: {listed(arms, most=MOST_TOLD)}.")
        for where, arms in found.items()
    ]


def _where(present: Sequence[bool]) -> str:
    if len(present) == 1:
        return "Not in the chart"
    return f"Not in the {'second' if present[0] else 'first'} chart" if any(present) else "In neither chart"


def _reading(part: Part, split: str, by_size: Sequence[Place], by_time: Sequence[Place], *, has_relative: bool) -> list[str]:
    """Say which arms nothing cheaper matches, of arms with the seeds of the one that is looked at closely; yardsticks have no cost."""
    if max(len(by_size), len(by_time)) < 2:
        return ["Fewer than two arms have a known cost and an average, so there is nothing to draw."]
    found, kept = [], []
    if len(by_size) > 1 and (mine := front(_comparable(part, split, by_size))):
        kept += mine
        told = [f"{name} ({count_text(place.cost)}, {number(place.average.mean)})" for name, place in _named(mine)]
        found.append(f"{_of(part, split)} nothing with fewer trained parameters is as good as {listed(told)}.")
    if len(by_time) > 1 and (mine := front(_comparable(part, split, by_time))):
        kept += mine
        unit = "" if has_relative else " s"
        told = [f"{name} ({number(place.cost, 2)}{unit}, {number(place.average.mean)})" for name, place in _named(mine)]
        found.append(f"{_of(part, split)} nothing quicker is as good as {listed(told)}.")
    if not found:
        return [f"{_of(part, split)} none has a known cost and an average."]
    return [*found, *_yardsticks(part, split, kept), *([NOT_TESTED] if part.differences else [])]


def _named(places: Sequence[Place]) -> list[tuple[str, Place]]:
    return sorted(((same.name, same.first) for same in merged(places)), key=lambda pair: pair[1].cost)


def _comparable(part: Part, split: str, places: Sequence[Place]) -> list[Place]:
    """Return the arms with the seeds of the one that is looked at closely: a lucky seed is no average over several."""
    seeds = _seeds(part, split)
    return [place for place in places if seeds <= set(place.seeds)]


def _seeds(part: Part, split: str) -> set[int]:
    """Return the seeds of the arms that are looked at closely; none where these have no cost, so that others are not held against them."""
    found = [set(arm.seeds(split)) for arm in part.close if split in arm.splits and arm.budget != Budget()]
    return set.intersection(*found) if found else set()


def _of(part: Part, split: str) -> str:
    seeds = _seeds(part, split)
    known = [arm for arm in part.arms if split in arm.splits and arm.family != "yardstick"]
    if all(seeds <= set(arm.seeds(split)) for arm in known):
        return "Of trained arms,"
    return f"Of arms trained with {'seed' if len(seeds) == 1 else 'seeds'} {listed([str(seed) for seed in sorted(seeds)])},"


def _yardsticks(part: Part, split: str, kept: Sequence[Place]) -> list[str]:
    """Say which yardsticks, which have no cost to draw, are as good as what was trained."""
    said = []
    for arm in part.arms:
        average = _average(arm, split)
        if arm.family != "yardstick" or average is None:
            continue
        below = list(dict.fromkeys(place.arm.name for place in kept if is_as_good(average, place.average.mean)))
        if below:
            them = "each of them" if len(below) == len({place.arm.name for place in kept}) else listed(below)
            said.append(f"{arm.name}, which trains no language model, has {number(average)}: at least as much as {them}.")
    return said


def _chart(title: str, part: Part, places: Sequence[Place], x_label: str, y_label: str, *, is_log: bool = False) -> Scatter:
    drawn = points(places, kept=front(_comparable(part, part.splits[0], places)))
    told = "; ".join(f"{one.name} {count_text(one.x) if is_log else number(one.x, 2)}, {number(one.y)}" for one in drawn)
    return Scatter(
        title=title, alt=f"{y_label} against {x_label}: {told}.", x_label=x_label, y_label=y_label, points=drawn, is_log=is_log
    )


def _caption(part: Part, split: str) -> str:
    seeds = max((len(arm.members) for arm in part.arms), default=1)
    return (
        f"Up and to the left is better. Bars are a standard deviation over seeds on {split} rows."
        if seeds > 1
        else "Up and to the left is better."
    )
