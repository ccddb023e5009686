"""What merging costs: models of one task each, merged by each method, beside the models themselves, on the rows of a comparison.

    benchmarks/compare.sh runs/compare social 0          (arms single-full and single-lora)
    python benchmarks/merging.py runs/compare/social --arm single-full --seed 0 --output-dir runs/merging
    python benchmarks/merging.py runs/compare/social --arm single-lora --seed 0 --output-dir runs/merging

single-full: the backbones are merged, and each task keeps its head. single-lora: the LoRAs become one for all tasks, of a rank at which
nothing is cut (the line says the cut's relative error): the sum of theirs, or for methods that work entry by entry the projections' own. A
method's settings are chosen on validation rows, and the chosen ones scored on test rows. Fisher and RegMean take statistics of each model's
own training rows (full models only). Results go to <output-dir>/<comparison>-<arm>-<seed>.jsonl, a line a method; methods that are
there are not tried again. Merged models are not kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

import alter
from alter.checkpoint import load_model
from alter.combining.statistics import diagonal_fisher, gram_matrices
from alter.errors import AlterError
from alter.nn.site import projection_shape
from alter.recipe import Recipe, load_recipe
from alter.score import evaluate_model, rows_for
from alter.training.prepare import eval_sets

SCALES = (0.1, 0.2, 0.3, 0.5, 1.0)
TRIED: dict[str, list[dict[str, float]]] = {
    "average": [{}],
    "task_arithmetic": [{"scale": scale} for scale in SCALES],
    "ties": [{"density": 0.3, "scale": scale} for scale in SCALES],
    "dare": [{"density": 0.3, "scale": scale} for scale in SCALES],
    "dare_ties": [{"density": 0.3, "scale": scale} for scale in SCALES],
    "metagpt": [{}],
    "fisher": [{}],
    "regmean": [{"alpha": alpha} for alpha in (0.5, 0.9, 1.0)],
}
"""Method -> settings among which validation rows choose."""
ENTRYWISE = ("ties", "dare", "dare_ties")
"""Methods after which a sum of low-rank changes has full rank."""
STATISTICS = {"fisher": diagonal_fisher, "regmean": gram_matrices}


def scores(model: Path, recipe: Recipe, split: str) -> dict[str, float]:
    """Return the primary score of each of a model's tasks that has rows of a split, in percent."""
    tasks = [task.name for task in recipe.tasks if task.source is not None and getattr(task.source, split) is not None]
    theirs = {spec.name for spec in load_model(model, device="cpu").config.tasks}
    found = evaluate_model(model, split=split, recipe=recipe, tasks=[task for task in tasks if task in theirs], device="cpu")
    return {task: round(score.score, 2) for task, score in found.tasks.items()}


def average(found: dict[str, float]) -> float:
    """Return the mean over tasks."""
    return round(statistics.fmean(found.values()), 2)


def has_rows(run: Path, recipe: Recipe, split: str) -> bool:
    """Whether a model of one task has rows of a split."""
    return any(
        task.name == run.name and task.source is not None and getattr(task.source, split) is not None for task in recipe.tasks
    )


def write_statistics(run: Path, recipe: Recipe, method: str, file: Path) -> None:
    """Write what a method must know of a model's own training rows."""
    loaded = load_model(run, device="cpu")
    read = rows_for(loaded.config.tasks, "train", recipe=recipe, tasks=None, scales=loaded.scales)
    save_file(STATISTICS[method](loaded.model, _rows(eval_sets(read, "train", codec=loaded.codec))), file)


def _rows(sets: dict[str, Any]) -> Iterator[dict[str, torch.Tensor]]:
    for found in sets.values():
        for row in found.features:
            inputs = {name: torch.tensor([values]) for name, values in row.inputs.items()}
            aim = (
                {"targets": torch.tensor([row.target])}
                if found.spec.kind == "regression"
                else {"label_ids": torch.tensor([row.label_id])}
            )
            yield {**inputs, **aim, "task_ids": torch.tensor([row.task_id])}


def merge(
    runs: list[Path], recipe: Recipe, method: str, settings: dict[str, float], folder: Path, *, lora: bool
) -> tuple[Path, float]:
    """Merge models by a method; return the result and what the cut to a rank lost of it."""
    files = []
    if method in STATISTICS:
        for run in runs:
            files.append(folder / f"{method}-{run.name}.safetensors")
            if not files[-1].exists():
                write_statistics(run, recipe, method, files[-1])
    out = folder / f"{method}-{'-'.join(map(str, settings.values()))}"
    how: dict[str, Any] = {"adapters": "merge", "rank": _rank(runs, method)} if lora else {}
    report = alter.merge(runs, output_dir=out, method=method, settings=settings, statistics=files, **how)
    return out, report.relative_error or 0.0


def _rank(runs: list[Path], method: str) -> int:
    """Return the rank at which nothing of the merged LoRAs is cut."""
    loaded = [load_model(run, device="cpu") for run in runs]
    if method in ENTRYWISE:
        return min(min(projection_shape(projection)) for ffn in loaded[0].model.ffns for projection in ffn.projections)
    return sum(each.config.mta.adapter.r for each in loaded)


def tried(runs: list[Path], recipe: Recipe, method: str, *, lora: bool) -> dict[str, Any]:
    """Merge with each setting, score on validation rows, and the best one on test rows."""
    with tempfile.TemporaryDirectory() as folder:
        found, began = {}, time.monotonic()
        for settings in TRIED[method]:
            out, error = merge(runs, recipe, method, settings, Path(folder), lora=lora)
            found[json.dumps(settings)] = (scores(out, recipe, "validation"), out, error)
        best = max(found, key=lambda settings: average(found[settings][0]))
        on_validation, out, error = found[best]
        on_test = scores(out, recipe, "test")
        return {
            "method": method, "settings": json.loads(best), "validation": on_validation, "test": on_test,
            "average": {"validation": average(on_validation), "test": average(on_test)}, "relative_error": error,
            "tried": {settings: average(each[0]) for settings, each in found.items()}, "seconds": round(time.monotonic() - began),
        }  # fmt: skip


def themselves(runs: list[Path], recipe: Recipe) -> dict[str, Any]:
    """Return the scores of the models that are merged, each on its own task."""
    found: dict[str, dict[str, float]] = {
        split: {task: score for run in runs if has_rows(run, recipe, split) for task, score in scores(run, recipe, split).items()}
        for split in ("validation", "test")
    }
    return {"method": "the models themselves", **found, "average": {split: average(each) for split, each in found.items()}}


def main() -> None:
    """Try every method that has no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("comparison", type=Path)
    parser.add_argument("--arm", choices=("single-full", "single-lora"), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--method", action="append", choices=sorted(TRIED), help="these methods only")
    given = parser.parse_args()
    recipe = load_recipe(given.comparison / "recipe.yaml", [f"seed={given.seed}"])
    runs = [given.comparison / "arms" / given.arm / f"seed{given.seed}" / task.name for task in recipe.tasks]
    lora = given.arm == "single-lora"
    file = given.output_dir / f"{given.comparison.resolve().name}-{given.arm}-{given.seed}.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["method"] for line in file.read_text().splitlines()} if file.exists() else set()
    methods = given.method or [method for method in TRIED if not (lora and method in STATISTICS)]
    for method in ["the models themselves", *methods]:
        if method in done:
            continue
        line = themselves(runs, recipe) if method == "the models themselves" else tried(runs, recipe, method, lora=lora)
        with file.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line) + "\n")
        print(f"{method:24s} {line['average']} {line.get('settings', '')}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except AlterError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
