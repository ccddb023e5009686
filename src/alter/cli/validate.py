"""`alter validate RECIPE`: every problem in every file, before any model is loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, notes, table

if TYPE_CHECKING:
    from alter.tasks.validate import TaskSummary, ValidationReport


def validate(
    recipe: Path = typer.Argument(..., help="The recipe: a YAML file."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY.PATH=VALUE]...", help="Settings over the recipe's."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of tables."),
) -> None:
    """Read every file of a recipe, report every problem with file and line, show three examples of each task."""
    from alter.recipe import load_recipe
    from alter.tasks.validate import validate_recipe

    report = validate_recipe(load_recipe(recipe, list(overrides or [])))
    if as_json:
        echo_json({**asdict(report), "valid": report.is_valid})
    else:
        _show(report)
    if not report.is_valid:
        raise typer.Exit(2)


def _show(report: ValidationReport) -> None:
    for summary in report.summaries.values():
        console().print(_rows(summary))
        for text, pair, label in summary.examples:
            second = "" if pair is None else f"  ||  {_short(pair)}"
            shown = f"{_short(text)}{second}"
            line = f"{shown}  =>  {_short(str(label))}" if summary.kind == "generation" else f"{label}: {shown}"
            console().print(f"  {line}", markup=False, soft_wrap=True)
        console().print()
    for warning in report.warnings:
        notes().print(f"warning: {warning}", markup=False, soft_wrap=True)
    for problem in report.problems:
        notes().print(f"problem: {problem}", markup=False, soft_wrap=True)
    verdict = "no problems" if report.is_valid else f"{len(report.problems)} problem(s); mend them and run alter validate again"
    notes().print(f"{len(report.summaries)} tasks read, {len(report.warnings)} warning(s), {verdict}")


def _rows(summary: TaskSummary) -> object:
    cells = []
    for split, number in summary.rows.items():
        labels = summary.labels.get(split, {})
        most = sorted(labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{label} {count}" for label, count in most[:8]) + (
            f", ... ({len(most)} labels)" if len(most) > 8 else ""
        )
        cells.append([split, str(number), shown])
    title = f"{summary.name} ({summary.kind}" + (f", at most {summary.cap} training rows)" if summary.cap else ")")
    return table(title, ["split", "rows", "labels"], cells, left=3)


def _short(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= 100 else f"{folded[:97]}..."
