"""Missing, foreign and damaged models, and places that cannot be written: one message, exit code 2, nothing lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.cli.command import Alter
from tests.tiny import save_tiny


def remove_model(run: Path) -> None:
    shutil.rmtree(run / "model")


def empty(run: Path) -> None:
    shutil.rmtree(run)
    run.mkdir()


def missing(run: Path) -> None:
    shutil.rmtree(run)


def truncate(name: str) -> Callable[[Path], None]:
    def do(run: Path) -> None:
        path = run / "model" / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return do


def delete(name: str) -> Callable[[Path], None]:
    return lambda run: (run / "model" / name).unlink()


def foreign_config(run: Path) -> None:
    (run / "model" / "alter_config.json").write_text('{"model_type": "bert"}')


def unknown_key(run: Path) -> None:
    path = run / "model" / "alter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "tassks": []}))


def other_heads(run: Path) -> None:
    shutil.copy(run / "model" / "gates.safetensors", run / "model" / "heads.safetensors")


def other_base(run: Path) -> None:
    path = run / "model" / "alter_config.json"
    content = json.loads(path.read_text())
    content["base"]["name"] = str(save_tiny(run / "other", seed=5))
    path.write_text(json.dumps(content))


def base_gone(run: Path) -> None:
    path = run / "model" / "alter_config.json"
    content = json.loads(path.read_text())
    content["base"]["name"] = str(run / "gone")
    path.write_text(json.dumps(content))


# case -> what is done to the run, and what the message must say
BROKEN: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no such folder": (missing, ("no such folder; give a run directory or its model/ folder",)),
    "a folder of something else": (empty, ("not a model of alter (alter_config.json is missing)", "give a run directory")),
    "a run that has not finished": (remove_model, ("a run that has not finished", "--resume")),
    "half a config": (truncate("alter_config.json"), ("alter_config.json: cannot be read", "damaged, copy it again")),
    "a foreign config": (foreign_config, ("alter_config.json: format None", "reads format")),
    "an unknown key in the config": (unknown_key, ("alter_config.json: unknown key 'tassks'", "Did you mean 'tasks'?")),
    "half an adapter": (
        truncate("adapters/mood/adapter_model.safetensors"),
        ("adapters/mood/adapter_model.safetensors: not a whole safetensors file", "copy it again"),
    ),
    "no heads": (delete("heads.safetensors"), ("heads.safetensors: no such file", "incomplete, copy it again or train again")),
    "the heads of something else": (other_heads, ("heads.safetensors: does not fit", "copy it again")),
    "another base": (other_base, ("was trained on another", "fingerprint", "Install the base it was trained on")),
    "no base": (base_gone, ("gone: no such folder", "package:NAME")),
}


@pytest.mark.parametrize("case", BROKEN)
@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_a_model_that_cannot_be_used_is_refused(alter: Alter, run: Path, verb: str, case: str) -> None:
    spoil, says = BROKEN[case]
    spoil(run)
    text = ["--text", "good"] if verb == "predict" else []
    told = alter.refuses(verb, run, *text)
    for words in says:
        assert words in told
    outcome = alter(verb, run, *text, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["error"] in ("CheckpointError", "ModelError")


def test_the_folder_of_a_single_adapter_is_recognised(alter: Alter, finished: Path) -> None:
    told = alter.refuses("predict", finished / "model" / "adapters" / "mood", "--text", "good")
    assert "a single PEFT adapter, not a model of alter" in told
    assert "give the folder above adapters/" in told


def test_a_model_without_its_run_needs_a_recipe_to_be_evaluated(alter: Alter, run: Path, toy: Path) -> None:
    model = run.rename(toy / "shipped") / "model"
    (toy / "shipped" / "recipe.yaml").unlink()
    told = alter.refuses("evaluate", model)
    assert "no recipe.yaml beside the model says where the rows are; add --recipe RECIPE.yaml" in told
    alter.works("evaluate", model, "--recipe", toy / "recipe.yaml")


def test_predictions_that_cannot_be_written_are_told(alter: Alter, toy: Path, finished: Path) -> None:
    (toy / "file").write_text("kept")
    told = alter.refuses("predict", finished, "--text", "good", "--output", toy / "file" / "out.jsonl")
    assert f"{toy / 'file' / 'out.jsonl'}: predictions cannot be written" in told
    assert "choose another --output" in told
    told = alter.refuses("evaluate", finished, "--predictions-dir", toy / "file")
    assert "predictions cannot be written" in told
    assert "choose another folder" in told
    assert (toy / "file").read_text() == "kept"
