"""A second stage on rows that the first one has not seen: a part held out, or every part in its turn (cross-fitting).

Cross-fitting: the rows fall into K parts. For each part a first stage trains on the others, and a second one, on that part, only
weighs the finished task adapters (gate `table`). The mean of the K tables then weighs the adapters of a first stage that has seen all
rows: so weights are learned on unseen rows, and no adapter goes without any. It costs K further first stages.
"""

from __future__ import annotations

import gzip
import json
import random
import tempfile
import time
from pathlib import Path

import torch

import alter
from alter.checkpoint import Loaded, load_model
from alter.comparing.ablate import Table
from alter.evaluation import evaluate
from alter.recipe import Recipe
from alter.score import rows_for
from alter.tasks.read import load_split
from alter.training.prepare import eval_sets


def held_out_rows(recipe: Recipe, begin: float, end: float, folder: Path) -> tuple[Recipe, Recipe]:
    """Return two recipes: with each task's capped rows but those from share `begin` to share `end` of them, and with these alone.

    Raises:
        ValueError: a task has no cap, or its file has no line per row.
    """
    first, second = [], []
    for task in recipe.tasks:
        path = str(task.source.train) if task.source else ""
        lines = gzip.decompress(Path(path).read_bytes()).decode().splitlines() if path.endswith(".gz") else []
        if task.cap is None or len(load_split(task.model_copy(update={"cap": None}), "train")) != len(lines):
            raise ValueError(f"{task.name}: rows to hold out need --cap and a file with a row in every line, got {path}")
        drawn = random.Random(f"{recipe.seed}:{task.name}:cap").sample(lines, task.cap)  # as `alter.tasks.read.capped` draws them
        low, high = round(task.cap * begin), round(task.cap * end)
        for name, part, tasks in (("seen", drawn[:low] + drawn[high:], first), ("unseen", drawn[low:high], second)):
            file = folder / f"{task.name}-{name}-{recipe.seed}.jsonl"
            file.write_text("\n".join(part) + "\n", encoding="utf-8")
            update = {"train": str(file)}
            tasks.append(task.model_copy(update={"cap": None, "source": task.source.model_copy(update=update)}))
    return recipe.model_copy(update={"tasks": first}), recipe.model_copy(update={"tasks": second})


def train_apart(recipe: Recipe, begin: float, end: float, folder: Path) -> alter.Run:
    """Train stage 1 on all rows but a part, and stage 2 on that part; return the second run, whose stage 1 is the first's."""
    folder.mkdir(parents=True, exist_ok=True)
    first, second = held_out_rows(recipe, begin, end, folder)
    alter.train(first.model_copy(update={"stages": {"stage1": recipe.stages["stage1"]}}), output_dir=folder / "stage1")
    return alter.train(second.model_copy(update={"stage1_from": str(folder / "stage1")}), output_dir=folder / "stage2")


def cross_fitted(recipe: Recipe, folds: int, whole: Path) -> dict[str, object]:
    """Weigh the task adapters of the finished run `whole`, a stage 1 on all rows, by the mean of tables learned on unseen rows.

    Returns the line of a sweep: under stage1 the run as it was, under stage2 the same with these weights; `changes_by_fold`: what each
    part's weights changed of its own first stage.

    Raises:
        ValueError: the recipe's gate is no `table` without shared adapters.
    """
    if recipe.mta.gate.kind != "table" or recipe.mta.num_shared:
        raise ValueError("cross_fit puts numbers in the place of a selector: set mta.gate.kind=table and mta.num_shared=0")
    loaded = load_model(whole)
    started = time.monotonic()
    tables, changes = [], []
    for fold in range(folds):
        with tempfile.TemporaryDirectory() as folder:
            run = train_apart(recipe, fold / folds, (fold + 1) / folds, Path(folder))
            gates = json.loads((Path(folder) / "stage2" / "gates.json").read_text(encoding="utf-8"))
            tables.append(torch.tensor(gates["stages"]["stage2"]))
            stages = run.results.stages
            changes.append(round(stages["stage2"].average - stages["stage1"].average, 2))
    weights_TLE = torch.stack(tables).mean(0)
    before = _scores(loaded, recipe)
    for position, mta in enumerate(loaded.model.mtas):
        mta.selector = Table(weights_TLE[:, position])
    after = _scores(loaded, recipe)
    return {
        "stages": {"stage1": before, "stage2": after},
        "changes_by_fold": changes,
        "weights_on_own": [round(value, 4) for value in weights_TLE.mean(1).diagonal().tolist()],
        "weights_TLE": [[[round(w, 4) for w in row] for row in site] for site in weights_TLE.tolist()],
        "seconds": round(time.monotonic() - started),
    }


def _scores(loaded: Loaded, recipe: Recipe) -> dict[str, object]:
    rows = rows_for(loaded.config.tasks, "validation", recipe=recipe, tasks=None, scales=loaded.scales)
    found = evaluate(loaded.model, eval_sets(rows, "validation", codec=loaded.codec), codec=loaded.codec, batch_size=64)[0]
    return {"average": round(found.average, 2), "scores": {task: round(one.score, 2) for task, one in found.tasks.items()}}
