"""A toy recipe folder and a finished toy run for every test of the command line; copies are cheap, training is not."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
from tests.cli.command import Alter
from tests.recipes import StopAt, StopError, write_recipe

TASKS = ("mood", "stars")


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give tables room, and keep the hub's client from a network that may not be there."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def alter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alter:
    return Alter(monkeypatch, capsys)


@pytest.fixture(scope="session")
def toy_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a recipe folder with a finished run in `run` and an unfinished one in `stopped`; tests leave it as it is."""
    from alter.recipe import load_recipe
    from alter.training.run import train

    folder = tmp_path_factory.mktemp("toy")
    recipe = load_recipe(
        write_recipe(folder, tasks=TASKS, settings={"train": {"save_steps": 1}, "stages": {"stage1": {"eval_steps": 1}}})
    )
    train(recipe, output_dir=folder / "run")
    with pytest.raises(StopError):
        train(recipe, output_dir=folder / "stopped", observer=StopAt(2))
    return folder


@pytest.fixture
def toy(toy_template: Path, tmp_path: Path) -> Path:
    """Copy the recipe folder's recipe.yaml and rows; the base is shared."""
    for path in toy_template.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path / path.name)
    return tmp_path


@pytest.fixture(scope="session")
def finished(toy_template: Path) -> Path:
    """Return a finished run that tests leave as it is."""
    return toy_template / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """Copy the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def stopped(toy_template: Path, tmp_path: Path) -> Path:
    """Copy the unfinished run."""
    return Path(shutil.copytree(toy_template / "stopped", tmp_path / "stopped"))
