"""The terminal that verbs print to, and tables in one style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from alter.errors import counted

if TYPE_CHECKING:
    from alter.results import SplitScores


def console() -> Console:
    """Return the console for results (standard output)."""
    return Console(highlight=False, soft_wrap=False)


def notes() -> Console:
    """Return the console for progress and remarks (standard error), so that output can be piped."""
    return Console(stderr=True, highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table; the first `left` columns are text, the others are numbers. Brackets in cells are no markup."""
    made = Table(title=Text(title) if title else None, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for position, column in enumerate(columns):
        made.add_column(Text(column), justify="left" if position < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*(Text(cell) for cell in row))
    return made


def fits(made: Table) -> bool:
    """Return whether a table is as narrow as the console, so that no cell of it is broken in two."""
    shown = console()
    return Measurement.get(shown, shown.options.update_width(10_000), made).maximum <= shown.width


def warn(message: str) -> None:
    """Print a warning on standard error."""
    notes().print(f"[yellow]warning:[/yellow] {escape(message)}", soft_wrap=True)


def warn_of_cut_texts(split: str, scores: SplitScores) -> None:
    """Say how many texts of a split were longer than the model reads."""
    for task, score in scores.tasks.items():
        if score.num_truncated:
            are, were = ("is", "was") if score.num_truncated == 1 else ("are", "were")
            warn(
                f"task '{task}': {score.num_truncated} of {counted(score.num_examples, f'{split} text')} {are} longer than max_length "
                f"and {were} cut; raise max_length in the recipe if the end matters"
            )


def echo_json(content: Any) -> None:
    """Print one JSON document on standard output."""
    import json

    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
