"""Worst answers: wrong ones that the model was surest of, numbers furthest off, texts least like what was right."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from alter.comparison import ComparedTask
from alter.metrics.token_f1 import compute as token_f1
from alter.reporting.arms import Part
from alter.reporting.blocks import Block, Example, Examples, Fold
from alter.reporting.run_folder import Answer
from alter.reporting.sections._piece import Piece
from alter.reporting.sections.confusion import NO_ANSWERS, answers_of
from alter.reporting.words import NONE, capital, clean, number

TITLE = "Worst answers"
MOST = 5
MOST_WEIGHTS = 4
MOST_SIGNS = 320
LEAST_WEIGHT = 0.005

Ranked = tuple[float, Answer]


def piece(part: Part) -> Piece:
    """Show the worst answers of the arms that are looked at closely, of their first seed."""
    if part.is_bare:
        return Piece(reading=())
    reading: list[str] = []
    blocks: list[Block] = []
    for arm in part.close:
        prefix, first = (f"{arm.name}: ", str) if len(part.arms) > 1 else ("", capital)
        mine = [(task, *answers_of(arm, task)) for task in part.tasks]
        examples = [_task(task, part.tasks[task], split, by_seed[0]) for task, split, by_seed in mine if by_seed]
        if not examples:
            reading.append(prefix + first(NO_ANSWERS))
            continue
        reading.append(prefix + first(_sentence([(task, by_seed[0]) for task, _, by_seed in mine if by_seed], part)))
        blocks += [Fold(title=arm.name, blocks=examples, is_open=True)] if len(part.close) > 1 else examples
    why = [part.closely] if part.closely and blocks else []
    seeds = blocks and any(len(arm.members) > 1 for arm in part.close)
    return Piece(reading=[*why, *reading, *(["Of several seeds the first is shown."] if seeds else [])], blocks=blocks)


def _kind(task: ComparedTask) -> Kind:
    return _KINDS.get(task.kind, _KINDS["classification"])


def _sentence(answers: Sequence[tuple[str, Sequence[Answer]]], part: Part) -> str:
    """Say which wrong label was the surest of all: a sure mistake is the one that goes unnoticed."""
    found = [
        (badness, -position, task, one)
        for position, (task, rows) in enumerate(answers)
        if _kind(part.tasks[task]) is _KINDS["classification"]
        for badness, one in sorted(_wrong(rows), key=_by_badness)[:1]
    ]
    if max((badness for badness, *_ in found), default=-1.0) < 0:
        return "no wrong label has a score; texts and numbers are ordered by how far off they are."
    badness, _, task, one = max(found, key=lambda each: each[:2])
    return (
        f"the surest wrong label is in {task}: '{clean(str(one.prediction), most=40)}' with a score of {number(badness, 2)}, where "
        f"'{clean(str(one.target), most=40)}' was right."
    )


def _by_badness(found: Ranked) -> float:
    return -found[0]


def _task(name: str, task: ComparedTask, split: str, answers: Sequence[Answer]) -> Examples:
    kind = _kind(task)
    ranked = sorted(kind.rank(answers), key=_by_badness)
    rows = [_example(answer, kind.fact(badness)) for badness, answer in ranked[:MOST]]
    shown = f" Shown: {kind.caption}." if rows else ""
    return Examples(caption=f"{name}: {kind.sentence(ranked, len(answers), split)}{shown}", rows=rows)


def _wrong(answers: Sequence[Answer]) -> list[Ranked]:
    """Return wrong answers by the model's confidence; without one they come last."""
    return [(-1.0 if one.score is None else one.score, one) for one in answers if str(one.prediction) != str(one.target)]


def _off(answers: Sequence[Answer]) -> list[Ranked]:
    """Return numbers by how far off they are; what is no number is worst."""
    found = [(_distance(one), one) for one in answers]
    return [(distance, one) for distance, one in found if distance > 0]


def _distance(one: Answer) -> float:
    found = abs(_number(one.prediction) - _number(one.target))
    return math.inf if math.isnan(found) else found


