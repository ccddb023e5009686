"""`alter compare RECIPE [key.path=value ...] --output-dir COMPARE [--seed 0 --seed 1] [--arm NAME ...]`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from alter.cli.terminal import console, echo_json, notes, table, warn

if TYPE_CHECKING:
    from alter.comparison import Comparison


def compare(
    recipe: Path = typer.Argument(..., help="The recipe: a YAML file."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY.PATH=VALUE]...", help="Settings over the recipe's, for all arms."),
    output_dir: Path = typer.Option(None, "--output-dir", "-o", help="The comparison's folder."),
    arm: list[str] = typer.Option(
        None, "--arm", help="Run this arm, and what it needs; may be repeated. Default: all that apply."
    ),
    seed: list[int] = typer.Option(None, "--seed", min=0, help="A seed; may be repeated. Default: the recipe's."),
    arms_file: Path = typer.Option(None, "--arms-file", help="Further arms: a YAML file of name: settings over the recipe."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the comparison in --output-dir; finished arms are kept."),
    list_arms: bool = typer.Option(False, "--list-arms", help="Print the arms that apply to this recipe and stop."),
    as_json: bool = typer.Option(False, "--json", help="Print compare.json instead of tables."),
) -> None:
    """Run a recipe's method beside baselines, ablations and variants: same rows, same trainer, what each reached and cost."""
    from alter.comparing.choice import choose, own_arms
    from alter.config import load_yaml
    from alter.errors import ConfigError
    from alter.recipe import load_recipe

    resolved = load_recipe(recipe, list(overrides or []))
    own = [] if arms_file is None else own_arms(load_yaml(arms_file), where=str(arms_file))
    chosen = choose(resolved, arm or None, own)
    if list_arms:
        rows = [[one.name, one.family, one.title] for one in chosen]
        console().print(table(f"arms for {resolved.name}", ["arm", "family", "what it is"], rows, left=3))
        return
    if output_dir is None:
        raise ConfigError(f"no folder for the comparison is given; add one, e.g. --output-dir runs/{resolved.name}-compared")

    from alter.cli.progress import TerminalProgress
    from alter.comparing.run import compare as compare_recipe

    screen = notes()
    found = compare_recipe(
        resolved,
        output_dir=output_dir,
        arms=arm or None,
        own=own,
        seeds=seed or None,
        resume=resume,
        observer=TerminalProgress(screen),
        told=lambda message: screen.print(message, markup=False, soft_wrap=True),
    )
    for name, result in found.arms.items():
        if result.failed:
            warn(f"the arm '{name}' failed: {result.failed}")
    if as_json:
        from alter.comparison import SCHEMA
        from alter.results import finite

        content = found.model_dump()
        echo_json(finite({"schema": content.pop("schema_version", SCHEMA), **content}))
        return
    _show(found)
    console().print(f"\nall of it: {output_dir / 'compare.md'}, {output_dir / 'compare.json'}", markup=False, soft_wrap=True)


def _show(comparison: Comparison) -> None:
    """Print the averages, what the arms cost, and the questions."""
    from alter.comparing.tables import answer, millions, seeds_apart, size
    from alter.comparison import mean_budget
    from alter.reporting.words import interval_text, number, spread_text

    split = "test" if any("test" in arm.summary for arm in comparison.arms.values()) else "validation"
    seeds = seeds_apart(comparison, split)
    rows = []
    for name, arm in comparison.arms.items():
        summary = arm.summary.get(split)
        if summary is None:
            continue
        validation = arm.summary.get("validation")
        budget = mean_budget([run.budget for run in arm.runs])
        rows.append([
            name,
            *([seeds[name]] if seeds else []),
            spread_text(validation.average if validation else None),
            spread_text(summary.average),
            spread_text(summary.delta_m, signed=True),
            millions(budget.trainable_parameters),
            number(budget.relative_time, 2),
            size(budget.stored_bytes),
        ])  # fmt: skip
    columns = ["arm", *(["seeds"] if seeds else []), "validation", split, "delta_m %", "trained", "time / multi-full", "stored"]
    console().print(table(f"{comparison.recipe}, {split} rows, seeds {', '.join(map(str, comparison.seeds))}", columns, rows))
    for one in comparison.differences:
        points = f"{number(one.difference, signed=True)} points, {interval_text(one.low, one.high)}"
        told = f"{answer(one)}: {points}, against {one.against} on {one.split} rows"
        console().print(f"{one.question} [bold]{told}[/bold]", soft_wrap=True)
