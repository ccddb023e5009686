"""`alter predict MODEL --task T [--input FILE] [--output FILE]`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alter.cli.terminal import console, notes, table, warn

if TYPE_CHECKING:
    from alter.predict import Prediction


def predict(
    model: Path = typer.Argument(..., help="A run directory, or a model directory."),
    task: list[str] = typer.Option(None, "--task", "-t", help="The task to answer; may be repeated. By default all tasks."),
    text: list[str] = typer.Option(None, "--text", help="A text to answer for; may be repeated."),
    input_file: Path = typer.Option(
        None,
        "--input",
        "-i",
        help="Rows (.jsonl, .csv, .tsv, .parquet, .gz) or texts, one a line (.txt); '-': texts from standard input.",
    ),
    output: Path = typer.Option(None, "--output", "-o", help="Write predictions here, one JSON object a line."),
    gate_weights: bool = typer.Option(False, "--gate-weights", help="Add the weight of every adapter."),
    batch_size: int = typer.Option(64, "--batch-size", min=1, help="Rows per forward pass."),
    device: str = typer.Option(None, "--device", help="cpu, cuda or cuda:N; by default cuda where there is one."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object a line instead of a table."),
) -> None:
    """Answer for texts or rows; several tasks are answered in the same batches."""
    places, inputs = _inputs(text, input_file)

    from alter.errors import counted
    from alter.predict import load
    from alter.tasks.row import render_inputs

    predictor = load(model, device=device)
    tasks = [predictor.task(name).name for name in task] if task else predictor.tasks
    for place, given in zip(places, inputs, strict=True):
        for name in tasks:
            render_inputs(predictor.task(name), given, place=place)  # a bad row is told by its place in the file
    pairs = [(name, given) for given in inputs for name in tasks]
    found = predictor.predict(
        [name for name, _ in pairs], [given for _, given in pairs], batch_size=batch_size, gate_weights=gate_weights
    )
    if any(prediction.truncated for prediction in found):
        number = len({position // len(tasks) for position, prediction in enumerate(found) if prediction.truncated})
        warn(
            f"{number} of {counted(len(inputs), 'input')} {'is' if number == 1 else 'are'} longer than "
            f"{predictor.config.max_length} tokens (the model's max_length) and {'was' if number == 1 else 'were'} cut"
        )
    if output is not None:
        _write([_line(given, prediction) for (_, given), prediction in zip(pairs, found, strict=True)], output)
        notes().print(f"{counted(len(found), 'prediction')}: {output}", markup=False, soft_wrap=True)
    elif as_json:
        for (_, given), prediction in zip(pairs, found, strict=True):
            typer.echo(_line(given, prediction))
    else:
        rows = [[_shown(given), *_row(prediction)] for (_, given), prediction in zip(pairs, found, strict=True)]
        console().print(table("", ["input", "task", "answer", "probability"], rows, left=3))
        if gate_weights:
            _show_weights(found)


def _inputs(texts: list[str] | None, path: Path | None) -> tuple[list[str], list[Any]]:
    """Return the place of each input, and the inputs: texts or rows."""
    from alter.errors import ConfigError, DataError

    if bool(texts) == (path is not None):
        raise ConfigError("give what to answer for: either --text '...' or --input FILE (--input - reads standard input)")
    if texts:
        return [f"--text {position + 1}" for position in range(len(texts))], list(texts)
    assert path is not None
    if str(path) != "-" and path.suffix != ".txt":
        from alter.tasks.source import read_rows

        found = list(read_rows(path))
        return [row.place for row in found], [row.values for row in found]
    where = "standard input" if str(path) == "-" else str(path)
    try:
        whole = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{where}: cannot be read ({_reason(error)}); give UTF-8 text, one text a line") from None
    # Not splitlines(): it would also split at U+2028, form feeds and other characters that texts hold.
    lines = [line.rstrip("\r") for line in whole.split("\n")]
    kept = {f"{where}:{number}": line for number, line in enumerate(lines, start=1) if line.strip()}
    if not kept:
        raise DataError(f"{where}: holds no text; give one text a line")
    return list(kept), list(kept.values())


def _reason(error: OSError | UnicodeDecodeError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start}"
    return error.strerror or str(error)


def _write(lines: list[str], path: Path) -> None:
    from alter.errors import DataError
    from alter.results import write_text

    try:
        write_text("".join(f"{line}\n" for line in lines), path)
    except OSError as error:
        raise DataError(f"{path}: predictions cannot be written ({error.strerror or error}); choose another --output") from None


def _line(given: Any, prediction: Prediction) -> str:
    return json.dumps({"input": given, **prediction.as_dict()}, ensure_ascii=False, default=str)


def _shown(given: Any) -> str:
    text = given if isinstance(given, str) else " | ".join(str(value) for value in given.values())
    return text if len(text) <= 60 else f"{text[:57]}..."


def _row(prediction: Prediction) -> list[str]:
    score = "-" if prediction.score is None else f"{prediction.score:.2f}"
    if prediction.label is not None:
        return [prediction.task, prediction.label, score]
    if prediction.value is not None:
        return [prediction.task, f"{prediction.value:.3f}", score]
    return [prediction.task, prediction.text or "", score]


def _show_weights(found: list[Prediction]) -> None:
    names = list(found[0].gate_weights)
    rows = [[prediction.task, *(f"{prediction.gate_weights[name]:.2f}" for name in names)] for prediction in found]
    console().print(table("gate weights, mean over sites and tokens", ["task", *names], rows))
