"""`alter extract MODEL --task T [--threshold 0.05] --output-dir DIR`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, table, warn

if TYPE_CHECKING:
    from alter.extracting.report import ExtractReport


def extract(
    model: Path = typer.Argument(..., help="A run directory, or a model directory."),
    task: str = typer.Option(None, "--task", "-t", help="The task to take out."),
    output_dir: Path = typer.Option(None, "--output-dir", "-o", help="Where the smaller model goes; it must not be there yet."),
    threshold: float = typer.Option(0.05, "--threshold", help="Keep adapters with at least this mean gate weight at any site."),
    renormalise: bool = typer.Option(
        False, "--renormalise", help="Raise the weights of the kept task adapters to the sum that all task adapters had."
    ),
    recipe: Path = typer.Option(None, "--recipe", help="Where rows are; by default the run's own recipe.yaml."),
    split: str = typer.Option(
        "validation", "--split", help="Score before and after on validation rows; test: on test rows as well."
    ),
    device: str = typer.Option(None, "--device", help="cpu, cuda or cuda:N; by default cuda where there is one."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of tables."),
) -> None:
    """Make a model of one task, with only the adapters that it uses."""
    from alter.errors import ConfigError

    for value, what, example in (
        (task, "task", "--task intent"),
        (output_dir, "place for the smaller model", "--output-dir runs/one"),
    ):
        if value is None:
            raise ConfigError(f"no {what} is given; add one, e.g. {example}")

    from alter.extracting.run import extract as extract_task

    report = extract_task(
        model,
        task=task,
        output_dir=output_dir,
        threshold=threshold,
        renormalise=renormalise,
        recipe=recipe,
        split=split,
        device=device,
    )
    if report.remark:
        warn(report.remark)
    if as_json:
        echo_json(report.as_dict())
        return
    _show(report)


def _show(report: ExtractReport) -> None:
    names = [*report.kept, *report.dropped]
    rows = [
        [name, f"{report.largest[name]:.3f}" if name in report.largest else "-", report.kept.get(name, "dropped")]
        for name in names
    ]
    if rows:
        console().print(table(f"adapters of {report.task}", ["adapter", "kept as", "largest mean weight"], rows, left=2))
    kept = f"{len(report.kept)} of {len(names)} adapters kept, at {report.sites[1]} of {report.sites[0]} sites"
    lines = [f"\n{kept}"]
    for what, (before, after) in (("beside the base", report.added_parameters), ("in all", report.total_parameters)):
        lines.append(f"parameters {what}: {before:,} -> {after:,}")
    for split, score in report.scores.items():
        lines.append(f"{score.metric} on {score.num_examples} {split} rows: {score.before:.1f} -> {score.after:.1f}")
    folder = shlex.quote(str(report.folder))
    lines += [f"model: {report.folder}", f"next:  alter predict {folder} --text '...'"]
    console().print("\n".join(lines), markup=False, soft_wrap=True)
