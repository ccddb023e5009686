"""`alter report RUN... [--output report.html] [--markdown report.md]`."""

from __future__ import annotations

from pathlib import Path

import typer

from alter.cli.terminal import console, echo_json

NAME = "report.html"


def report(
    folders: list[Path] = typer.Argument(
        ..., metavar="RUN...", help="Run directories, or folders of alter compare; side by side."
    ),
    output: Path = typer.Option(None, "--output", "-o", help="The HTML file; by default report.html in the first RUN."),
    markdown: Path = typer.Option(None, "--markdown", help="Write the tables as Markdown too, into this file."),
    as_json: bool = typer.Option(
        False,
        "--json",
        help="Print what the report holds as JSON; files are then written only where --output or --markdown says so.",
    ),
) -> None:
    """Write one page on runs or comparisons: scores, curves, gate weights, errors, budgets."""
    from alter.reporting.json_text import to_json
    from alter.reporting.run import gather, write_report

    found = gather(folders)
    html = output if output is not None or as_json else folders[0] / NAME
    write_report(found, html=html, markdown=markdown)
    if as_json:
        echo_json(to_json(found))
        return
    for name, path in (("report", html), ("markdown", markdown)):
        if path is not None:
            console().print(f"{name}: {path}", markup=False, soft_wrap=True)
