"""One small finished comparison for all tests that look at one; it is copied to be gone on with."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.recipes import toy

from alter.comparing.choice import own_arms
from alter.comparing.run import compare
from alter.comparison import Comparison
from alter.recipe import Recipe

ASKED = [
    "majority",
    "untrained",
    "single-full",
    "single-lora",
    "multi-full",
    "shared-lora",
    "alter-lite",
    "stage2-alone",
    "gate-uniform",
    "adamix",
    "hyperformer",
    "zeroed-shared",
    "no-task",
    "hot",
]
HOT = {
    "hot": {
        "stages": {
            "stage1": {"max_steps": 40, "lr_scheduler_type": "constant", "learning_rates": {"adapters": 1e30}},
            "stage2": None,
        }
    }
}


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A finished comparison of a classification and a regression, and what was told of it."""

    folder: Path
    recipe: Recipe
    result: Comparison
    told: list[str]


@pytest.fixture(scope="package")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Compared:
    folder = tmp_path_factory.mktemp("compared")
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 2}}}
    recipe = toy(folder / "toy", tasks=["mood", "stars"], settings=settings)
    told: list[str] = []
    result = compare(recipe, output_dir=folder / "out", arms=ASKED, own=own_arms(HOT, where="arms.yaml"), told=told.append)
    return Compared(folder=folder / "out", recipe=recipe, result=result, told=told)


@pytest.fixture
def copied(compared: Compared, tmp_path: Path) -> Path:
    """Copy the finished comparison to another place."""
    return Path(shutil.copytree(compared.folder, tmp_path / "elsewhere"))
