"""Stage 1 taken from a run that has it already, so that several second stages can be tried on one and the same first (`stage1_from`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alter.errors import CheckpointError, ConfigError
from alter.model import MTAModel
from alter.model_config import AlterConfig, load_config, model_folder
from alter.recipe import Recipe, Trained, load_recipe
from alter.results import StageResult, read_results
from alter.tasks.spec import NOT_SHIPPED, TaskSpec
from alter.tensors import save_atomically
from alter.training.kept import Kept
from alter.training.parameters import copies, load_parameters
from alter.training.prepare import Rows

GROUPS: tuple[Trained, ...] = ("task_adapters", "selector", "heads", "backbone")
"""What stage 1 may train, and what is taken; shared adapters and gates begin afresh."""


def adopt_stage1(kept: Kept, model: MTAModel, recipe: Recipe) -> None:
    """Put a finished run's stage 1, which `check_fits` let through, in the place of this run's own.

    Args:
        kept: where this run is: at its very beginning.
        model: this run's model; it gets the other's parameters.
        recipe: this run's recipe; `stage1_from` names the other run.

    Raises:
        CheckpointError: the other run is not finished, has no stage 1, or is damaged.
    """
    assert recipe.stage1_from is not None
    folder = Path(recipe.stage1_from)
    result = _stage1_of(folder)
    trained = load_recipe(folder / "recipe.yaml").stages["stage1"].trains
    # A backbone that their stage 1 left alone is this run's own, and their file may not have it.
    taken = [group for group in GROUPS if group != "backbone" or group in trained]
    groups = model.parameter_groups()
    parameters = {name: p for group in taken for name, p in groups[group].items() if name in kept.changing}
    best = folder / "checkpoints" / "best-stage1.safetensors"
    load_parameters(best, parameters, advice="was its base or its recipe changed since? Name a run with this recipe's stage 1")
    if kept.accelerator.is_main_process:
        save_atomically(copies(kept.changing), kept.checkpoints / best.name)
    kept.accelerator.wait_for_everyone()
    taken_from = result.taken_from or recipe.stage1_from
    kept.advance(finished=True, results={"stage1": result.model_copy(update={"taken_from": taken_from, "test": None})})


def _stage1_of(folder: Path) -> StageResult:
    found = read_results(folder / "results.json").stages.get("stage1")
    if found is None:
        raise CheckpointError(f"stage1_from is {folder}, whose run has no stage 1 to take; name a run that trained one")
    return found


def check_fits(recipe: Recipe, rows: Rows, *, fingerprint: str) -> None:
    """Refuse a run whose stage 1 is of another model than `recipe` describes, or was scored on answers of another kind.

    Args:
        recipe: this run's recipe; `stage1_from` names the other run.
        rows: this run's rows: their labels, and the scale of their numbers.
        fingerprint: this run's base.

    Raises:
        CheckpointError: the other run is not finished, or has no stage 1.
        ConfigError: with the setting, both values and the remedy.
    """
    assert recipe.stage1_from is not None
    folder = Path(recipe.stage1_from)
    _stage1_of(folder)
    other, theirs = load_recipe(folder / "recipe.yaml"), load_config(model_folder(folder))
    for name, (mine, seen) in {**_of_rows(recipe, rows, theirs, fingerprint), **_of_recipes(recipe, other)}.items():
        if mine != seen:
            raise ConfigError(
                f"stage1_from is {folder}, and its {name} is ({seen}), but this recipe's is ({mine}); give both the same, or drop "
                f"stage1_from to train stage 1 here"
            )
    first = other.stages["stage1"]
    if first.router == "gate":
        raise ConfigError(
            f"stage1_from is {folder}, whose stage 1 weighs by its gate (router: gate), and gates begin afresh here; name a run whose "
            f"stages.stage1.router is selector"
        )
    if "backbone" in first.trains and not any("backbone" in stage.trains for stage in recipe.stages.values()):
        raise ConfigError(
            f"stage1_from is {folder}, whose stage 1 trained the backbone, and no stage of this recipe does; add backbone to "
            f"stages.stage1.trains"
        )


def _of_recipes(recipe: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    return {
        "mta.adapter": (recipe.mta.adapter, other.mta.adapter),
        "mta.num_adapters": (recipe.mta.num_adapters, other.mta.num_adapters),
        "mta.sites": (recipe.mta.sites, other.mta.sites),
        "mta.selector": (recipe.mta.selector, other.mta.selector),
        "heads": (recipe.heads, other.heads),
        "peft": (recipe.peft, other.peft),
        "stages.stage1.router": (recipe.stages["stage1"].router, other.stages["stage1"].router),
        "max_length": (recipe.max_length, other.max_length),
        "max_target_length": (recipe.max_target_length, other.max_target_length),
        "prompt_separator": (recipe.prompt_separator, other.prompt_separator),
    }


def _of_rows(recipe: Recipe, rows: Rows, theirs: AlterConfig, fingerprint: str) -> dict[str, tuple[Any, Any]]:
    """Return what a head's outputs mean, and what the stages are compared by: labels, scales, templates, metrics."""
    pairs: dict[str, tuple[Any, Any]] = {
        "base model": (fingerprint, theirs.base.fingerprint),
        "tasks": ([spec.name for spec in rows.specs], [spec.name for spec in theirs.tasks]),
    }
    for mine, seen in zip(rows.specs, theirs.tasks, strict=False):
        for key in [name for name in TaskSpec.model_fields if name not in NOT_SHIPPED]:
            pairs[f"tasks.{mine.name}.{key}"] = (getattr(mine, key), getattr(seen, key))
        if mine.name in rows.scales:
            scale = rows.scales[mine.name]
            pairs[f"mean and deviation of the numbers of {mine.name}"] = ((scale.mean, scale.std), theirs.scales.get(mine.name))
    return pairs
