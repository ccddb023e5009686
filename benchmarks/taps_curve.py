"""How many sites a task needs for itself: TAPS at several factors of its sparsity penalty, scored on validation rows only.

    python benchmarks/taps_curve.py recipes/social.yaml --output-dir runs/taps --factor 0 --factor 0.1 --factor 1 --set tasks.irony.cap=500

Each point is one stage of the recipe's epochs with the arm `taps` of `alter compare`. Test rows are taken out of the recipe before
anything is read. Results go to <output-dir>/taps_curve.json, .md and, where matplotlib is there (extra `report`), .svg; points that are
there already are not trained again. Scores and sites are those of a point's best validation step.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from validation_only import without_test_rows

import alter
from alter.comparing.changes import taps
from alter.config import merge, parse
from alter.gatemap import specific_sites
from alter.recipe import Recipe, load_recipe

NAME = "taps_curve"
FACTORS = (0.0, 0.03, 0.1, 0.3, 1.0)


def curve_recipe(recipe: Recipe, *, factor: float, seed: int) -> Recipe:
    """Return the recipe of one point, without test rows."""
    settings = {**taps(recipe, sparsity=factor), "seed": seed, "stage1_from": None}
    found = parse(Recipe, merge(recipe.model_dump(mode="json"), settings), where=f"factor {factor:g}")
    return without_test_rows(found)


def point(recipe: Recipe, *, factor: float, seed: int) -> dict[str, Any]:
    """Train one point and return what it reached."""
    with tempfile.TemporaryDirectory() as folder:
        run = alter.train(curve_recipe(recipe, factor=factor, seed=seed), output_dir=Path(folder) / "run")
        gates = json.loads((run.folder / "gates.json").read_text(encoding="utf-8"))
    stage = run.results.stages["stage1"]
    shares = specific_sites(gates["stages"]["stage1"], num_adapters=len(gates["adapters"]))
    return {
        "factor": factor,
        "seed": seed,
        "average": round(stage.average, 2),
        "scores": {task: round(score, 2) for task, score in stage.scores.items()},
        "share": dict(zip(gates["tasks"], shares, strict=True)),
        "mean_share": sum(shares) / len(shares),
        "sites": len(gates["sites"]),
        "best_step": stage.best_step,
        "steps": stage.steps,
        "seconds": stage.seconds,
    }


def by_factor(points: list[dict[str, Any]]) -> list[tuple[float, list[dict[str, Any]]]]:
    """Return factor -> its seeds, smallest first."""
    factors = sorted({each["factor"] for each in points})
    return [(factor, [each for each in points if each["factor"] == factor]) for factor in factors]


def mean(values: list[float]) -> float:
    """Return the mean."""
    return sum(values) / len(values)


def table(points: list[dict[str, Any]]) -> str:
    """Return a Markdown table, means over seeds."""
    tasks = list(points[0]["share"])
    lines = [
        "| factor | seeds | task-specific sites | validation average | " + " | ".join(tasks) + " |",
        "|---:|" + "---:|" * (3 + len(tasks)),
    ]
    for factor, seeds in by_factor(points):
        cells = [
            f"{mean([each['scores'][task] for each in seeds]):.1f} ({mean([each['share'][task] for each in seeds]):.0%})"
            for task in tasks
        ]
        share, average = mean([each["mean_share"] for each in seeds]), mean([each["average"] for each in seeds])
        lines.append(f"| {factor:g} | {len(seeds)} | {share:.0%} | {average:.1f} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", "In brackets the share of sites at which the task has adapters of its own.", ""])


def draw(points: list[dict[str, Any]], path: Path) -> bool:
    """Draw the share of task-specific sites against the validation average; False where matplotlib is missing."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError:
        return False
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": NAME}):
        figure = Figure(figsize=(6, 4), layout="constrained")
        axes = figure.subplots()
        for seed in sorted({each["seed"] for each in points}):
            mine = sorted((each for each in points if each["seed"] == seed), key=lambda each: float(each["factor"]))
            shares = [100 * each["mean_share"] for each in mine]
            axes.plot(shares, [each["average"] for each in mine], marker="o", label=f"seed {seed}")
            for share, each in zip(shares, mine, strict=True):
                axes.annotate(f"{each['factor']:g}", (share, each["average"]), xytext=(4, 4), textcoords="offset points")
        axes.set_xlabel("task-specific sites, percent (beside each point the factor)")
        axes.set_ylabel("validation average, percent")
        axes.legend()
        figure.savefig(path, format="svg", metadata={"Date": None})
    return True


def main() -> None:
    """Train all points that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument(
        "--factor", type=float, action="append", help=f"may be repeated; by default {', '.join(f'{f:g}' for f in FACTORS)}"
    )
    parser.add_argument("--seed", type=int, action="append", help="may be repeated; by default 0")
    parser.add_argument("--set", action="append", default=[], help="an override of the recipe, e.g. --set max_length=64")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    recipe = load_recipe(options.recipe, options.set)
    options.output_dir.mkdir(parents=True, exist_ok=True)
    path = options.output_dir / f"{NAME}.json"
    told = (
        json.loads(path.read_text(encoding="utf-8"))
        if path.exists()
        else {"recipe": recipe.name, "overrides": options.set, "points": []}
    )
    if (told["recipe"], told["overrides"]) != (recipe.name, options.set):
        parser.error(f"{path} is of {told['recipe']} with {told['overrides']}; choose another --output-dir")
    for seed in options.seed or [0]:
        for factor in options.factor or FACTORS:
            if any((each["factor"], each["seed"]) == (factor, seed) for each in told["points"]):
                continue
            told["points"].append(point(recipe, factor=factor, seed=seed))
            path.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
            done = told["points"][-1]
            print(f"factor {factor:g}, seed {seed}: {done['mean_share']:.0%} of sites, average {done['average']}", flush=True)
    path.with_suffix(".md").write_text(table(told["points"]), encoding="utf-8")
    if not draw(told["points"], path.with_suffix(".svg")):
        print("no figure: pip install 'alter-mta[report]'")


if __name__ == "__main__":
    main()
