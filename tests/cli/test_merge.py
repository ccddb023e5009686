"""`alter merge` as it is typed: what it prints, its JSON, and one message with exit code 2 for every mistake."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from tests.cli.command import Alter
from tests.merging.models import save_part, save_stock
from tests.tiny import save_tiny

LORA = {"adapter": {"kind": "lora", "r": 4}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of plain models (base, plain-1, plain-2) and models of alter (one, two); tests leave it as it is."""
    folder = tmp_path_factory.mktemp("models")
    save_stock(folder / "base")
    for seed in (1, 2):
        save_stock(folder / f"plain-{seed}", seed=seed)
    backbone = save_tiny(folder / "encoder")
    save_part(folder / "one" / "model", backbone, ["mood", "stars"], mta=LORA, seed=1)
    save_part(folder / "two", backbone, ["topic"], mta=LORA, seed=2)
    return folder


def test_plain_folders_are_merged_and_lengths_told(alter: Alter, folder: Path, tmp_path: Path) -> None:
    models = [folder / "plain-1", folder / "plain-2"]
    out = tmp_path / "out"
    told = alter.works("merge", *models, "--method", "ties", "--set", "density=0.3", "--base", folder / "base", "-o", out).out
    assert "method: ties (density 0.3, scale 1.0)" in told
    assert str(models[0]) in told
    assert f"model: {out} (a plain folder, as transformers writes it: a base model for alter train)" in told
    assert f"next:  alter train RECIPE model_name_or_path={out} --output-dir RUN" in told
    assert "alter predict" not in told
    assert "length of its task vector, of the base's" in told
    assert (out / "model.safetensors").is_file()


def test_json_says_what_was_done(alter: Alter, folder: Path, tmp_path: Path) -> None:
    found = alter.works("merge", folder / "one", folder / "two", "-o", tmp_path / "out", "--json").json
    assert found == {
        "folder": str(tmp_path / "out"),
        "kind": "model",
        "models": [str(folder / "one"), str(folder / "two")],
        "method": None,
        "settings": {},
        "tasks": ["mood", "stars", "topic"],
        "lengths": {},
        "relative_error": None,
    }


def test_the_merged_model_is_used_as_any_other(alter: Alter, folder: Path, tmp_path: Path) -> None:
    told = alter.works("merge", folder / "one", folder / "two", "-o", tmp_path / "out").out
    assert f"model: {tmp_path / 'out'} (a model directory: alter predict, evaluate and merge read it)" in told
    assert f"next:  alter predict {tmp_path / 'out'} --task mood" in told
    assert f"alter evaluate {tmp_path / 'out'} --recipe RECIPE --split validation" in told
    lines = alter.works("predict", tmp_path / "out", "--text", "good", "--json").json_lines
    assert [line["task"] for line in lines] == ["mood", "stars", "topic"]


def test_one_adapter_of_all_tells_its_error(alter: Alter, folder: Path, tmp_path: Path) -> None:
    arguments = ("--adapters", "merge", "--method", "metagpt", "--rank", "3")
    told = alter.works("merge", folder / "one", folder / "two", *arguments, "-o", tmp_path / "out").out
    assert "relative error of the cut to the adapter's rank: 0." in told
    assert "(length of what does not fit into --rank over the length of the whole merged change: 0 loses nothing" in told
    assert "tasks: mood, stars, topic" in told
    assert "length of its task vector" in told


