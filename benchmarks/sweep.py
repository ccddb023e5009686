"""Try settings on validation rows only: one recipe, several arms, one table.

    python benchmarks/sweep.py benchmarks/sweeps/lite_rates.yaml --output-dir runs/sweeps
    python benchmarks/sweep.py benchmarks/sweeps/stage2_forms.yaml --output-dir runs/sweeps --cap 100 --seed 0 --seed 1

An arms file names a recipe, the overrides that all arms share, and each arm's own; an arm `{stage1_of: other, set: [...]}` takes its
stage 1 from another arm's run with the same seed. An arm `{held_out: 0.2, set: [...]}` trains stage 1 on four fifths of every task's rows
and stage 2 on the fifth that stage 1 has not seen. Test rows are taken out of the recipe before anything is read, so that no choice can
lean on them. Results go to <output-dir>/<arms file>[-t<tasks>][-<cap>].jsonl, one line an arm; arms that are there are not run again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch
import yaml
from unseen_rows import cross_fitted, train_apart
from validation_only import without_test_rows

import alter
from alter.recipe import Recipe, load_recipe
from alter.results import Results


def run_arm(recipe: Recipe, keep: Path | None) -> dict[str, object]:
    """Train one arm and return its validation scores; `keep`: where the run stays, for arms that take its stage 1."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        run = alter.train(
            recipe, output_dir=keep or Path(folder) / "run", resume=keep is not None and (keep / "recipe.yaml").exists()
        )
    return line_of(run.results, started)


def run_held_out(recipe: Recipe, share: float) -> dict[str, object]:
    """Train stage 1 on most rows and stage 2 on the others; the line of the second run, whose stage 1 is the first's."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        return line_of(train_apart(recipe, 1 - share, 1, Path(folder)).results, started)


def line_of(results: Results, started: float) -> dict[str, object]:
    """Return what a sweep keeps of a run."""
    stages = {name: {"average": round(s.average, 2), "best_step": s.best_step, "steps": s.steps, "scores": s.scores,
                     "seconds": s.seconds, "trainable": s.trainable_parameters} for name, s in results.stages.items()}  # fmt: skip
    return {"stages": stages, "released": results.released, "seconds": round(time.monotonic() - started)}


def main() -> None:
    """Run all arms that have no line yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("arms", type=Path)
    parser.add_argument("--recipe", help="instead of the arms file's")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--cap", type=int, help="training rows of every task")
    parser.add_argument("--tasks", type=int, help="the recipe's first so many tasks only")
    parser.add_argument("--seed", type=int, action="append", help="instead of the arms file's")
    parser.add_argument("--arm", action="append", help="these arms only")
    parser.add_argument("--set", action="append", default=[], help="an override for all arms, e.g. --set seed=3")
    parser.add_argument("--name", help="of the results file, instead of the arms file's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    sweep = yaml.safe_load(options.arms.read_text(encoding="utf-8"))
    recipe_file = options.recipe or sweep["recipe"]
    stem = options.name or options.arms.stem + (f"-t{options.tasks}" if options.tasks else "") + (
        f"-{options.cap}" if options.cap else ""
    )
    results = options.output_dir / f"{stem}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    done = {json.loads(line)["arm"] for line in results.read_text().splitlines()} if results.exists() else set()
    arms = {arm: given if isinstance(given, dict) else {"set": given} for arm, given in sweep["arms"].items()}
    sources = {given.get("stage1_of") for given in arms.values()}
    names = [task.name for task in load_recipe(recipe_file, sweep.get("common", [])).tasks]
    only = sweep.get("tasks", names)[: options.tasks]
    for seed in options.seed or sweep.get("seeds", [0]):
        for arm, given in arms.items():
            name = f"{arm}/seed{seed}"
            if name in done or (options.arm and arm not in options.arm):
                continue
            overrides = [*sweep.get("common", []), *options.set, *given["set"], f"seed={seed}"]
            if options.cap:
                overrides += [f"tasks.{task}.cap={options.cap}" for task in only]
            runs = options.output_dir / "runs" / stem
            whole = runs / given["stage1_of"] / f"seed{seed}" if "stage1_of" in given else None
            if "cross_fit" in given and whole is None:
                raise SystemExit(f"{arm}: cross_fit weighs the adapters of a finished run: name its arm as stage1_of")
            if whole is not None and not (whole / "results.json").exists():
                source = given["stage1_of"]
                raise SystemExit(
                    f"{arm} takes its stage 1 from {whole}, which is not there: run --arm {source} first (if {results} has a line of "
                    f"it, that has to go)"
                )
            if whole is not None and "cross_fit" not in given:
                overrides.append(f"stage1_from={whole}")
            recipe = load_recipe(recipe_file, overrides)
            recipe = recipe.model_copy(update={"tasks": [task for task in recipe.tasks if task.name in only]})
            keep = runs / arm / f"seed{seed}" if arm in sources else None
            recipe = without_test_rows(recipe)
            if "held_out" in given:
                found = run_held_out(recipe, given["held_out"])
            elif "cross_fit" in given:
                found = cross_fitted(recipe, given["cross_fit"], whole)
            else:
                found = run_arm(recipe, keep)
            line = {"arm": name, "overrides": given, **found}
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line) + "\n")
            averages = {stage: found["average"] for stage, found in line["stages"].items()}
            print(f"{name:40s} {averages} {line['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
