"""Recipes to compare, and the arms of one; words only, nothing is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alter.comparing.arms import ARMS
from alter.comparing.choice import arm_recipe
from alter.config import merge
from alter.recipe import Recipe, resolve_recipe

NAMES = ("mood", "topic", "stars", "reply")
ARM = {arm.name: arm for arm in ARMS}
OTHER = {"alter": "alter-lite", "alter-lite": "alter"}


def resolve(settings: Mapping[str, Any] | None = None, *, preset: str = "alter-lite", tasks: tuple[str, ...] = NAMES) -> Recipe:
    blocks = [
        {"name": name, "kind": "regression" if name == "stars" else "classification", "source": {"train": f"{name}.jsonl"}}
        for name in tasks
    ]
    given = {"model_name_or_path": "some/model", "preset": preset, "tasks": blocks}
    return resolve_recipe(merge(given, settings or {}), folder=Path("/data"), where="r.yaml", name="toy")


def of(name: str, recipe: Recipe, **settings: Any) -> Recipe:
    return arm_recipe(recipe, ARM[name], seed=3, **settings)
