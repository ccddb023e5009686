"""Recipes without test rows: what a program cannot read, no choice of it can lean on."""

from __future__ import annotations

from alter.recipe import Recipe
from alter.tasks.spec import TaskSpec


def without_test(task: TaskSpec) -> TaskSpec:
    """Return a task whose test rows, in a file or in a hub data set, are not read."""
    if task.source is None:
        return task
    of_hub = [split for split in task.source.splits or ("train", "validation") if split != "test"]
    splits = None if task.source.hub is None else of_hub
    return task.model_copy(update={"source": task.source.model_copy(update={"test": None, "splits": splits})})


def without_test_rows(recipe: Recipe) -> Recipe:
    """Return a recipe with no test source in any task."""
    return recipe.model_copy(update={"tasks": [without_test(task) for task in recipe.tasks]})