def _number(value: str | float | None) -> float:
    """Return a number, NaN for what is none."""
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan


def _unlike(answers: Sequence[Answer]) -> list[Ranked]:
    """Return texts by how little they share with what is right; of equal ones the surest first."""
    found = [(1 - similarity(one), one) for one in answers]
    by_score = sorted(found, key=lambda pair: -(pair[1].score or 0.0))
    return [(badness, one) for badness, one in by_score if badness > 0]


def similarity(one: Answer) -> float:
    """Return token F1, 0 to 1, against the best of the texts that count as right."""
    right = one.references or [str(one.target)]
    return token_f1([str(one.prediction)], [right], labels=None)


@dataclass(frozen=True)
class Kind:
    """How rows of one kind of task are ranked, badness first, and what is said of them.

    Attributes:
        rank: the rows that went wrong, each with how badly.
        caption: the order in words.
        fact: a row's badness, named.
        sentence: what all rows together show, given the ranked ones, the number of all, and the split.
    """

    rank: Callable[[Sequence[Answer]], list[Ranked]]
    caption: str
    fact: Callable[[float], tuple[str, str]]
    sentence: Callable[[Sequence[Ranked], int, str], str]


def _sure(badness: float) -> tuple[str, str]:
    return "score", number(badness, 2) if badness >= 0 else NONE


def _far(badness: float) -> tuple[str, str]:
    return "off by", number(badness, 2) if math.isfinite(badness) else "no number"


def _alike(badness: float) -> tuple[str, str]:
    return "token F1", number(100 * (1 - badness))


def _say_wrong(ranked: Sequence[Ranked], rows: int, split: str) -> str:
    if not ranked:
        return f"all {rows:,} {split} rows are right."
    sure = f"; the surest of them has a score of {number(ranked[0][0], 2)}" if ranked[0][0] >= 0 else ""
    return f"{len(ranked):,} of {rows:,} {split} rows are wrong{sure}."


def _say_off(ranked: Sequence[Ranked], rows: int, split: str) -> str:
    if not ranked:
        return f"all {rows:,} {split} rows are right."
    most = ranked[0][0]
    return (
        f"of {rows:,} {split} rows the worst is off by {number(most, 2)}."
        if math.isfinite(most)
        else f"of {rows:,} {split} rows some got no number."
    )


def _say_unlike(ranked: Sequence[Ranked], rows: int, split: str) -> str:
    nothing = sum(badness >= 1 for badness, _ in ranked)
    return f"{nothing:,} of {rows:,} {split} rows share no word with what was right, {rows - len(ranked):,} all of them."


_KINDS: dict[str, Kind] = {
    "classification": Kind(_wrong, "wrong, the surest first", _sure, _say_wrong),
    "regression": Kind(_off, "furthest from the right number first", _far, _say_off),
    "generation": Kind(_unlike, "least like what was right first", _alike, _say_unlike),
}


def _example(one: Answer, badness: tuple[str, str]) -> Example:
    return Example(
        input=clean(one.input.replace("\t", " | "), most=MOST_SIGNS),
        answer=_shown(one.prediction),
        target=_shown(one.target),
        facts=[badness, *_score(one, badness), *_weights(one)],
    )


def _shown(value: str | float | None) -> str:
    if isinstance(value, float):
        return number(value, 2)
    return NONE if value is None else clean(value, most=MOST_SIGNS) or "(nothing)"


def _score(one: Answer, badness: tuple[str, str]) -> list[tuple[str, str]]:
    return [("score", number(one.score, 2))] if one.score is not None and badness[0] != "score" else []


def _weights(one: Answer) -> list[tuple[str, str]]:
    found = sorted(one.gate_weights.items(), key=lambda item: -item[1])
    shown = [f"{clean(name, most=40)} {number(weight, 2)}" for name, weight in found[:MOST_WEIGHTS] if weight >= LEAST_WEIGHT]
    return [("gate weights", ", ".join(shown))] if shown else []
