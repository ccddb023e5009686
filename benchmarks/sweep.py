"""Try settings on validation rows only: one recipe, several arms, one table.

    python benchmarks/sweep.py benchmarks/sweeps/lite_rates.yaml --output-dir runs/sweeps

An arms file names a recipe, the overrides that all arms share, and each arm's own. Test rows are taken out of the recipe before
anything is read, so that no choice can lean on them. Results go to <output-dir>/<arms file>.jsonl, one line an arm; arms that are
there already are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import yaml

import alter
from alter.recipe import Recipe, load_recipe


def without_test_rows(recipe: Recipe) -> Recipe:
    """Return the recipe with no test source in any task."""
    tasks = [
        task.model_copy(update={"source": task.source.model_copy(update={"test": None})}) for task in recipe.tasks if task.source
    ]
    return recipe.model_copy(update={"tasks": tasks})


def run_arm(recipe: Recipe) -> dict[str, object]:
    """Train one arm and return its validation scores."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = alter.train(recipe, output_dir=Path(folder) / "run")
    stages = {name: {"average": round(s.average, 2), "best_step": s.best_step, "steps": s.steps, "scores": s.scores,
                     "seconds": s.seconds, "trainable": s.trainable_parameters} for name, s in run.results.stages.items()}  # fmt: skip
    return {"stages": stages, "released": run.results.released, "seconds": round(time.monotonic() - started)}


def main() -> None:
    """Run all arms that have no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sweep = yaml.safe_load(options.arms.read_text(encoding="utf-8"))
    results = options.output_dir / f"{options.arms.stem}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["arm"] for line in results.read_text().splitlines()} if results.exists() else set()
    for arm, overrides in sweep["arms"].items():
        for seed in sweep.get("seeds", [0]):
            name = f"{arm}/seed{seed}"
            if name in done:
                continue
            recipe = load_recipe(sweep["recipe"], [*sweep.get("common", []), *overrides, f"seed={seed}"])
            only = sweep.get("tasks")
            if only:
                recipe = recipe.model_copy(update={"tasks": [task for task in recipe.tasks if task.name in only]})
            line = {"arm": name, "overrides": overrides, **run_arm(without_test_rows(recipe))}
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            averages = {stage: found["average"] for stage, found in line["stages"].items()}
            print(f"{name:40s} {averages} {line['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
