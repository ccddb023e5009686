"""Runs with a method of peft: trained, written, read and gone on with as any run, and read by peft itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.nn.equipped import IDS_BS, MASK_BS
from tests.peers.given import METHODS, write_loras
from tests.recipes import StopAt, StopError, changed, journal, toy, toy_texts, weights

import alter
from alter.backbones._load import load_base
from alter.checkpoint import load_model
from alter.errors import CheckpointError, ConfigError
from alter.recipe import Recipe
from alter.score import evaluate_model
from alter.training.run import Run, train

# peft 0.21 still asks transformers 5.23 for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

ONE_STAGE = {"mta": {"sites": "none"}, "stages": {"stage1": {"max_steps": 4, "eval_steps": 2}, "stage2": None}}
BLOCKS: dict[str, dict[str, Any]] = {
    **METHODS,
    "ia3": {"peft_type": "IA3", "target_modules": ["key", "value", "output.dense"], "feedforward_modules": ["output.dense"]},
}


def recipe_in(folder: Path, block: dict[str, Any], name: str = "bert", **settings: Any) -> Recipe:
    given = {**ONE_STAGE, "peft": block, **settings}
    return toy(folder, tasks=["mood", "stars"], settings=given) if name == "bert" else toy_texts(folder, name, settings=given)


def gate_stage() -> dict[str, Any]:
    return {"stages": {"stage1": {"router": "gate", "trains": ["gate", "heads"], "max_steps": 3}, "stage2": None}}


@pytest.mark.parametrize("method", BLOCKS)
def test_what_was_trained_is_what_is_read(method: str, tmp_path: Path) -> None:
    run = train(recipe_in(tmp_path / "toy", BLOCKS[method]), output_dir=tmp_path / "run")
    check_files_and_scores(run, tmp_path)
    assert run.results.parameters["task_adapters"] == run.results.stages["stage1"].trainable_parameters - (
        run.results.parameters["heads"] + run.results.parameters["selector"]
    )


@pytest.mark.parametrize(
    ("method", "name"), [("lora", "t5"), ("poly", "t5"), ("lora", "gpt2"), ("poly", "llama"), ("oft", "llama")]
)
def test_models_that_write_are_read_as_they_were_trained(method: str, name: str, tmp_path: Path) -> None:
    check_files_and_scores(train(recipe_in(tmp_path / "toy", BLOCKS[method], name), output_dir=tmp_path / "run"), tmp_path)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_xlora_takes_its_loras_along(name: str, tmp_path: Path) -> None:
    block = {"peft_type": "XLORA", "adapters": write_loras(tmp_path / "loras", name)}
    recipe = recipe_in(tmp_path / "toy", block, name, **gate_stage())
    run = train(recipe, output_dir=tmp_path / "run")
    shutil.rmtree(tmp_path / "loras")
    check_files_and_scores(run, tmp_path)
    model = tmp_path / "run" / "model"
    assert {path.name for path in (model / "experts").iterdir()} == {"t0.x", "t1.x", "t2.x"}
    assert (model / "adapters/peft/adapter_model.safetensors").exists()
    told = [path for path in model.rglob("*") if path.is_file() and str(tmp_path / "loras").encode() in path.read_bytes()]
    assert not told, "what ships must not tell of the folders that it was trained from"


def check_files_and_scores(run: Run, folder: Path) -> None:
    model = run.folder / "model"
    told = json.loads((model / "adapters/peft/adapter_config.json").read_text(encoding="utf-8"))
    assert told["peft_type"] == json.loads((model / "alter_config.json").read_text(encoding="utf-8"))["peft"]["peft_type"]
    assert not {"mood", "shared"} & {path.name for path in (model / "adapters").iterdir()}
    for split in ("validation", "test"):
        found = evaluate_model(run.folder, split=split)
        assert found == run.results.splits[split]
    copied = shutil.copytree(model, folder / "elsewhere")
    task = run.results.rows and next(iter(run.results.rows))
    here, there = (alter.load(path).predict(task, ["the card is late", "good"]) for path in (run.folder, copied))
    assert here == there
    card = (model / "README.md").read_text(encoding="utf-8")
    assert f"- {told['peft_type'].lower()}" in card
    assert "of the library peft" in card


def test_peft_itself_reads_the_lora(tmp_path: Path) -> None:
    run = train(recipe_in(tmp_path / "toy", METHODS["lora"]), output_dir=tmp_path / "run")
    base, _ = load_base(str(tmp_path / "toy" / "base"))
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "run" / "model" / "adapters" / "peft").eval()
    mine = load_model(run.folder).model
    with torch.no_grad():
        ours = mine(IDS_BS, MASK_BS, task_ids=torch.zeros(5, dtype=torch.long)).last_hidden_state
        torch.testing.assert_close(theirs(IDS_BS, MASK_BS).last_hidden_state, ours, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["lora", "poly"])
def test_a_run_that_was_broken_off_goes_on_as_if_it_had_not_been(method: str, tmp_path: Path) -> None:
    """Poly draws its weights in training, and LoRA drops what it reads: both go on with the same draws."""
    block = {**METHODS[method], **({"lora_dropout": 0.2} if method == "lora" else {})}
    recipe = recipe_in(tmp_path / "toy", block, heads={"dropout": 0.3}, train={"save_steps": 1, "logging_steps": 1})
    whole = train(recipe, output_dir=tmp_path / "whole")
    with pytest.raises(StopError):
        train(recipe, output_dir=tmp_path / "parts", observer=StopAt(2))
    parts = train(recipe, output_dir=tmp_path / "parts", resume=True)
    assert journal(parts) == journal(whole)
    assert weights(parts) == weights(whole)
    assert parts.results.splits == whole.results.splits


def test_rates_of_the_groups_apply(tmp_path: Path) -> None:
    rates = {"adapters": 0.5, "selector": 0.25, "heads": 0.125}
    stage = {"max_steps": 1, "learning_rates": rates, "warmup_ratio": 0, "lr_scheduler_type": "constant"}
    recipe = recipe_in(tmp_path / "toy", METHODS["poly"], stages={"stage1": stage, "stage2": None})
    run = train(recipe, output_dir=tmp_path / "run")
    [step] = [line for line in journal(run) if line["event"] == "step"]
    assert step["learning_rates"] == {"task_adapters": 0.5, "selector": 0.25, "heads": 0.125}


def test_the_backbone_may_be_trained_beside(tmp_path: Path) -> None:
    stage = {"max_steps": 2, "trains": ["task_adapters", "backbone", "heads"]}
    run = train(
        recipe_in(tmp_path / "toy", METHODS["lora"], stages={"stage1": stage, "stage2": None}), output_dir=tmp_path / "run"
    )
    assert (tmp_path / "run" / "model" / "backbone.safetensors").exists()
    assert evaluate_model(run.folder) == run.results.splits["test"]


@pytest.mark.parametrize("method", ["lora", "poly", "xlora"])
def test_half_precision_trains(method: str, tmp_path: Path) -> None:
    block = METHODS.get(method) or {"peft_type": "XLORA", "adapters": write_loras(tmp_path / "loras", "bert")}
    stages = gate_stage() if method == "xlora" else {}
    recipe = recipe_in(tmp_path / "toy", block, train={"mixed_precision": "bf16", "logging_steps": 1}, **stages)
    run = train(recipe, output_dir=tmp_path / "run")
    assert all(line["loss"] is not None for line in journal(run) if line["event"] == "step")


# ---- what is wrong is told -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def poly(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("poly")
    return train(recipe_in(folder / "toy", METHODS["poly"]), output_dir=folder / "run").folder


def test_a_directory_without_its_method_is_damaged(poly: Path, tmp_path: Path) -> None:
    model = shutil.copytree(poly / "model", tmp_path / "model")
    place = model / "adapters/peft/adapter_config.json"
    told = json.loads(place.read_text(encoding="utf-8"))
    place.write_text(json.dumps({**told, "n_skills": 5}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="has another shape"):
        load_model(model)
    place.write_text(json.dumps({**told, "n_skulls": 5}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"peft has no setting 'n_skulls' for POLY; .*Did you mean 'n_skills'"):
        load_model(model)
    place.unlink()
    with pytest.raises(CheckpointError, match=r"adapter_config\.json: cannot be read"):
        load_model(model)


def test_a_model_cannot_be_read_without_peft(poly: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match=r"needs the library peft, which cannot be imported .*pip install 'alter-mta\[peft\]'"):
        load_model(poly)


def test_it_cannot_be_merged(poly: Path, tmp_path: Path) -> None:
    from alter.combining.directories import read_directories

    with pytest.raises(ConfigError, match="was trained with POLY of the library peft, and alter merge merges models with an MTA"):
        read_directories([str(poly), str(poly)], base=None)


def test_another_method_is_no_run_to_take_stage_1_from(poly: Path) -> None:
    recipe = alter.load_recipe(poly / "recipe.yaml")
    other = changed(recipe, {"peft": {"n_skills": 2}, "stage1_from": str(poly)})
    with pytest.raises(ConfigError, match="its peft is"):
        train(other, output_dir=poly.parent / "other")