# arguments after the models -> what the message must say
MISTAKES: dict[str, tuple[list[str], list[str], str]] = {
    "one model": (["two"], [], "two is the only model, and there is nothing to merge it with; give at least two models"),
    "one plain model": (["plain-1"], ["--method", "average"], "plain-1 is the only model"),
    "the same model twice": (["two", "one", "two"], [], "two: is given twice; give each model once"),
    "a run and its model": (["one", "one/model"], [], "one/model: is given twice"),
    "two kinds": (["one", "plain-1"], [], "one is a model of alter, and"),
    "an unknown method": (["one", "two"], ["--method", "tie"], "unknown merge method 'tie'; allowed: average, dare, "),
    "an unknown setting": (
        ["plain-1", "plain-2"],
        ["--method", "ties", "--set", "densty=0.3"],
        "merge method 'ties': unknown key 'densty'; allowed: density, scale. Did you mean 'density'?",
    ),
    "an impossible value": (
        ["plain-1", "plain-2"],
        ["--method", "ties", "--set", "density=2"],
        "density: Input should be less than",
    ),
    "no setting": (
        ["plain-1", "plain-2"],
        ["--method", "ties", "--set", "density"],
        "--set density: is no setting; write KEY=VALUE",
    ),
    "no YAML": (["plain-1", "plain-2"], ["--method", "ties", "--set", "density=["], "the value is not valid YAML"),
    "settings of no method": (["one", "two"], ["--set", "density=0.3"], "are given without a merge method; add --method"),
    "no method": (["plain-1", "plain-2"], [], "no merge method is given; add --method, one of average, dare"),
    "nothing for the method to do": (["one", "two"], ["--method", "ties"], "--method ties has nothing to do"),
    "no base": (["plain-1", "plain-2"], ["--method", "ties"], "add --base BASE"),
    "no such model": (
        ["one", "gone"],
        [],
        "gone: no such folder; give a plain model folder, a run directory or its model/ folder",
    ),
    "no statistics": (["plain-1", "plain-2"], ["--method", "fisher"], "fisher needs the diagonal of the Fisher information"),
    "statistics that are not there": (
        ["plain-1", "plain-2"],
        ["--method", "fisher", "--statistics", "gone.safetensors"],
        "gone.safetensors: no such file; give a .safetensors file of statistics",
    ),
    "a rank that nobody reads": (["one", "two"], ["--rank", "3"], "--rank is 3, and only --adapters merge reads it"),
    "adapters of plain models": (
        ["plain-1", "plain-2"],
        ["--method", "ties", "--adapters", "merge"],
        "--adapters merge is for models of alter, and",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_message_and_writes_nothing(alter: Alter, folder: Path, tmp_path: Path, case: str) -> None:
    models, options, says = MISTAKES[case]
    arguments = ["merge", *(folder / model for model in models), *options, "-o", tmp_path / "out"]
    told = alter.refuses(*arguments)
    assert says in told
    assert told.count("error:") == 1
    outcome = alter(*arguments, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["error"] in ("ConfigError", "PluginError", "CheckpointError")
    assert list(tmp_path.iterdir()) == []


def test_a_pretraining_run_is_told_where_its_model_is(alter: Alter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run" / "model").mkdir(parents=True)
    for path in (tmp_path / "run" / "recipe.yaml", tmp_path / "run" / "model" / "config.json"):
        path.write_text("{}")
    told = alter.refuses("merge", folder / "plain-1", tmp_path / "run", "--method", "average", "-o", tmp_path / "out")
    assert f"run: a run whose model is a plain folder in it; give {tmp_path / 'run' / 'model'}" in told


def test_an_output_that_is_there_is_never_overwritten(alter: Alter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    told = alter.refuses("merge", folder / "one", folder / "two", "-o", tmp_path / "out")
    assert f"{tmp_path / 'out'}: is there already; choose another --output-dir, or remove it first" in told
    assert (tmp_path / "out" / "mine").read_text() == "mine"


def test_a_place_for_the_output_is_asked_for(alter: Alter, folder: Path) -> None:
    assert "no place for the merged model is given; add one" in alter.refuses("merge", folder / "one", folder / "two")


def test_a_run_that_has_not_finished_is_told(alter: Alter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.yaml").write_text("name: x\n")
    told = alter.refuses("merge", folder / "one", tmp_path / "run", "-o", tmp_path / "out")
    assert "run: a run that has not finished (no model/ in it); go on with: alter train RECIPE --output-dir" in told


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_place_that_cannot_be_written(alter: Alter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    told = alter.refuses("merge", folder / "one", folder / "two", "-o", tmp_path / "locked" / "out")
    assert "locked/out: cannot be written" in told


def test_an_output_below_a_file_cannot_be_written(alter: Alter, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    told = alter.refuses("merge", folder / "one", folder / "two", "-o", tmp_path / "file" / "out")
    assert "file/out: cannot be written" in told
    assert told.endswith("check the folder's permissions, then run the command again")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_damaged_config_is_told_with_its_file(alter: Alter, folder: Path, tmp_path: Path) -> None:
    two = shutil.copytree(folder / "two", tmp_path / "two")
    content = json.loads((two / "alter_config.json").read_text())
    (two / "alter_config.json").write_text(json.dumps({**content, "tassks": []}))
    told = alter.refuses("merge", folder / "one", two, "-o", tmp_path / "out")
    assert "two/alter_config.json: unknown key 'tassks'" in told
