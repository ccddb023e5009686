"""A report as one HTML page that needs nothing else: styles and figures stand in it, and it asks no network and runs no script."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import jinja2
from markupsafe import Markup

from alter.errors import ConfigError
from alter.reporting.blocks import Block, Figure, Fold, Report

MISSING = "a report's figures need matplotlib, which is not installed; pip install 'alter-mta[report]', or use --json"


def to_html(report: Report) -> str:
    """Return a report as HTML; the same report gives the same bytes.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("alter.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["kind"] = _kind
    return environment.get_template("report.html.j2").render(report=report.shown, parts=_parts(report.shown), svg=_drawer())


def _parts(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return, of a page on several comparisons (and runs in none), each one's title with (anchor, section title) of all said of it."""
    found: dict[int, tuple[str, list[tuple[str, str]]]] = {}
    for section in report.sections:
        for block in section.blocks:
            if isinstance(block, Fold) and block.anchor:
                number = int(block.anchor.rpartition("-")[2])
                found.setdefault(number, (block.title, []))[1].append((block.anchor, section.title))
    return [found[number] for number in sorted(found)]


def _kind(block: Block) -> str:
    return type(block).__name__


def _drawer() -> Callable[[Figure], Markup]:
    """Return what draws a figure; each gets ids of its own."""
    try:
        from alter.reporting.drawing.draw import svg_of
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "matplotlib":
            raise
        raise ConfigError(MISSING) from None
    numbers = itertools.count(1)
    # The drawing escapes what it is given: names in it are text of an SVG element.
    return lambda figure: Markup(svg_of(figure, key=f"f{next(numbers)}"))
