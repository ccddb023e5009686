"""What a finished run leaves for its readers beside the scores: a prediction per row, and the gate weights of each stage.

    predictions/<split>/<task>.jsonl    input, prediction, target, score, gate weights, of the released stage
    gates.json                          task x site x adapter, of each stage, averaged over validation rows

Shapes: T tasks, L sites, E adapters.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from alter.checkpoint import Loaded
from alter.data.codec import Codec
from alter.errors import DataError, TrainingError
from alter.evaluation import EvalSet, score_answers
from alter.gatemap import gate_map
from alter.model import MTAModel
from alter.predict import Predictor, adapter_names
from alter.predictions import as_answer, texts_of, write_predictions
from alter.results import SplitScores, write_json
from alter.tensors import write_error
from alter.training.prepare import Rows

GATES = "gates.json"
PREDICTIONS = "predictions"
ROWS_PER_MAP = 64
"""Validation rows of each task that a gate map is averaged over: it shows where weights lie, and not their third digit."""


def score_and_record(
    loaded: Loaded, rows: Rows, split: str, sets: Mapping[str, EvalSet], *, folder: Path | None, batch_size: int
) -> SplitScores:
    """Score the released model on one split, and write what it answered.

    Args:
        loaded: the model.
        rows: where the rows' texts are.
        split: validation or test.
        sets: the split's rows; tasks without any are left out.
        folder: the run directory; None: write nothing (all processes but the main one).
        batch_size: rows per forward pass.

    Raises:
        TrainingError: the folder cannot be written, or the disk is full.
    """
    found = {task: one for task, one in sets.items() if one.features}
    features = [row for one in found.values() for row in one.features]
    answered = iter(Predictor(loaded).answer(features, batch_size=batch_size, gate_weights=True))
    predictions = {task: [next(answered) for _ in one.features] for task, one in found.items()}
    if folder is not None:
        try:
            write_predictions(folder / PREDICTIONS / split, found, predictions, texts=texts_of(rows.splits[split]))
        except DataError as error:
            cause = error.__context__  # the failed write itself
            if isinstance(cause, OSError):
                raise write_error(cause, folder) from cause
            raise TrainingError(str(error)) from error
    return score_answers(found, {task: [as_answer(p, found[task].spec) for p in mine] for task, mine in predictions.items()})


def stage_gates(model: MTAModel, sets: Mapping[str, EvalSet], *, codec: Codec) -> list[list[list[float]]]:
    """Return the gate weights of the router at work, (T, L, E), averaged over the first validation rows of each task."""
    first = {task: one.features[:ROWS_PER_MAP] for task, one in sets.items()}
    found: list[list[list[float]]] = gate_map(model, first, codec=codec).round(decimals=5).tolist()
    return found


def write_gates(model: MTAModel, stages: Mapping[str, list[list[list[float]]]], folder: Path) -> None:
    """Write gates.json.

    Raises:
        TrainingError: the disk is full.
    """
    content = {
        "schema": 1,
        "tasks": model.task_names,
        "adapters": adapter_names(model),
        "sites": model.site_positions,
        "stages": stages,
    }
    try:
        write_json(content, folder / GATES)
    except OSError as error:
        raise write_error(error, folder / GATES) from error
