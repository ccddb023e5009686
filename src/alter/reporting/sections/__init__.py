"""The sections of a report, one file each: `piece(part)` turns a part's numbers into sentences, tables and figures.

A section that no part has is left out; one that has nothing to say keeps its place in JSON, and is on no page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from alter.reporting.arms import Part
from alter.reporting.blocks import Fold, Section
from alter.reporting.sections import (
    affinity,
    budget,
    confusion,
    curves,
    gates,
    overview,
    quality,
    questions,
    scores,
    short,
    sources,
    worst,
)
from alter.reporting.sections._piece import Piece
from alter.reporting.words import capital

SECTIONS: dict[str, tuple[str, Callable[[Part], Piece | None]]] = {
    "short": (short.TITLE, short.piece),
    "overview": (overview.TITLE, overview.piece),
    "scores": (scores.TITLE, scores.piece),
    "answers": (questions.TITLE, questions.piece),
    "curves": (curves.TITLE, curves.piece),
    "gates": (gates.TITLE, gates.piece),
    "affinity": (affinity.TITLE, affinity.piece),
    "confusions": (confusion.TITLE, confusion.piece),
    "worst": (worst.TITLE, worst.piece),
    "quality": (quality.TITLE, quality.piece),
    "budget": (budget.TITLE, budget.piece),
    "environment": (sources.TITLE, sources.piece),
}
"""Key -> title and what makes it, in the order of the page."""


def sections_of(parts: Sequence[Part]) -> list[Section]:
    """Return the sections over all parts; several parts stand below each other in each section."""
    made = ((key, title, [(part, make(part)) for part in parts]) for key, (title, make) in SECTIONS.items())
    return [section for key, title, pieces in made if (section := _section(key, title, pieces)) is not None]


def _apart(titles: Sequence[str], position: int, part: Part) -> str:
    """Return a part's title, with its folder where another part has the same one."""
    title = titles[position]
    return title if titles.count(title) == 1 else f"{title} ({', '.join(map(str, part.folders))})"


def _section(key: str, title: str, pieces: Sequence[tuple[Part, Piece | None]]) -> Section | None:
    found = [(part, piece) for part, piece in pieces if piece is not None]
    if not found:
        return None
    if len(pieces) == 1:
        return Section(key=key, title=title, reading=found[0][1].reading, blocks=found[0][1].blocks)
    titles = [capital(part.title) for part, _ in pieces]
    folds = [
        Fold(
            title=_apart(titles, number - 1, part),
            reading=piece.reading,
            blocks=piece.blocks,
            is_open=True,
            anchor=f"{key}-{number}",
        )
        for number, (part, piece) in enumerate(pieces, start=1)
        if piece is not None and (piece.reading or piece.blocks)
    ]
    return Section(key=key, title=title, reading=(), blocks=folds)
