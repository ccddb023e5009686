"""Wrong settings, names and arguments: the message has the key, the value, what is allowed and the nearest right one."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from tests.cli.command import VERBS, Alter

# override -> what the message must say
OVERRIDES = {
    "sed=1": ("unknown key 'sed'", "Did you mean 'seed'?"),
    "train.logging_step=1": ("unknown key 'train.logging_step'", "Did you mean 'logging_steps'?"),
    "stages.stage1.learning_rates.head=1": ("unknown key 'stages.stage1.learning_rates.head'", "Did you mean 'heads'?"),
    "train.evals_per_epoch=2": ("unknown key 'train.evals_per_epoch'", "Did you mean 'stages.<stage>.evals_per_epoch'?"),
    "tasks.mood.seed=1": ("unknown key 'tasks.mood.seed'", "Did you mean 'seed' at the top?"),
    "epochs=3": ("unknown key 'epochs'", "Did you mean 'stages.<stage>.num_train_epochs'?"),
    "seed": ("'seed' is no override; write key.path=value",),
    "seed=-1": ("seed", "greater than or equal to 0", "-1"),
    "seed=many": ("seed", "valid integer", "'many'"),
    "preset=alter-light": ("unknown preset 'alter-light'", "allowed: alter, alter-lite", "Did you mean 'alter-lite'?"),
    "mta.adapter.kind=lorra": (
        "unknown adapter kind 'lorra'",
        "allowed: bottleneck, ffn_clone, lora, merged",
        "Did you mean 'lora'?",
    ),
    "mta.gate.kind=linaer": ("unknown gate kind 'linaer'", "allowed: adamix, linear, one_hot", "Did you mean 'linear'?"),
    "mta.sites=evry-2": ("mta.sites", "every-K", "'evry-2'"),
    "tasks.mood.metrics=[f1_marco]": ("unknown metric 'f1_marco'", "allowed: accuracy, bleu", "Did you mean 'f1_macro'?"),
    "tasks.moood.cap=3": ("moood", "Did you mean 'mood'?"),
    "tasks.mood.kind=klassification": ("tasks.mood.kind", "'classification', 'regression' or 'generation'", "'klassification'"),
    "mixture.kind=weights": ("mixture.kind is weights", "mood", "no weight"),
    "stages.stage1.max_steps=[": ("stages.stage1.max_steps=[", "not valid YAML"),
}


@pytest.mark.parametrize("override", OVERRIDES)
@pytest.mark.parametrize("verb", ["validate", "train", "train --print-config"])
def test_a_wrong_override_is_refused(alter: Alter, toy: Path, verb: str, override: str) -> None:
    name, *flags = verb.split()
    place = ["-o", toy / "new"] if name == "train" else []
    told = alter.refuses(name, toy / "recipe.yaml", override, *flags, *place)
    for words in OVERRIDES[override]:
        assert words in told
    assert not (toy / "new").exists()


@pytest.mark.parametrize("override", ["sed=1", "preset=alter-light", "mta.adapter.kind=lorra", "seed"])
def test_a_wrong_override_of_the_demo_is_refused(alter: Alter, tmp_path: Path, override: str) -> None:
    told = alter.refuses("demo", "-o", tmp_path / "demo", "--set", override)
    for words in OVERRIDES[override]:
        assert words in told
    assert not (tmp_path / "demo").exists()


RECIPES: dict[str, tuple[bytes | None, tuple[str, ...]]] = {
    "missing": (None, ("no such file", "give the path of a YAML file")),
    "empty": (b"", ("holds nothing", "a recipe is a mapping")),
    "a list": (b"- a\n- b\n", ("holds a list", "a recipe is a mapping")),
    "no YAML": (b"name: [toy\n", ("not valid YAML", "line 2")),
    "not UTF-8": (b"name: gr\xfc\xdfe\n", ("not UTF-8", "save it as UTF-8")),
    "no tasks": (b"name: toy\nmodel_name_or_path: base\n", ("tasks must be a list of at least one task",)),
    "unknown key": (
        b"modle_name_or_path: base\ntasks: [{name: a, source: {train: a.jsonl}}]\n",
        ("unknown key 'modle_name_or_path'", "Did you mean 'model_name_or_path'?"),
    ),
    "unknown key of a task": (
        b"model_name_or_path: base\ntasks: [{name: a, labls: [x, y], source: {train: a.jsonl}}]\n",
        ("unknown key 'tasks.a.labls'", "Did you mean 'labels'?"),
    ),
}


@pytest.mark.parametrize("case", RECIPES)
@pytest.mark.parametrize("verb", ["validate", "train", "evaluate"])
def test_a_wrong_recipe_is_refused_with_its_path(alter: Alter, toy: Path, finished: Path, verb: str, case: str) -> None:
    content, says = RECIPES[case]
    path = toy / "wrong.yaml"
    if content is not None:
        path.write_bytes(content)
    arguments = {"validate": [path], "train": [path, "-o", toy / "new"], "evaluate": [finished, "--recipe", path]}[verb]
    told = alter.refuses(verb, *arguments)
    for words in (f"error: {path}: ", *says):
        assert words in told


BASES: dict[str, tuple[str, ...]] = {
    "./no-such-folder": ("no such folder", "config.json and model.safetensors", "package:NAME"),
    "nobody/no-such-model": ("no such folder here", "the hub does not give it", "check the spelling"),
    "package:no_such_package": ("the package is not installed", "installed packages that carry a model: "),
    "package:yaml": ("carries no model", "name another package, a local folder or a hub id"),
}


@pytest.mark.parametrize("base", BASES)
def test_an_unknown_base_is_refused_by_train(alter: Alter, toy: Path, base: str) -> None:
    told = alter.refuses("train", toy / "recipe.yaml", f"model_name_or_path={base}", "-o", toy / "new")
    for words in (f"error: {base}", *BASES[base]):
        assert words in told


def test_an_unknown_base_is_refused_by_the_demo(alter: Alter, tmp_path: Path) -> None:
    told = alter.refuses("demo", "-o", tmp_path / "demo", "--set", "model_name_or_path=package:no_such_package")
    assert "package:no_such_package: the package is not installed; installed packages that carry a model: " in told


def test_a_longer_input_than_the_base_has_positions_for_is_refused(alter: Alter, toy: Path) -> None:
    told = alter.refuses("train", toy / "recipe.yaml", "max_length=4000", "-o", toy / "new")
    assert "max_length is 4000, but this base model has 160 positions; set max_length: 160" in told


def test_a_task_without_validation_rows_is_refused_before_training(alter: Alter, toy: Path) -> None:
    recipe = yaml.safe_load((toy / "recipe.yaml").read_text())
    del recipe["tasks"][0]["source"]["validation"]
    (toy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = alter.refuses("train", toy / "recipe.yaml", "-o", toy / "new")
    assert "task 'mood' has no validation rows; name a file under source.validation" in told


def test_train_without_a_run_directory_says_what_to_add(alter: Alter, toy: Path) -> None:
    told = alter.refuses("train", toy / "recipe.yaml")
    assert "no run directory is given; add one, e.g. --output-dir runs/toy" in told


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_unknown_task_gets_the_nearest_name(alter: Alter, finished: Path, verb: str) -> None:
    text = ["--text", "good"] if verb == "predict" else []
    told = alter.refuses(verb, finished, "--task", "moood", *text)
    assert "this model has no task 'moood'; allowed: mood, stars. Did you mean 'mood'?" in told


def test_an_unknown_split_gets_the_nearest_name(alter: Alter, finished: Path) -> None:
    told = alter.refuses("evaluate", finished, "--split", "tests")
    assert "unknown split 'tests'; allowed: test, train, validation. Did you mean 'test'?" in told


def test_a_split_without_rows_is_told(alter: Alter, toy: Path, finished: Path) -> None:
    recipe = yaml.safe_load((toy / "recipe.yaml").read_text())
    for task in recipe["tasks"]:
        del task["source"]["test"]
    (toy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    told = alter.refuses("evaluate", finished, "--recipe", toy / "recipe.yaml")
    assert "the recipe names no test rows for mood, stars; add source.test to it, or add --split validation, of which it" in told
    alter.works("evaluate", finished, "--recipe", toy / "recipe.yaml", "--split", "validation")
    told = alter.refuses("evaluate", finished, "--recipe", toy / "recipe.yaml", "--task", "mood")
    assert "names no test rows for mood; add source.test" in told


def test_a_split_is_offered_only_where_the_recipe_has_it(alter: Alter, toy: Path, finished: Path) -> None:
    recipe = yaml.safe_load((toy / "recipe.yaml").read_text())
    for task in recipe["tasks"]:
        del task["source"]["test"], task["source"]["validation"]
    (toy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert "add source.test to it\n" in alter("evaluate", finished, "--recipe", toy / "recipe.yaml").err


def test_a_recipe_that_lacks_a_task_of_the_model_is_refused(alter: Alter, toy: Path, finished: Path) -> None:
    (toy / "recipe.yaml").write_text((toy / "recipe.yaml").read_text().replace("name: stars", "name: star"))
    told = alter.refuses("evaluate", finished, "--recipe", toy / "recipe.yaml")
    assert "the recipe has no task 'stars', which the model was trained on; allowed: mood, star. Did you mean 'star'?" in told


def test_predict_without_input_says_how_to_give_it(alter: Alter, finished: Path) -> None:
    for given in ([], ["--text", "good", "--input", "in.txt"]):
        told = alter.refuses("predict", finished, *given)
        assert "give what to answer for: either --text '...' or --input FILE" in told


def test_an_unknown_kind_to_list_gets_the_nearest_name(alter: Alter) -> None:
    told = alter.refuses("list", "adapter")
    assert (
        "nothing of kind 'adapter' to list; allowed: adapters, baselines, families, gates, methods, metrics, penalties, presets."
        in told
    )
    assert "Did you mean 'adapters'?" in told


@pytest.mark.parametrize("verb", VERBS)
def test_an_unknown_option_is_told_as_text_or_as_json(alter: Alter, verb: str) -> None:
    assert "No such option: --nonsense" in alter.refuses(verb, "--nonsense")
    outcome = alter(verb, "--nonsense", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["error"] == "UsageError"
    assert outcome.error["message"].startswith("No such option: --nonsense")


def test_an_unknown_verb_is_told(alter: Alter) -> None:
    assert "No such command 'trian'" in alter.refuses("trian")


def test_an_option_out_of_range_is_told(alter: Alter, finished: Path) -> None:
    told = alter.refuses("evaluate", finished, "--batch-size", "0")
    assert "'--batch-size'" in told
    assert "Usage: alter evaluate" in told
    assert "1" in told.split("Invalid value")[1]
