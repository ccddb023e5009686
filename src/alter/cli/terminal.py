"""The terminal that verbs print to, and tables in one style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table


def console() -> Console:
    """Return the console for results (standard output)."""
    return Console(highlight=False, soft_wrap=False)


def notes() -> Console:
    """Return the console for progress and remarks (standard error), so that output can be piped."""
    return Console(stderr=True, highlight=False)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> Table:
    """Return a table; the first `left` columns are text, the others are numbers."""
    made = Table(title=title, title_justify="left", title_style="bold", show_edge=False, pad_edge=False)
    for position, column in enumerate(columns):
        made.add_column(column, justify="left" if position < left else "right", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def echo_json(content: Any) -> None:  # noqa: ANN401 - whatever JSON can say
    """Print one JSON document on standard output."""
    import json

    typer.echo(json.dumps(content, indent=2, ensure_ascii=False))
