"""`alter evaluate MODEL [--split test] [--json]`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, fits, table, warn_of_cut_texts

if TYPE_CHECKING:
    from rich.table import Table

    from alter.results import SplitScores


class PredictionForm(StrEnum):
    """How predictions are written."""

    jsonl = "jsonl"
    ids = "ids"


def evaluate(
    model: Path = typer.Argument(..., help="A run directory, or a model directory."),
    split: str = typer.Option("test", "--split", help="validation or test."),
    recipe: Path = typer.Option(None, "--recipe", help="Where the rows are; by default the run's own recipe.yaml."),
    task: list[str] = typer.Option(None, "--task", help="Score this task only; may be repeated."),
    batch_size: int = typer.Option(64, "--batch-size", min=1, help="Rows per forward pass."),
    predictions_dir: Path = typer.Option(None, "--predictions-dir", help="Write each task's predictions here."),
    predictions_format: PredictionForm = typer.Option(
        PredictionForm.jsonl,
        "--predictions-format",
        help="jsonl: input, prediction, target, score, gate weights; ids: one label id a line (TweetEval).",
    ),
    device: str = typer.Option(None, "--device", help="cpu, cuda or cuda:N; by default cuda where there is one."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON instead of a table."),
) -> None:
    """Score a model on labelled rows of all its tasks."""
    from alter.score import evaluate_model

    scores = evaluate_model(
        model,
        split=split,
        recipe=recipe,
        tasks=task or None,
        batch_size=batch_size,
        predictions_dir=predictions_dir,
        predictions_format=predictions_format.value,
        device=device,
    )
    warn_of_cut_texts(split, scores)
    if as_json:
        echo_json({"split": split, **scores.model_dump()})
        return
    console().print(f"{model} on {split} rows", style="bold", markup=False, soft_wrap=True)
    wide = _wide(scores)
    console().print(wide if fits(wide) else _narrow(scores))
    if predictions_dir is not None:
        console().print(f"predictions: {predictions_dir}", markup=False, soft_wrap=True)


def _wide(scores: SplitScores) -> Table:
    """Return a table of one row per task and one column per metric."""
    names = sorted({name for score in scores.tasks.values() for name in score.metrics})
    rows = [
        [
            name,
            str(score.num_examples),
            score.metric,
            f"{score.score:.1f}",
            *(_cell(score.metrics.get(metric)) for metric in names),
        ]
        for name, score in scores.tasks.items()
    ]
    rows.append(["average", "", "", f"{scores.average:.1f}", *("" for _ in names)])
    return table("", ["task", "rows", "primary metric", "score", *names], rows)


def _narrow(scores: SplitScores) -> Table:
    """Return a table of one row per task and metric, the primary one first: what fits where many metrics side by side do not."""
    rows = []
    for name, score in scores.tasks.items():
        rows.append([name, f"{score.metric} (primary)", str(score.num_examples), f"{score.score:.1f}"])
        others = [(metric, value) for metric, value in score.metrics.items() if metric != score.metric]
        rows += [["", metric, "", _cell(value)] for metric, value in others]
    rows.append(["average", "of the primary metrics", "", f"{scores.average:.1f}"])
    return table("", ["task", "metric", "rows", "score"], rows, left=2)


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
