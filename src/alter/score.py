"""Score a model directory on the rows of a recipe: what `alter evaluate` does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from alter.checkpoint import load_model
from alter.data.encode import Scale
from alter.errors import CheckpointError, DataError, TaskError, did_you_mean
from alter.evaluation import EvalSet, evaluate, score_answers
from alter.model_config import model_folder
from alter.predict import Predictor
from alter.predictions import PredictionFormat, as_answer, texts_of, write_predictions
from alter.recipe import Recipe, load_recipe
from alter.results import SplitScores
from alter.tasks.read import SPLITS, load_tasks, source_of
from alter.tasks.spec import CAPS, TaskSpec
from alter.training.prepare import Rows, eval_sets, raise_problems


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
    resolved = find_recipe(path, recipe)
    rows = rows_for(specs, split, recipe=resolved, tasks=tasks, scales=loaded.scales)
    sets = eval_sets(rows, split, codec=loaded.codec)
    sets = {task: found for task, found in sets.items() if found.features}
    if not sets:
        raise DataError(_no_rows(resolved, split, [spec.name for spec in specs if tasks is None or spec.name in tasks]))
    if predictions_dir is not None and predictions_format == "ids":
        _refuse_ids_of_texts(sets)
    if predictions_dir is None:
        return evaluate(loaded.model, sets, codec=loaded.codec, batch_size=batch_size)[0]
    features = [row for found in sets.values() for row in found.features]
    wants_weights = predictions_format == "jsonl"
    predictions = iter(Predictor(loaded).answer(features, batch_size=batch_size, gate_weights=wants_weights))
    given = {task: [next(predictions) for _ in found.features] for task, found in sets.items()}
    write_predictions(Path(predictions_dir), sets, given, texts=texts_of(rows.splits[split]), form=predictions_format)
    return score_answers(
        sets, {task: [as_answer(prediction, sets[task].spec) for prediction in mine] for task, mine in given.items()}
    )


def _no_rows(recipe: Recipe, split: str, tasks: Sequence[str]) -> str:
    """Return what to say where no task has rows of a split, and which other split there is to score on."""
    named = ", ".join(tasks) if len(tasks) <= 5 else f"{', '.join(tasks[:5])}, ..."
    mine = [task for task in recipe.tasks if task.name in tasks]
    others = [other for other in SPLITS[:0:-1] if other != split and any(source_of(task, other) is not None for task in mine)]
    instead = f", or add --split {others[0]}, of which it names rows" if others else ""
    return f"the recipe names no {split} rows for {named}; add source.{split} to it{instead}"


def find_recipe(path: str | Path, recipe: str | Path | Recipe | None) -> Recipe:
    """Return the recipe that says where a model's rows are: the one given, or the one beside the model.

    Raises:
        CheckpointError: none is given, and none lies there.
        ConfigError: it cannot be read.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if recipe is not None:
        return load_recipe(recipe)
    beside = model_folder(path).resolve().parent / "recipe.yaml"
    if not beside.exists():
        raise CheckpointError(f"{path}: no recipe.yaml beside the model says where the rows are; add --recipe RECIPE.yaml")
    return load_recipe(beside)


def rows_for(
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
        caps = {key: getattr(task, key) for key in CAPS.values()}
        to_read.append(spec.model_copy(update={"source": task.source, "labels": labels, **caps}))
    problems: list[str] = []
    read = load_tasks(to_read, split, seed=recipe.seed, on_problem=lambda error: problems.append(str(error)))
    raise_problems(problems)
    return Rows(specs=list(specs), splits={split: {spec.name: read.get(spec.name, []) for spec in specs}}, scales=scales)


def _refuse_ids_of_texts(sets: Mapping[str, EvalSet]) -> None:
    for task, found in sets.items():
        if found.spec.kind == "generation":
            raise TaskError(f"task '{task}' writes text, which has no ids; write its predictions as jsonl, or choose other tasks")
