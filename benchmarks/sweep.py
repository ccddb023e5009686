"""Try settings on validation rows only: one recipe, several arms, one table.

    python benchmarks/sweep.py benchmarks/sweeps/lite_rates.yaml --output-dir runs/sweeps
    python benchmarks/sweep.py benchmarks/sweeps/stage2_forms.yaml --output-dir runs/sweeps --cap 100 --seed 0 --seed 1

An arms file names a recipe, the overrides that all arms share, and each arm's own; an arm `{stage1_of: other, set: [...]}` takes its
stage 1 from another arm's run with the same seed. Test rows are taken out of the recipe before anything is read, so that no choice can
lean on them. Results go to <output-dir>/<arms file>[-<cap>].jsonl, one line an arm; arms that are there already are not run again.
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


def run_arm(recipe: Recipe, keep: Path | None) -> dict[str, object]:
    """Train one arm and return its validation scores; `keep`: where the run stays, for arms that take its stage 1."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = alter.train(
            recipe, output_dir=keep or Path(folder) / "run", resume=keep is not None and (keep / "recipe.yaml").exists()
        )
    stages = {name: {"average": round(s.average, 2), "best_step": s.best_step, "steps": s.steps, "scores": s.scores,
                     "seconds": s.seconds, "trainable": s.trainable_parameters} for name, s in run.results.stages.items()}  # fmt: skip
    return {"stages": stages, "released": run.results.released, "seconds": round(time.monotonic() - started)}


def main() -> None:
    """Run all arms that have no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cap", type=int, help="training rows of every task")
    parser.add_argument("--seed", type=int, action="append", help="instead of the arms file's")
    parser.add_argument("--arm", action="append", help="these arms only")
    parser.add_argument("--set", action="append", default=[], help="an override for all arms, e.g. --set seed=3")
    parser.add_argument("--name", help="of the results file, instead of the arms file's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sweep = yaml.safe_load(options.arms.read_text(encoding="utf-8"))
    stem = options.name or options.arms.stem + (f"-{options.cap}" if options.cap else "")
    results = options.output_dir / f"{stem}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["arm"] for line in results.read_text().splitlines()} if results.exists() else set()
    arms = {arm: given if isinstance(given, dict) else {"set": given} for arm, given in sweep["arms"].items()}
    sources = {given.get("stage1_of") for given in arms.values()}
    only = sweep.get("tasks")
    for seed in options.seed or sweep.get("seeds", [0]):
        for arm, given in arms.items():
            name = f"{arm}/seed{seed}"
            if name in done or (options.arm and arm not in options.arm):
                continue
            overrides = [*sweep.get("common", []), *options.set, *given["set"], f"seed={seed}"]
            if options.cap:
                overrides += [f"tasks.{task}.cap={options.cap}" for task in only]
            runs = options.output_dir / "runs" / stem
            if "stage1_of" in given:
                overrides.append(f"stage1_from={runs / given['stage1_of'] / f'seed{seed}'}")
            recipe = load_recipe(sweep["recipe"], overrides)
            if only:
                recipe = recipe.model_copy(update={"tasks": [task for task in recipe.tasks if task.name in only]})
            keep = runs / arm / f"seed{seed}" if arm in sources else None
            line = {"arm": name, "overrides": given, **run_arm(without_test_rows(recipe), keep)}
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            averages = {stage: found["average"] for stage, found in line["stages"].items()}
            print(f"{name:40s} {averages} {line['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
