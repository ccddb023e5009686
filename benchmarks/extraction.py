"""What a task loses when it is taken out of a model with the adapters that it hardly uses dropped; on validation rows only.

    python benchmarks/extraction.py recipes/social.yaml --output-dir runs/extraction --factor 0 --factor 0.005 --set tasks.irony.cap=150

A model whose weights spread: everything trains in one stage under a gate by row over all adapters, which begins with equal weights; each
factor is one of Mod-Squad's mutual information (arXiv 2212.08066), which is there so that tasks come to use few adapters. Then each task
is extracted at each threshold of mean gate weight, the rest renormalised, and scored before and after. Mean weights are of the rows that
are scored. Shared adapters are counted apart: their weights are sigmoids of their own, 1/2 at first, and compete with none. Results go to
<output-dir>/extraction.jsonl, a line a factor, seed and threshold; factors that are there are not trained again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from validation_only import without_test_rows

import alter
from alter.comparing.changes import budget
from alter.config import merge, parse
from alter.errors import AlterError
from alter.mta_settings import GateSettings
from alter.recipe import Recipe, load_recipe

THRESHOLDS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)


def spread_recipe(recipe: Recipe, *, factor: float, seed: int) -> Recipe:
    """Return the recipe of one stage under a gate by row that begins with equal weights, without test rows."""
    gate = GateSettings(kind="linear", over="all", granularity="sequence").model_dump()
    stage = {
        "router": "gate",
        "trains": ["task_adapters", "shared_adapters", "gate", "heads"],
        "penalties": {"mutual_information": factor},
        **budget(recipe),
    }
    settings = {
        "mta": {"selector": GateSettings(kind="uniform").model_dump(), "gate": gate},
        "stages": {"stage1": stage, "stage2": None},
        "seed": seed,
    }
    found = parse(Recipe, merge(recipe.model_dump(mode="json"), settings), where=f"factor {factor:g}")
    return without_test_rows(found)


def lines_of(recipe: Recipe, overrides: list[str], *, factor: float, seed: int) -> list[dict[str, Any]]:
    """Train one model, extract every task at every threshold, and return a line a threshold."""
    found = []
    given = spread_recipe(recipe, factor=factor, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        run = alter.train(given, output_dir=Path(folder) / "run")
        for threshold in THRESHOLDS:
            tasks = {}
            for task in given.tasks:
                out = Path(folder) / f"{task.name}-{threshold:g}"
                shared = {f"shared-{position}" for position in range(given.mta.num_shared)}
                report = alter.extract(
                    run.folder, task=task.name, output_dir=out, threshold=threshold, renormalise=True, recipe=given
                )
                scores = report.scores["validation"]
                tasks[task.name] = {
                    "kept": sum(name not in shared for name in report.kept),
                    "shared": sum(name in shared for name in report.kept),
                    "before": round(scores.before, 2),
                    "after": round(scores.after, 2),
                    "largest": round(max(report.largest.values()), 3),
                }
            means = {
                name: round(statistics.fmean(one[name] for one in tasks.values()), 2)
                for name in ("kept", "shared", "before", "after")
            }
            found.append(
                {"overrides": overrides, "factor": factor, "seed": seed, "threshold": threshold, **means, "tasks": tasks}
            )
            print(f"factor {factor:g}  seed {seed}  threshold {threshold:g}  {means}", flush=True)
    return found


def main() -> None:
    """Train and take apart what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--factor", type=float, action="append", required=True, help="of mutual information; may be repeated")
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; by default 0")
    parser.add_argument("--set", action="append", default=[], help="an override of the recipe")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, options.set)
    file = options.output_dir / "extraction.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    there = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []
    if odd := next((line for line in there if line["overrides"] != options.set), None):
        parser.error(f"{file} is of other overrides ({odd['overrides']}); choose another --output-dir")
    done = {(line["factor"], line["seed"]) for line in there}
    for seed in options.seed or [0]:
        for factor in options.factor:
            if (factor, seed) not in done:
                lines = lines_of(recipe, options.set, factor=factor, seed=seed)
                with file.open("a", encoding="utf-8") as stream:
                    stream.writelines(json.dumps(line) + "\n" for line in lines)


if __name__ == "__main__":
    try:
        main()
    except AlterError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
