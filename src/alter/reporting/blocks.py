"""What a report is made of: plain data. The HTML page, the Markdown file and the JSON are three ways to write it.

Report -> Section -> blocks (Table, Figures, Examples, Note, Fold); Figures hold data, which `drawing` draws
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MOST_NUMBERS = 16
"""With more columns than this a matrix has no numbers in its cells, which are too narrow, and a table says them."""


@dataclass(frozen=True)
class Cell:
    """A table's cell.

    Attributes:
        text: as it is shown.
        value: the same for machines, where it is more than the text: a number not rounded, or a mapping.
        is_best: shown in bold.
    """

    text: str
    value: object = None
    is_best: bool = False


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table; its first `num_text` columns are text, the others are numbers."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    num_text: int = 1


@dataclass(frozen=True, kw_only=True)
class Series:
    """A line of a chart."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True, kw_only=True)
class Lines:
    """A line chart; `marks` are vertical lines with a word each, as (x, word)."""

    title: str
    alt: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    marks: Sequence[tuple[float, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Heatmap:
    """A matrix, its values shown as depth of colour between `limits`.

    Attributes:
        values: by row and column; None is left blank.
        texts: what stands in the cells, where it is not the value itself.
        is_small: without names and numbers, one of many side by side.
    """

    title: str
    alt: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: Sequence[Sequence[float | None]]
    texts: Sequence[Sequence[str]] | None = None
    row_label: str = ""
    column_label: str = ""
    limits: tuple[float, float] = (0.0, 1.0)
    is_small: bool = False


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A tree of merges; each branch is four points (height, place) and leaf i has the place 10 i + 5."""

    title: str
    alt: str
    leaves: Sequence[str]
    branches: Sequence[tuple[Sequence[float], Sequence[float]]]
    label: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A point of a scatter chart; `kind` chooses its marker.

    Attributes:
        named: whether its name stands beside it; of many points only some have room for one.
        close: whether it is the arm that is looked at closely.
    """

    name: str
    kind: str
    x: float
    y: float
    sd: float | None = None
    named: bool = True
    close: bool = False


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """A scatter chart with a name at each point."""

    title: str
    alt: str
    x_label: str
    y_label: str
    points: Sequence[Point]
    is_log: bool = False


Figure = Lines | Heatmap | Tree | Scatter


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures that stand side by side where there is room."""

    caption: str
    figures: Sequence[Figure]


@dataclass(frozen=True, kw_only=True)
class Example:
    """A row that went wrong, and what is known of it."""

    input: str
    answer: str
    target: str
    facts: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True, kw_only=True)
class Examples:
    """Rows of one task."""

    caption: str
    rows: Sequence[Example]


@dataclass(frozen=True)
class Note:
    """A remark in words."""

    text: str


@dataclass(frozen=True, kw_only=True)
class Fold:
    """Blocks under a heading of their own, which a reader can fold away; `anchor`: what links on the page lead to."""

    title: str
    reading: Sequence[str] = ()
    blocks: Sequence[Block] = ()
    is_open: bool = False
    anchor: str = ""


Block = Table | Figures | Examples | Note | Fold


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section; `reading` says in sentences what its numbers show."""

    key: str
    title: str
    reading: Sequence[str]
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Report:
    """A whole report."""

    title: str
    sections: Sequence[Section]

    @property
    def shown(self) -> Report:
        """The same without sections that have nothing to say: JSON has every key, a page none that is empty."""
        return Report(title=self.title, sections=[one for one in self.sections if one.reading or one.blocks])
