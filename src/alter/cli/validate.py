"""`alter validate RECIPE`: every problem in every file and with the base model, before any weights are loaded."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, notes, table

if TYPE_CHECKING:
    from alter.tasks.validate import BaseSummary, TaskSummary, ValidationReport


def validate(
    recipe: Path = typer.Argument(..., help="The recipe: a YAML file."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY.PATH=VALUE]...", help="Settings over the recipe's."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of tables."),
) -> None:
    """Read every file of a recipe and look at its base model: every problem with file and line, three examples of each task."""
    from alter.recipe import load_recipe

    resolved = load_recipe(recipe, list(overrides or []))  # a wrong recipe is told at once: what reads base models loads slowly

    from alter.check import validate as validate_whole

    report = validate_whole(resolved)
    if as_json:
        echo_json({**asdict(report), "valid": report.is_valid})
    else:
        _show(report)
    if not report.is_valid:
        raise typer.Exit(2)


def _show(report: ValidationReport) -> None:
    from alter.errors import counted

    if report.base is not None:
        console().print(_base(report.base), markup=False, soft_wrap=True)
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
    verdict = "no problems"
    if not report.is_valid:
        these = "it" if len(report.problems) == 1 else "them"
        verdict = f"{counted(len(report.problems), 'problem')}; mend {these} and run alter validate again"
    tasks, warnings = counted(len(report.summaries), "task"), counted(len(report.warnings), "warning")
    notes().print(f"{tasks} read, {warnings}, {verdict}")


def _base(base: BaseSummary) -> str:
    where = (
        f"family {base.family}" if base.family else f"type {base.model_type}, of no family: its FFNs are searched by structure"
    )
    does = "reads and writes: every task is answered by text"
    if not base.writes:
        does = "reads, and answers by a label or a number for each task; it writes no text"
    return f"base: {base.name} ({base.kind}, {where}): {does}\n"


def _rows(summary: TaskSummary) -> object:
    from alter.errors import counted

    cells = []
    for split, number in summary.rows.items():
        labels = summary.labels.get(split, {})
        most = sorted(labels.items(), key=lambda item: -item[1])
        shown = ", ".join(f"{label} {count}" for label, count in most[:8]) + (
            f", ... ({len(most)} labels)" if len(most) > 8 else ""
        )
        cells.append([split, str(number), shown])
    title = f"{summary.name} ({summary.kind}" + (f", at most {counted(summary.cap, 'training row')})" if summary.cap else ")")
    return table(title, ["split", "rows", "labels"], cells, left=3)


def _short(text: str) -> str:
    folded = " ".join(text.split())
    return folded if len(folded) <= 100 else f"{folded[:97]}..."
