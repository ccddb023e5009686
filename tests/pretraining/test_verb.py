"""`alter pretrain` as users call it."""

from __future__ import annotations

import json
import sys
import typing
from pathlib import Path

import pydantic
import pytest
import yaml
from tests.cli.command import Alter, another_writer
from tests.pretraining.conftest import recipe_of

from alter.pretraining.recipe import PretrainRecipe, load_pretrain_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "pretrain").glob("*.yaml"))


def test_a_run_shows_its_losses_and_where_the_model_is(alter: Alter, tmp_path: Path) -> None:
    outcome = alter.works("pretrain", recipe_of(tmp_path), "train.max_steps=2", "--output-dir", tmp_path / "run")
    assert "tiny: t5 from scratch" in outcome.err
    assert "held-out loss" in outcome.err
    assert "bits per character" in outcome.out
    assert f"model: {tmp_path / 'run' / 'model'}" in outcome.out
    assert (tmp_path / "run" / "model" / "config.json").is_file()


def test_with_json_it_prints_its_results_and_a_finished_run_is_only_shown(alter: Alter, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    outcome = alter.works("pretrain", recipe, "--output-dir", tmp_path / "run", "--json")
    assert outcome.json == json.loads((tmp_path / "run" / "results.json").read_text(encoding="utf-8"))
    again = alter.works("pretrain", recipe, "--output-dir", tmp_path / "run", "--resume", "--json")
    assert again.json == outcome.json


def test_a_run_directory_is_looked_after(alter: Alter, tmp_path: Path) -> None:
    recipe, run = recipe_of(tmp_path), tmp_path / "run"
    assert "nothing to resume" in alter.refuses("pretrain", recipe, "--output-dir", run, "--resume")
    alter.works("pretrain", recipe, "--output-dir", run)
    assert "holds a finished run; choose another --output-dir, or delete it first" in alter.refuses(
        "pretrain", recipe, "--output-dir", run
    )
    assert "other settings" in alter.refuses("pretrain", recipe, "seed=4", "--output-dir", run, "--resume")
    with another_writer(tmp_path / "busy"):
        assert "another process" in alter.refuses("pretrain", recipe, "--output-dir", tmp_path / "busy")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.max_steps=null"], "give max_steps, max_seconds or both"),
        (["train.learning_rat=1"], "unknown key 'train.learning_rat'; "),
        (["model=null"], "give one of model_name_or_path, model and encoder_decoder"),
        (["model_name_or_path=x"], "give one of model_name_or_path, model and encoder_decoder"),
        (["tokenizer=null"], "needs a tokenizer"),
        (["model=null", "model_name_or_path=x"], "brings its own tokenizer"),
        (["tokenizer.path=x"], "give either path"),
        (["source.validation=[]"], "source.validation"),
        (["source.train=$NO_SUCH_VARIABLE/a.txt"], "$NO_SUCH_VARIABLE, which is not set"),
        (["source.train=none.txt"], "no such text file"),
        (["model.architecture=t6"], "Did you mean 't5'"),
        (["noise_density=1"], "noise_density"),
    ],
)
def test_what_is_wrong_is_one_message_and_exit_code_2(alter: Alter, tmp_path: Path, overrides: list[str], message: str) -> None:
    told = alter.refuses("pretrain", recipe_of(tmp_path), *overrides, "--output-dir", tmp_path / "run")
    assert message in told


def test_without_a_run_directory_nothing_happens(alter: Alter, tmp_path: Path) -> None:
    assert "--output-dir runs/tiny" in alter.refuses("pretrain", recipe_of(tmp_path))


def test_an_objective_that_does_not_fit_is_told_before_anything_is_loaded(alter: Alter, tmp_path: Path) -> None:
    path = recipe_of(tmp_path)
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    content["encoder_decoder"] = {"encoder": "x", "decoder": content.pop("model")}
    path.write_text(yaml.safe_dump({**content, "objective": "next_token"}), encoding="utf-8")
    assert "encoder_decoder learns span_corruption" in alter.refuses("pretrain", path, "--output-dir", tmp_path / "run")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_shipped_recipe_resolves(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALTER_DATA", str(tmp_path))
    recipe = load_pretrain_recipe(path)
    assert recipe.name == path.stem
    assert all(given.startswith(str(tmp_path)) for given in [*recipe.source.train, *recipe.source.validation])


def test_the_recipe_needs_no_torch(tmp_path: Path) -> None:
    import subprocess

    code = "import sys, alter.pretraining.recipe; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60, env={"PYTHONPATH": str(ROOT / "src")})


def settings_in(annotation: object) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, pydantic.BaseModel) else []
    return [found for argument in typing.get_args(annotation) for found in settings_in(argument)]


def test_every_key_of_a_recipe_explains_itself() -> None:
    def check(kind: type[pydantic.BaseModel]) -> None:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name}"
            for inner in settings_in(field.annotation):
                check(inner)

    check(PretrainRecipe)
