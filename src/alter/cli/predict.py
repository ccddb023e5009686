"""`alter predict MODEL --task T [--input FILE] [--output FILE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alter.cli.terminal import console, notes, table

if TYPE_CHECKING:
    from alter.predict import Prediction


def predict(
    model: Path = typer.Argument(..., help="A run directory, or a model directory."),
    task: list[str] = typer.Option(None, "--task", "-t", help="The task to answer; may be repeated. By default all tasks."),
    text: list[str] = typer.Option(None, "--text", help="A text to answer for; may be repeated."),
    input_file: Path = typer.Option(
        None, "--input", "-i", help="Rows (.jsonl, .csv, .tsv, .parquet, .gz) or texts, one a line (.txt); '-': texts from standard input."
    ),
    output: Path = typer.Option(None, "--output", "-o", help="Write predictions here, one JSON object a line."),
    gate_weights: bool = typer.Option(False, "--gate-weights", help="Add the weight of every adapter."),
    batch_size: int = typer.Option(64, "--batch-size", min=1, help="Rows per forward pass."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line instead of a table."),
) -> None:
    """Answer for texts or rows; several tasks are answered in the same batches."""
    inputs = _inputs(text, input_file)

    from alter.predict import load

    predictor = load(model)
    tasks = [predictor.task(name).name for name in task] if task else predictor.tasks
    pairs = [(name, given) for given in inputs for name in tasks]
    found = predictor.predict(
        [name for name, _ in pairs], [given for _, given in pairs], batch_size=batch_size, gate_weights=gate_weights
    )
    if any(prediction.truncated for prediction in found):
        number = len({position // len(tasks) for position, prediction in enumerate(found) if prediction.truncated})
        notes().print(f"[yellow]warning:[/yellow] {number} input(s) longer than {predictor.config.max_length} tokens were cut")
    if output is not None:
        from alter.results import write_text

        write_text("".join(_line(given, prediction) + "\n" for (_, given), prediction in zip(pairs, found, strict=True)), output)
        notes().print(f"{len(found)} predictions: {output}")
    elif as_json:
        for (_, given), prediction in zip(pairs, found, strict=True):
            typer.echo(_line(given, prediction))
    else:
        rows = [[_shown(given), *_row(prediction)] for (_, given), prediction in zip(pairs, found, strict=True)]
        console().print(table("", ["input", "task", "answer", "probability"], rows, left=3))
        if gate_weights:
            _show_weights(found)


def _inputs(texts: list[str] | None, path: Path | None) -> list[Any]:
    from alter.errors import ConfigError, DataError

    if bool(texts) == (path is not None):
        raise ConfigError("give what to answer for: either --text '...' or --input FILE (--input - reads standard input)")
    if texts:
        return list(texts)
    assert path is not None
    if str(path) != "-" and path.suffix != ".txt":
        from alter.tasks.source import read_rows

        return [row.values for row in read_rows(path)]
    try:
        lines = sys.stdin.read().splitlines() if str(path) == "-" else path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); give a UTF-8 text file with one text a line") from None
    kept = [line for line in lines if line.strip()]
    if not kept:
        raise DataError(f"{path}: holds no text; give one text a line")
    return kept


def _line(given: Any, prediction: Prediction) -> str:  # noqa: ANN401 - a text or a row
    return json.dumps({"input": given, **prediction.as_dict()}, ensure_ascii=False, default=str)


def _shown(given: Any) -> str:  # noqa: ANN401 - a text or a row
    text = given if isinstance(given, str) else " | ".join(str(value) for value in given.values())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _row(prediction: Prediction) -> list[str]:
    if prediction.label is None:
        return [prediction.task, f"{prediction.value:.3f}", "-"]
    return [prediction.task, prediction.label, f"{prediction.score:.2f}"]


def _show_weights(found: list[Prediction]) -> None:
    names = list(found[0].gate_weights)
    rows = [[prediction.task, *(f"{prediction.gate_weights[name]:.2f}" for name in names)] for prediction in found]
    console().print(table("gate weights, mean over sites and tokens", ["task", *names], rows))
