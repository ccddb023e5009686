"""Score a model directory on the rows of a recipe: what `alter evaluate` does."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from alter.checkpoint import load_model, model_folder
from alter.data.encode import Scale
from alter.errors import CheckpointError, DataError, TaskError, did_you_mean
from alter.evaluation import EvalSet, Reference, evaluate, score_answers
from alter.predict import Prediction, Predictor
from alter.recipe import Recipe, load_recipe
from alter.results import SplitScores, finite, write_text
from alter.tasks.read import SPLITS, load_tasks
from alter.tasks.spec import TaskSpec
from alter.training.prepare import Rows, eval_sets, raise_problems
from alter.writing import Answer

PredictionFormat = Literal["jsonl", "ids"]


def evaluate_model(
    path: str | Path,
    *,
    split: str = "test",
    recipe: str | Path | Recipe | None = None,
    tasks: Sequence[str] | None = None,
    batch_size: int = 64,
    predictions_dir: str | Path | None = None,
    predictions_format: PredictionFormat = "jsonl",
    device: torch.device | str | None = None,
) -> SplitScores:
    """Score a model on one split.

    Args:
        path: a run directory, or a model directory.
        split: validation or test.
        recipe: where the rows are; by default the run's own recipe.yaml.
        tasks: score these only.
        batch_size: rows per forward pass.
        predictions_dir: write each task's predictions here: `<task>.jsonl`, or `<task>.txt` with one label id a line.
        predictions_format: `jsonl` (input, prediction, target, score, gate weights) or `ids`.
        device: where to put the model; by default a CUDA device where there is one, otherwise the CPU.

    Raises:
        ConfigError: this machine has no such device.
        CheckpointError: the model cannot be loaded, or no recipe lies beside it.
        DataError: the split has no rows, or rows are wrong.
        TaskError: the model or the recipe has no such task, or label ids are asked for of a task that writes text.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'; {did_you_mean(split, SPLITS)}")
    loaded = load_model(path, device=device)
    specs = loaded.config.tasks
    for task in tasks or []:
        if task not in {spec.name for spec in specs}:
            raise TaskError(f"this model has no task '{task}'; {did_you_mean(task, [spec.name for spec in specs])}")
    rows = _rows_for(specs, split, recipe=_find_recipe(path, recipe), tasks=tasks, scales=loaded.scales)
    sets = eval_sets(rows, split, codec=loaded.codec)
    sets = {task: found for task, found in sets.items() if found.features}
    if not sets:
        raise DataError(f"the recipe names no {split} rows for {', '.join(tasks or ['any task'])}; add source.{split} to it")
    if predictions_dir is not None and predictions_format == "ids":
        _refuse_ids_of_texts(sets)
    if predictions_dir is None:
        return evaluate(loaded.model, sets, codec=loaded.codec, batch_size=batch_size)[0]
    features = [row for found in sets.values() for row in found.features]
    wants_weights = predictions_format == "jsonl"
    predictions = iter(Predictor(loaded).answer(features, batch_size=batch_size, gate_weights=wants_weights))
    given = {task: [next(predictions) for _ in found.features] for task, found in sets.items()}
    write_predictions(Path(predictions_dir), sets, given, texts=_texts(rows, split), form=predictions_format)
    return score_answers(
        sets, {task: [_answer(prediction, sets[task].spec) for prediction in mine] for task, mine in given.items()}
    )


def _answer(prediction: Prediction, spec: TaskSpec) -> Answer:
    """Return a prediction as what is scored: what was written where it is no label, NaN where it is no number."""
    if spec.kind == "regression":
        return Answer(value=math.nan if prediction.value is None else prediction.value, is_valid=prediction.value is not None)
    if spec.kind == "classification" and prediction.label is not None:
        return Answer(value=prediction.label)
    return Answer(value=prediction.text or "", is_valid=spec.kind == "generation")


def _find_recipe(path: str | Path, recipe: str | Path | Recipe | None) -> Recipe:
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return load_recipe(recipe)
    beside = model_folder(path).resolve().parent / "recipe.yaml"
    if not beside.exists():
        raise CheckpointError(f"{path}: no recipe.yaml beside the model says where the rows are; add --recipe RECIPE.yaml")
    return load_recipe(beside)


def _rows_for(
    specs: Sequence[TaskSpec], split: str, *, recipe: Recipe, tasks: Sequence[str] | None, scales: Mapping[str, Scale]
) -> Rows:
    """Read one split of the recipe's rows with the model's own templates, and give them the model's labels."""
    theirs = {task.name: task for task in recipe.tasks}
    to_read = []
    for spec in specs:
        if tasks is not None and spec.name not in tasks:
            continue
        if spec.name not in theirs:
            raise TaskError(
                f"the recipe has no task '{spec.name}', which the model was trained on; {did_you_mean(spec.name, theirs)}"
            )
        task = theirs[spec.name]
        # Where the recipe lists no labels, those of training rows count: another label in this split is a wrong answer, not a wrong row.
        labels = None if task.labels is None else spec.labels
        caps = {"cap": task.cap, "validation_cap": task.validation_cap}
        to_read.append(spec.model_copy(update={"source": task.source, "labels": labels, **caps}))
    problems: list[str] = []
    read = load_tasks(to_read, split, seed=recipe.seed, on_problem=lambda error: problems.append(str(error)))
    raise_problems(problems)
    return Rows(specs=list(specs), splits={split: {spec.name: read.get(spec.name, []) for spec in specs}}, scales=scales)


def _refuse_ids_of_texts(sets: Mapping[str, EvalSet]) -> None:
    for task, found in sets.items():
        if found.spec.kind == "generation":
            raise TaskError(f"task '{task}' writes text, which has no ids; write its predictions as jsonl, or choose other tasks")


def _texts(rows: Rows, split: str) -> dict[str, list[str]]:
    return {
        task: [example.text if example.text_pair is None else f"{example.text}\t{example.text_pair}" for example in examples]
        for task, examples in rows.splits[split].items()
    }


def write_predictions(
    folder: Path,
    sets: Mapping[str, EvalSet],
    predictions: Mapping[str, Sequence[Prediction]],
    *,
    texts: Mapping[str, Sequence[str]],
    form: PredictionFormat,
) -> None:
    """Write each task's predictions, in the order of its rows.

    Raises:
        DataError: the folder cannot be written.
    """
    for task, given in predictions.items():
        spec = sets[task].spec
        if form == "ids":
            # What is no label has no id: -1 counts as wrong in any official script.
            ids = {label: position for position, label in enumerate(spec.labels or [])}
            lines = [str(_answer(p, spec).value) if spec.labels is None else str(ids.get(str(p.label), -1)) for p in given]
            _write_lines(lines, folder / f"{task}.txt")
            continue
        records = zip(texts[task], given, sets[task].references, strict=True)
        lines = [json.dumps(_record(text, p, target, spec), ensure_ascii=False) for text, p, target in records]
        _write_lines(lines, folder / f"{task}.jsonl")


def _record(text: str, prediction: Prediction, reference: Reference, spec: TaskSpec) -> dict[str, Any]:
    texts = [reference] if isinstance(reference, str | float) else list(reference)
    given = _answer(prediction, spec)
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
