"""Plain answers: the questions of a comparison, each a difference of two arms with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alter.comparison import LEAST, Difference, verdict
from alter.errors import counted
from alter.reporting.arms import Part
from alter.reporting.blocks import Block, Cell, Note, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.sections._released import of_first_stage, same_first_stage, with_seeds
from alter.reporting.words import NONE, interval_text, listed, number, number_cell, plain

TITLE = "Plain answers"
WORDS = ("better", "worse", "not told apart", "the same scores", "no interval")
TOLD_APART = ("better", "worse")
FIRST = ("single-full", "multi-full", "shared-lora", "tfidf")
"""What a reader wants the method to be held against, in this order."""
MOST_ARMS = 20
RULE = (
    f"better, worse: the whole interval lies on one side of zero, all seeds agree, and the difference is at least {LEAST} points. Not told "
    "apart: one of these is not so, as said in brackets; it does not mean that two arms are equal. One seed: the interval is over rows "
    "alone, and another seed may turn the answer around."
)
FIRST_STAGE = (
    "Stage 1's weights: the model that was released is that of stage 1, so the answer is about the weights of its router (in the presets a "
    "selector), and not about those that the gate of stage 2 learnt."
)


def answer(one: Difference, *more: str) -> str:
    """Return the verdict on a difference, or that it has no interval; why it is not told apart, and that one seed is one."""
    found = _word(one)
    notes = [*([_why(one)] if found == "not told apart" else []), *(["one seed"] if len(one.by_seed) == 1 else []), *more]
    return f"{found} ({'; '.join(notes)})" if notes else found


def told(one: Difference) -> str:
    """Return the answer with the difference, as a sentence has it; what is no number is left out."""
    if not math.isfinite(one.difference):
        return answer(one)
    interval = interval_text(one.low, one.high)
    brackets = "" if interval == NONE else f" ({interval})"
    return f"{answer(one)}, {number(one.difference, signed=True)} points{brackets}"


def question_against(part: Part, arm: str) -> Difference | None:
    """Return the first question whose second arm this is, asked of the arm that is looked at closely where there is one."""
    asked = [one for one in part.differences if one.against == arm]
    close = {one.name for one in part.close}
    return next((one for one in asked if one.arm in close), asked[0] if asked else None)


def piece(part: Part) -> Piece | None:
    """Show what a comparison answers; None where it asks nothing."""
    if not part.differences:
        return Piece(reading=["No two arms of this comparison answer a question."]) if part.is_comparison else None
    reading = [f"{counted(len(part.differences), 'question')}: {_counts(part.differences)}.", *_headline(part)]
    rows = [_row(group, part) for group in _grouped(part)]
    columns = ["question", "answer", "arm", "against", "rows", "difference in points", "95 % interval", "by seed"]
    caption = "Differences of averages over tasks; the interval is a paired bootstrap over rows"
    blocks: list[Block] = [Table(caption=caption, columns=columns, rows=rows, num_text=5), Note(RULE)]
    if any(of_first_stage(part, one) for one in part.differences):
        blocks.append(Note(FIRST_STAGE))
    return Piece(reading=reading, blocks=blocks)


def _word(one: Difference) -> str:
    return verdict(one) if math.isfinite(one.low) and math.isfinite(one.high) else "no interval"


def _why(one: Difference) -> str:
    """Say what keeps a difference from being told apart."""
    if abs(one.difference) < LEAST:
        return f"below {LEAST} points"
    return "interval holds 0" if one.low <= 0 <= one.high else "seeds disagree"


def _counts(differences: Sequence[Difference]) -> str:
    """Count answers, those of one seed apart: they are weaker."""
    said = []
    for word in WORDS:
        seeds = [len(one.by_seed) for one in differences if _word(one) == word]
        single = seeds.count(1)
        of_them = "all" if single == len(seeds) > 1 else str(single) if len(seeds) > 1 else ""
        brackets = f" ({of_them} with one seed)".replace("( ", "(") if single else ""
        said += [f"{len(seeds)} {word}{brackets}"] if seeds else []
    return ", ".join(said)


def _headline(part: Part) -> list[str]:
    """Answer the question that comes first, whatever its answer is, not the one with the largest difference."""
    asked = [one for arm in FIRST if (one := question_against(part, arm)) is not None]
    first = (asked or list(part.differences))[0]
    said = [] if any(_word(one) in TOLD_APART for one in part.differences) else ["No difference is told apart."]
    return [*said, f"{first.arm} against {first.against}: {told(first)}."]


def _grouped(part: Part) -> list[list[Difference]]:
    """Return the questions; those whose answer is the same scores, for the same reason, as one."""
    found: dict[object, list[Difference]] = {}
    for position, one in enumerate(part.differences):
        is_same = _word(one) == "the same scores"
        key = (one.arm, one.split, len(one.by_seed), _pattern(one), *_notes(part, one)) if is_same else position
        found.setdefault(key, []).append(one)
    return list(found.values())


def _pattern(one: Difference) -> str:
    """Return a question without the name of its second arm."""
    return one.question.replace(one.against, "{}")


def _notes(part: Part, one: Difference) -> list[str]:
    """Return what is to be known of an answer: seeds with which both arms are the same stage 1, and whose weights were changed."""
    both, first = same_first_stage(part, one), of_first_stage(part, one)
    seeds = len(one.by_seed)
    return [
        *([f"both released the same stage 1{with_seeds(both, of=seeds)}"] if both else []),
        *([f"stage 1's weights{with_seeds(first, of=seeds)}"] if first else []),
    ]


def _row(group: Sequence[Difference], part: Part) -> list[Cell]:
    one, names = group[0], [each.against for each in group]
    asked = Cell(one.question), Cell(one.against)
    if len(group) > 1:
        all_names, pattern = listed(names, most=MOST_ARMS), _pattern(one)
        against = counted(len(group), "arm") if "{}" in pattern else all_names
        asked = Cell(pattern.replace("{}", all_names), [each.question for each in group]), Cell(against, names)
    return [
        asked[0],
        Cell(answer(one, *_notes(part, one)), is_best=_word(one) in TOLD_APART),
        Cell(one.arm),
        asked[1],
        Cell(one.split),
        number_cell(one.difference, signed=True),
        Cell(interval_text(one.low, one.high), [plain(one.low), plain(one.high)]),
        Cell(", ".join(number(seed, signed=True) for seed in one.by_seed), [plain(seed) for seed in one.by_seed]),
    ]
