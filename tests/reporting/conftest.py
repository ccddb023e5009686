"""Toy runs of two seeds, one that writes text, and a comparison made of them; tests leave them as they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.recipes import changed, toy, toy_texts
from tests.reporting.folders import write_toy_comparison

from alter.comparison import Comparison
from alter.training.run import train

SETTINGS = {
    "mta": {"selector": {"kind": "selector"}, "gate": {"kind": "task", "over": "all"}},
    "train": {"test_stages": "all"},
    "stages": {"stage1": {"eval_steps": 1}},
}


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Train a toy recipe with two seeds."""
    folder = tmp_path_factory.mktemp("reported")
    recipe = toy(folder / "recipe", settings=SETTINGS)
    return {seed: train(changed(recipe, {"seed": seed}), output_dir=folder / f"run{seed}").folder for seed in (0, 1)}


@pytest.fixture(scope="session")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a toy recipe that writes text."""
    folder = tmp_path_factory.mktemp("reported-texts")
    return train(toy_texts(folder / "recipe"), output_dir=folder / "run").folder


@pytest.fixture(scope="session")
def compared(runs: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Comparison]:
    """Write a comparison around the toy runs."""
    folder = tmp_path_factory.mktemp("compared")
    return folder, write_toy_comparison(folder, runs)
