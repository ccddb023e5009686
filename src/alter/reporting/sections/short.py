"""In short: what a reader wants to know of a comparison first, in a few lines."""

from __future__ import annotations

import math

from alter.errors import counted
from alter.reporting.arms import Arm, Part
from alter.reporting.sections._piece import Piece
from alter.reporting.sections._released import has_both, released
from alter.reporting.sections._standing import without_score
from alter.reporting.sections.questions import FIRST, question_against, told
from alter.reporting.words import clean, count_text, number, spread_text

TITLE = "In short"


def piece(part: Part) -> Piece | None:
    """Give the score of the arm that is looked at closely, the answers that matter most, and what it cost; None of plain runs."""
    if not part.is_comparison:
        return None
    said = []
    for arm in part.close:
        why = [] if _is_recipe(arm, part) else [part.closely]
        said += [*why, *_score(arm, part), *_answers(arm, part), *_stage(arm), *_cost(arm, part)]
    return Piece(reading=said or ["No arm was scored."])


def _is_recipe(arm: Arm, part: Part) -> bool:
    """Whether an arm is the recipe as it stands, which needs no reason to be looked at closely."""
    return any(facts.get("preset") == arm.name for facts in part.facts)


def _score(arm: Arm, part: Part) -> list[str]:
    split = next((split for split in part.splits if split in arm.splits), None)
    if split is None:
        return []
    found = arm.splits[split]
    tasks = sum(math.isfinite(one.mean) for one in found.tasks.values())
    over = f"{counted(tasks, 'task')}, {counted(found.average.seeds, 'seed')}"
    who = f"{arm.name}, the recipe as it stands," if _is_recipe(arm, part) else arm.name
    if not math.isfinite(found.average.mean):
        return [f"{who} has no average on {split} rows{without_score(found)}."]
    return [f"{who} has an average of {spread_text(found.average)} percent on {split} rows ({over})."]


def _answers(arm: Arm, part: Part) -> list[str]:
    """Answer the first questions that are asked of this arm; an arm that was not run is not asked about."""
    asked = [one for name in FIRST if (one := question_against(part, name)) is not None and one.arm == arm.name]
    arms = {arm.name: arm for arm in part.arms}
    return [f"Against {one.against}{_what(arms.get(one.against), arms.get(one.arm), one.split)}: {told(one)}." for one in asked]


def _what(against: Arm | None, arm: Arm | None, split: str) -> str:
    """Say what an arm is, and its average where that is over the same seeds, so that the difference is one of the two averages."""
    if against is None:
        return ""
    title, found = clean(against.title), against.splits.get(split)
    if found is None or not math.isfinite(found.average.mean) or arm is None or against.seeds(split) != arm.seeds(split):
        return f" ({title})"
    return f" ({title}; average {number(found.average.mean)})"


def _stage(arm: Arm) -> list[str]:
    return [f"Released: {released(arm)}."] if has_both(arm) else []


def _cost(arm: Arm, part: Part) -> list[str]:
    budget = arm.budget
    said = [f"{count_text(budget.trainable_parameters)} trained parameters"] if budget.trainable_parameters is not None else []
    said += [f"{number(budget.relative_time, 2)} times the time of multi-full"] if budget.relative_time is not None else []
    beside = [
        f"{other.name} has {count_text(cost.trainable_parameters)}{_time(cost.relative_time)}"
        for other in part.arms
        if other.name in FIRST and other is not arm and (cost := other.budget).trainable_parameters is not None
    ]
    if not said:
        return []
    others = f"; {', '.join(beside)}" if beside else ""
    return [f"Cost: {', '.join(said)}{others}."]


def _time(relative: float | None) -> str:
    return f" ({number(relative, 2)} times the time)" if relative is not None else ""
