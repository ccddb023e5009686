"""Predictions on disk: one line per row of a task, in the order of its rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from alter.errors import DataError
from alter.evaluation import EvalSet, Reference
from alter.predict import Prediction
from alter.results import finite, write_text
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec
from alter.writing import Answer

PredictionFormat = Literal["jsonl", "ids"]


def write_predictions(
    folder: Path,
    sets: Mapping[str, EvalSet],
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    texts: Mapping[str, Sequence[str]],
    form: PredictionFormat = "jsonl",
) -> None:
    """Write each task's predictions, in the order of its rows.

    Args:
        folder: where `<task>.jsonl` or `<task>.txt` goes.
        sets: task -> its rows and what is right.
        predictions: task -> what was answered.
        texts: task -> what the rows say.
        form: `jsonl` (input, prediction, target, score, gate weights) or `ids` (one label id a line).

    Raises:
        DataError: the folder cannot be written.
    """
    for task, given in predictions.items():
        spec = sets[task].spec
        if form == "ids":
            # What is no label has no id: -1 counts as wrong in any official script.
            ids = {label: position for position, label in enumerate(spec.labels or [])}
            lines = [str(as_answer(p, spec).value) if spec.labels is None else str(ids.get(str(p.label), -1)) for p in given]
            _write_lines(lines, folder / f"{task}.txt")
            continue
        records = zip(texts[task], given, sets[task].references, strict=True)
        lines = [json.dumps(_record(text, p, target, spec), ensure_ascii=False) for text, p, target in records]
        _write_lines(lines, folder / f"{task}.jsonl")


def as_answer(prediction: Prediction, spec: TaskSpec) -> Answer:
    """Return a prediction as what is scored: what was written where it is no label, NaN where it is no number."""
    if spec.kind == "regression":
        return Answer(value=math.nan if prediction.value is None else prediction.value, is_valid=prediction.value is not None)
    if spec.kind == "classification" and prediction.label is not None:
        return Answer(value=prediction.label)
    return Answer(value=prediction.text or "", is_valid=spec.kind == "generation")


def texts_of(examples: Mapping[str, Sequence[Example]]) -> dict[str, list[str]]:
    """Return what each task's rows say; the two texts of a pair are joined by a tab."""
    return {
        task: [example.text if example.text_pair is None else f"{example.text}\t{example.text_pair}" for example in rows]
        for task, rows in examples.items()
    }


def _record(text: str, prediction: Prediction, reference: Reference, spec: TaskSpec) -> dict[str, Any]:
    texts = [reference] if isinstance(reference, str | float) else list(reference)
    given = as_answer(prediction, spec)
    # What was written instead of a number is worth reading.
    shown = given.value if given.is_valid or prediction.text is None else prediction.text
    record: dict[str, Any] = {"input": text, "prediction": finite(shown), "target": texts[0]}
    if len(texts) > 1:
        record["references"] = texts
    record["score"] = prediction.score
    if prediction.gate_weights:
        record["gate_weights"] = {name: round(weight, 4) for name, weight in prediction.gate_weights.items()}
    return record


def _write_lines(lines: Sequence[str], path: Path) -> None:
    try:
        write_text("\n".join(lines) + "\n", path)
    except OSError as error:
        raise DataError(f"{path}: predictions cannot be written ({error.strerror}); choose another folder") from None
