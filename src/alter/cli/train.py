"""`alter train RECIPE [key.path=value ...] --output-dir RUN [--resume]`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, notes, table, warn, warn_of_cut_texts

if TYPE_CHECKING:
    from alter.recipe import Recipe
    from alter.results import Results


def train(
    recipe: Path = typer.Argument(..., help="The recipe: a YAML file."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY.PATH=VALUE]...", help="Settings over the recipe's."),
    output_dir: Path = typer.Option(None, "--output-dir", "-o", help="The run directory; only --print-config needs none."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --output-dir."),
    print_config: bool = typer.Option(False, "--print-config", help="Print the resolved recipe and stop."),
    as_json: bool = typer.Option(False, "--json", help="Print results.json instead of tables."),
) -> None:
    """Train a recipe in two stages, keep the better one, score it on test rows once."""
    if print_config:
        _print_config(recipe, overrides or [])
        return
    from alter.errors import ConfigError, counted
    from alter.recipe import load_recipe

    resolved = load_recipe(recipe, list(overrides or []))
    if output_dir is None:
        raise ConfigError(f"no run directory is given; add one, e.g. --output-dir runs/{resolved.name}")
    base = f"{resolved.model_name_or_path}, preset {resolved.preset}"
    if os.environ.get("RANK", "0") == "0":  # of several processes only the first speaks
        notes().print(f"{resolved.name}: {counted(len(resolved.tasks), 'task')} on {base}", markup=False, soft_wrap=True)

    from alter.cli.progress import TerminalProgress
    from alter.training.run import train as train_recipe

    run = train_recipe(resolved, output_dir=output_dir, resume=resume, observer=TerminalProgress(notes()))
    if not _is_main_process():
        return
    for split, scores in run.results.splits.items():
        warn_of_cut_texts(split, scores)
    if as_json:
        import json

        echo_json(json.loads((run.folder / "results.json").read_text(encoding="utf-8")))
        return
    show_results(run.results, resolved)
    first = next(iter(run.results.splits["validation"].tasks))
    folder, predictions = shlex.quote(str(run.folder)), shlex.quote(str(run.folder / "predictions"))
    lines = [f"\nmodel: {run.folder / 'model'}", f"next:  alter predict {folder} --task {first} --text '...'"]
    if "test" in run.results.splits:
        lines.append(f"       alter evaluate {folder} --split test --predictions-dir {predictions}")
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def _is_main_process() -> bool:
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def _print_config(recipe: Path, overrides: list[str]) -> None:
    from alter.config import dump_yaml
    from alter.recipe import load_recipe

    typer.echo(dump_yaml(load_recipe(recipe, overrides).model_dump(mode="json")), nl=False)


def show_results(results: Results, recipe: Recipe) -> None:
    """Print the scores of a run."""
    splits = results.splits
    rows = []
    for task, score in splits["validation"].tasks.items():
        test = splits["test"].tasks.get(task) if "test" in splits else None
        rows.append([task, score.metric, f"{score.score:.1f}", f"{test.score:.1f}" if test else "-"])
    averages = [f"{splits[split].average:.1f}" if split in splits else "-" for split in ("validation", "test")]
    rows.append(["average", "", *averages])
    console().print(
        table(f"{results.recipe} ({results.preset}, seed {results.seed})", ["task", "metric", "validation", "test"], rows, left=2)
    )
    stages = ", ".join(f"{name} {stage.average:.2f}" for name, stage in sorted(results.stages.items()))
    console().print(f"best validation average: {stages}; released: {results.released}")
    from alter.training.collapse import at_the_end

    steps = sum(stage.steps for stage in results.stages.values())
    for warning in at_the_end(splits["validation"], recipe, steps=steps):
        warn(warning)
