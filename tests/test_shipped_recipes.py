"""Every recipe that ships resolves, and is right about its data where the data is at hand (ALTER_DATA, or shared/data beside us)."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest
from tests.programs import load_program

from alter.comparing.choice import arm_recipe, own_arms
from alter.config import load_yaml
from alter.errors import ConfigError
from alter.presets import PRESETS
from alter.recipe import load_recipe
from alter.tasks.validate import validate_recipe

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
DATA = Path(os.environ.get("ALTER_DATA", ROOT.parent / "shared" / "data"))

each_recipe = pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)


@each_recipe
@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_shipped_recipe_resolves_with_both_presets(
    path: Path, preset: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALTER_DATA", str(tmp_path))
    recipe = load_recipe(path, [f"preset={preset}"])
    assert recipe.name == path.stem
    for task in recipe.tasks:
        assert task.source is not None
        for given in (task.source.train, task.source.validation, task.source.test):
            assert given is None or given.startswith(str(tmp_path.resolve()))


@each_recipe
def test_a_shipped_recipe_says_which_variable_is_not_set(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALTER_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"\$ALTER_DATA, which is not set; export it"):
        load_recipe(path)


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason="the real data sets are not here")
@each_recipe
def test_a_shipped_recipe_fits_its_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTER_DATA", str(DATA))
    report = validate_recipe(load_recipe(path))
    assert report.problems == []
    for summary in report.summaries.values():
        assert summary.rows["train"] >= 500
        assert summary.rows["validation"] >= 180


def test_the_sweeps_name_recipes_and_settings_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALTER_DATA", str(tmp_path))
    sweeps = sorted((ROOT / "benchmarks" / "sweeps").glob("*.yaml"))
    assert sweeps
    for file in sweeps:
        sweep = load_yaml(file)
        for given in sweep["arms"].values():
            arm = given if isinstance(given, dict) else {"set": given}
            assert arm.get("stage1_of", next(iter(sweep["arms"]))) in sweep["arms"]
            load_recipe(ROOT / sweep["recipe"], [*sweep["common"], *arm["set"]])


@pytest.mark.parametrize("file", sorted((ROOT / "benchmarks" / "compare").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_arms_of_the_comparisons_fit_their_recipes(file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALTER_DATA", str(tmp_path))
    recipe = load_recipe(ROOT / "recipes" / file.name)
    for arm in own_arms(load_yaml(file), where=str(file)):
        arm_recipe(recipe, arm, seed=0)


@pytest.fixture
def sweep() -> ModuleType:
    return load_program("sweep.py")


def test_a_sweep_never_sees_test_rows(sweep: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALTER_DATA", str(tmp_path))
    recipe = sweep.without_test_rows(load_recipe(ROOT / "recipes" / "social.yaml"))
    assert len(recipe.tasks) == 7
    assert all(task.source is not None and task.source.test is None and task.source.train for task in recipe.tasks)
