"""What a run says of its rows before it trains on them, and of its gates afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alter.data.encode import Features
from alter.errors import counted
from alter.recipe import Recipe
from alter.tasks.validate import labels_without_validation, settings_without_effect
from alter.training.prepare import Rows


def about_rows(recipe: Recipe, rows: Rows) -> list[str]:
    """Return what `alter validate` warns of too, on the rows that this run uses: caps leave some out."""
    train, validation = rows.splits["train"], rows.splits["validation"]
    found = [labels_without_validation(spec, train[spec.name], validation[spec.name]) for spec in rows.specs]
    return settings_without_effect(recipe) + [warning for warnings in found for warning in warnings]


NO_WEIGHT = 1e-3
"""Shared adapters that no task gives more weight than this take no part, and get next to no gradient."""


def about_shared(recipe: Recipe, stage: str, weights_TLE: Sequence[Sequence[Sequence[float]]]) -> list[str]:
    """Return a warning where a stage trained shared adapters and its gate shut them off, on every task and at every site."""
    settings, num_shared = recipe.stages[stage], recipe.mta.num_shared
    if settings.router != "gate" or not {"gate", "shared_adapters"} <= set(settings.trains) or num_shared == 0:
        return []
    weights = [abs(weight) for task in weights_TLE for site in task for weight in site[-num_shared:]]
    if not weights or not all(weight <= NO_WEIGHT for weight in weights):  # so that NaN is not said to be nothing
        return []
    most = max(weights)
    return [
        f"{stage}: the gate gives shared adapters a weight of {most:.5f} at most, on all tasks and sites: they take no part, and learned "
        f"next to nothing. Give the epochs to stage 1 (stages.stage2: null), or, where the gate's rate is too high for what it reads, "
        f"lower stages.{stage}.learning_rates.gate ({settings.learning_rates.gate:g})"
    ]


def about_cuts(recipe: Recipe, rows: Mapping[str, Sequence[Features]]) -> list[str]:
    """Return a warning for each task with training rows, or targets, that are longer than the recipe allows."""
    warnings = []
    for task, features in rows.items():
        of_rows = f"of {counted(len(features), 'training row')} of task '{task}'"
        if number := sum(row.truncated for row in features):
            are, were = _verbs(number)
            warnings.append(
                f"{number} {of_rows} {are} longer than max_length={recipe.max_length} tokens and {were} cut; raise max_length"
            )
        if number := sum(row.target_truncated for row in features):
            targets = "target of 1" if number == 1 else f"targets of {number}"
            are, were = _verbs(number)
            warnings.append(
                f"the {targets} {of_rows} {are} longer than max_target_length={recipe.max_target_length} tokens and {were} cut; raise "
                f"max_target_length"
            )
    return warnings


def _verbs(number: int) -> tuple[str, str]:
    return ("is", "was") if number == 1 else ("are", "were")
