"""`mta.sites: none` is plain fine-tuning: the stock model and its heads, through the same trainer, files and predictor."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.generative.lm import base_lm, equipped_lm, logits, stock_logits, tokens
from tests.nn.equipped import IDS_BS, MASK_BS, NAMES, TASKS_B, base_model, equipped
from tests.recipes import StopAt, StopError, journal, steps, toy, toy_texts, weights
from torch.nn import functional

from alter.nn.site import choose_sites
from alter.recipe import Recipe
from alter.score import evaluate_model
from alter.training.run import Run, train

NONE: dict[str, Any] = {"sites": "none", "num_shared": 0, "gate": {"kind": "one_hot"}}
STAGES: dict[str, Any] = {
    "stage1": {"trains": ["backbone", "heads"], "max_steps": 3, "learning_rates": {"backbone": 0.003}},
    "stage2": None,
}
SETTINGS: dict[str, Any] = {"mta": NONE, "stages": STAGES}
OUTPUTS = {"intent": 3, "urgency": 2, "mood": 4, "score": 1}


def written(name: str, folder: Path, **more: Any) -> Recipe:
    return toy_texts(folder, name, tasks=["mood", "stars", "echo"], settings={**SETTINGS, **more})


@pytest.fixture(scope="module", params=["bert", "t5", "gpt2"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(str(request.param))
    if request.param == "bert":
        return train(toy(folder, settings=SETTINGS), output_dir=folder / "run")
    return train(written(request.param, folder), output_dir=folder / "run")


def test_none_chooses_no_site() -> None:
    assert choose_sites("none", 6) == choose_sites("none", 6, num_decoder_layers=6) == []


# ---- the function --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert"])
def test_an_encoder_is_the_stock_model_with_a_linear_layer_a_task(family: str, pooling: str) -> None:
    model = equipped(NONE, family=family, tasks=OUTPUTS, heads={"pooling": pooling})
    stock = base_model(family)
    with torch.no_grad():
        found = model(IDS_BS, MASK_BS, task_ids=TASKS_B)
        hidden_BSD = stock(input_ids=IDS_BS, attention_mask=MASK_BS).last_hidden_state
    assert torch.equal(found.last_hidden_state, hidden_BSD)
    mask_BS1 = MASK_BS.unsqueeze(-1).double()
    pooled_BD = hidden_BSD[:, 0] if pooling == "cls" else (hidden_BSD * mask_BS1).sum(1) / mask_BS1.sum(1)
    assert model.heads is not None
    for row, task in enumerate(TASKS_B.tolist()):
        head: Any = model.heads.heads[task]
        expected = functional.linear(pooled_BD[row], head.weight, head.bias)
        count = OUTPUTS[NAMES[task]]
        torch.testing.assert_close(found.logits[row, :count], expected, atol=1e-12, rtol=0)
        assert torch.isinf(found.logits[row, count:]).all()


@pytest.mark.parametrize("name", ["t5", "bart", "gpt2", "llama"])
def test_a_model_that_writes_is_the_stock_model(name: str) -> None:
    model = equipped_lm(name, NONE, router="selector")
    real = tokens(model.kind)  # nothing reads what a decoder makes of padding
    assert torch.equal(logits(model)[real], stock_logits(base_lm(name))[real])
    assert [key for key, _ in model.backbone.named_parameters()] == [key for key, _ in base_lm(name).named_parameters()]


def test_there_is_nothing_of_an_mta_in_it() -> None:
    model = equipped(NONE, tasks=OUTPUTS)
    groups = model.parameter_groups()
    assert {name for name, members in groups.items() if members} == {"heads", "backbone"}
    assert (model.mtas, model.ffns, model.site_positions) == ([], [], [])
    assert len(groups["backbone"]) == len(list(base_model().parameters()))
    assert copy.deepcopy(model).count_parameters() == model.count_parameters()


def test_the_task_s_name_reaches_the_heads_alone() -> None:
    model = equipped(NONE, tasks=OUTPUTS)
    with torch.no_grad():
        one, other = (model(IDS_BS, MASK_BS, task_ids=tasks).last_hidden_state for tasks in (TASKS_B, TASKS_B * 0))
    assert torch.equal(one, other)


def test_packed_rows_need_no_site(tmp_path: Path) -> None:
    runs = [
        train(written("gpt2", tmp_path / str(packing), train={"packing": packing}), output_dir=tmp_path / f"run-{packing}")
        for packing in (False, True)
    ]
    for apart, packed in zip(*map(steps, runs), strict=True):
        assert apart["losses"] == pytest.approx(packed["losses"], abs=1e-4)


# ---- the run -------------------------------------------------------------------------------------------------------


def test_it_trains_the_whole_model(run: Run) -> None:
    assert run.results.stages["stage1"].trainable_parameters == run.results.parameters["total"]
    counts = run.results.parameters
    assert counts["backbone"] + counts["heads"] == counts["total"]
    assert len(steps(run)) == 3


def test_the_model_directory_has_no_adapters(run: Run) -> None:
    files = {path.name for path in (run.folder / "model").iterdir()}
    heads = {"heads.safetensors"} if run.results.parameters["heads"] else set()
    assert files == {"README.md", "alter_config.json", "gates.safetensors", "backbone.safetensors"} | heads
    assert load_file(run.folder / "model" / "gates.safetensors") == {}
    card = (run.folder / "model" / "README.md").read_text()
    assert "without adapters (`mta.sites: none`)" in card
    assert "LoRA" not in card
    assert "base_model_relation: finetune" in card


def test_it_comes_back_and_answers_as_it_was_scored(run: Run, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        plain = evaluate_model(run.folder, split=split)
        told = evaluate_model(run.folder, split=split, predictions_dir=tmp_path / split)
        for task, score in run.results.splits[split].tasks.items():
            assert plain.tasks[task].metrics == pytest.approx(score.metrics)
            assert told.tasks[task].metrics == plain.tasks[task].metrics
            ours = run.folder / "predictions" / split / f"{task}.jsonl"
            assert ours.read_bytes() == (tmp_path / split / f"{task}.jsonl").read_bytes()
            assert "gate_weights" not in json.loads(ours.read_text().splitlines()[0])


def test_predictions_have_no_gate_weights_even_where_they_are_asked_for(run: Run) -> None:
    [prediction] = run.load().predict("mood", ["they love it"], gate_weights=True)
    assert prediction.label in ("pleased", "upset")
    assert prediction.gate_weights == {}


def test_the_gate_map_has_no_site(run: Run) -> None:
    content = json.loads((run.folder / "gates.json").read_text())
    assert content["sites"] == []
    assert content["stages"] == {"stage1": [[] for _ in content["tasks"]]}


@pytest.mark.parametrize("name", ["bert", "t5"])
def test_a_resumed_run_equals_one_that_never_stopped(tmp_path: Path, name: str) -> None:
    recipe = (
        toy(tmp_path / "toy", dropout=0.1, settings={**SETTINGS, "train": {"save_steps": 1}})
        if name == "bert"
        else written(name, tmp_path / "toy", train={"save_steps": 1})
    )
    with pytest.raises(StopError):
        train(recipe, output_dir=tmp_path / "run", observer=StopAt(2))
    resumed, whole = (train(recipe, output_dir=tmp_path / where, resume=where == "run") for where in ("run", "whole"))
    assert weights(resumed) == weights(whole)
    assert journal(resumed) == journal(whole)


def test_a_frozen_base_with_heads_alone_is_a_run_too(tmp_path: Path) -> None:
    stages = {"stage1": {"trains": ["heads"], "max_steps": 2}, "stage2": None}
    run = train(toy(tmp_path, tasks=["mood"], settings={"mta": NONE, "stages": stages}), output_dir=tmp_path / "run")
    assert not (run.folder / "model" / "backbone.safetensors").exists()
    assert run.load().predict("mood", ["they love it"])[0].label
