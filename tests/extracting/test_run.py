"""Extraction from directory to directory: what is written answers, is scored, and says what was done."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.merging.models import assert_same_answers, outputs, save_part
from tests.recipes import toy, toy_texts
from tests.tiny import save_tiny

import alter
from alter.checkpoint import load_model
from alter.errors import CheckpointError, ConfigError, DataError, TaskError
from alter.extracting.report import ExtractReport
from alter.model_config import load_config
from alter.mta_settings import ADAPTERS
from alter.training.run import Run, train

SMALL = {"adapter": {"kind": "lora", "r": 4}}
ALL = {**SMALL, "selector": {"kind": "selector", "own_weight": 0.8}, "gate": {"kind": "task", "over": "all"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run whose gate reads the rows, of the tasks mood, topic and stars; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("toy")
    settings = {
        "mta": {"selector": {"kind": "selector", "own_weight": 0.8}, "gate": {"kind": "linear", "over": "all"}},
        "stages": {"stage1": {"max_steps": 6}, "stage2": {"max_steps": 4}},
    }
    made = train(toy(folder, tasks=["mood", "topic", "stars"], settings=settings), output_dir=folder / "run")
    config = folder / "run" / "model" / "alter_config.json"
    config.write_text(config.read_text().replace('"router": "selector"', '"router": "gate"'))  # whichever stage was released
    return made


def assert_task_is(small: Path, whole: Path, task: str, *, atol: float = 1e-6) -> None:
    own, all_tasks = load_model(small).model, load_model(whole).model
    assert own.task_names == [task]
    torch.testing.assert_close(outputs(own, task), outputs(all_tasks, task), atol=atol, rtol=1e-5)


def test_threshold_0_answers_as_the_whole_run(run: Run, tmp_path: Path) -> None:
    for task in ("mood", "stars"):
        report = alter.extract(run.folder, task=task, output_dir=tmp_path / task, threshold=0)
        assert_task_is(tmp_path / task, run.folder, task)
        texts = ["good day", "two of them"]
        for mine, theirs in zip(alter.load(tmp_path / task).predict(task, texts), run.load().predict(task, texts), strict=True):
            assert (mine.label, mine.value) == (theirs.label, pytest.approx(theirs.value, abs=1e-5) if theirs.value else None)
        assert report.dropped == []
        score = report.scores["validation"]
        assert (score.before, score.num_examples) == (pytest.approx(score.after, abs=1e-4), 12)
        assert score.before == pytest.approx(alter.evaluate(run.folder, split="validation", tasks=[task]).tasks[task].score)
    assert list(report.scores) == ["validation"]
    assert load_config(tmp_path / "stars").scales.keys() == {"stars"}
    assert load_config(tmp_path / "mood").scales == {}


def test_a_threshold_drops_what_rows_do_not_use(run: Run, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gate is of kind linear.*--renormalise"):
        alter.extract(run.folder, task="mood", output_dir=tmp_path / "out", threshold=0.3)
    assert list(tmp_path.iterdir()) == []
    report = alter.extract(
        run.folder, task="mood", output_dir=tmp_path / "out", threshold=0.3, renormalise=True, split="test"
    )  # fmt: skip
    assert report.kept == {"mood": "mood", "shared-0": "shared-0", "shared-1": "shared-1"}
    assert report.dropped == ["topic", "stars"]
    assert all(report.largest[name] >= 0.3 for name in report.kept)
    assert all(report.largest[name] < 0.3 for name in report.dropped)
    assert list(report.scores) == ["validation", "test"]
    assert report.added_parameters[1] < report.added_parameters[0]
    assert report.total_parameters[0] - report.total_parameters[1] == report.added_parameters[0] - report.added_parameters[1]
    model = load_model(tmp_path / "out").model
    assert model.count_parameters()["total"] == report.total_parameters[1]
    assert {path.name for path in (tmp_path / "out" / "adapters").iterdir()} == {"mood"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| topic | - |" in card
    assert str(tmp_path) not in card
    assert json.loads(json.dumps(report.as_dict()))["dropped"] == ["topic", "stars"]


def test_weights_that_depend_on_the_task_need_no_rows(base: Path, tmp_path: Path) -> None:
    whole = save_part(tmp_path / "whole", base, ["intent", "urgency", "score"], mta=ALL)
    report = alter.extract(whole, task="urgency", output_dir=tmp_path / "out", threshold=0.01)
    assert report.scores == {}
    assert report.remark.startswith("not scored: ")
    assert "no recipe.yaml beside the model" in report.remark
    assert len(report.kept) == 5
    assert report.kept["urgency"] == "adapter-1"
    assert_task_is(tmp_path / "out", whole, "urgency")
    config = load_config(tmp_path / "out")
    assert (config.mta.gate.kind, config.mta.num_adapters, config.name) == ("table", 3, "whole-urgency")


def test_the_default_preset_keeps_its_own_adapter_and_the_shared_ones(base: Path, tmp_path: Path) -> None:
    whole = save_part(tmp_path / "whole", base, ["intent", "urgency", "score"], mta=SMALL)
    report = alter.extract(whole, task="intent", output_dir=tmp_path / "out")
    assert report.kept == {"intent": "intent", "shared-0": "shared-0", "shared-1": "shared-1"}
    assert_task_is(tmp_path / "out", whole, "intent")
    for folder in ("adapters/intent", "shared/1"):
        file = f"{folder}/adapter_model.safetensors"
        assert (tmp_path / "out" / file).read_bytes() == (whole / file).read_bytes()


@pytest.mark.parametrize("preset", ["alter", "alter-lite"])
@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_a_backbone_that_trained_goes_with_the_task(base: Path, tmp_path: Path, preset: Any, adapter: str) -> None:
    whole = save_part(tmp_path / "whole", base, ["intent", "score"], preset=preset, mta={"adapter": {"kind": adapter, "r": 4}})
    alter.extract(whole, task="score", output_dir=tmp_path / "out", threshold=0)
    assert (tmp_path / "out" / "backbone.safetensors").exists() == (preset == "alter")
    assert_task_is(tmp_path / "out", whole, "score")


@pytest.mark.parametrize("kind", ["one_hot", "taps", "linear", "outputs"])
def test_a_task_of_a_merged_model_leaves_the_other_parts_behind(base: Path, tmp_path: Path, kind: str) -> None:
    role = "gate" if kind in ("linear", "outputs") else "selector"
    mta = {**SMALL, role: {"kind": kind, "over": "all"}}
    parts = [
        save_part(tmp_path / "one", base, ["intent", "urgency"], mta={**SMALL, "num_shared": 1}, seed=1),
        save_part(tmp_path / "two", base, ["mood", "score", "topic"], mta=mta, router=role, seed=2),
    ]
    alter.merge(parts, output_dir=tmp_path / "whole")
    for task in ("mood", "score", "urgency"):
        report = alter.extract(tmp_path / "whole", task=task, output_dir=tmp_path / task, threshold=0)
        assert_task_is(tmp_path / task, tmp_path / "whole", task)
        others = {"intent", "urgency", "shared-0"} if task != "urgency" else {"mood", "score", "topic", "shared-1", "shared-2"}
        assert others <= set(report.dropped)


def test_an_extracted_task_can_be_merged_with_others_and_extracted_again(base: Path, tmp_path: Path) -> None:
    whole = save_part(tmp_path / "whole", base, ["intent", "urgency"], mta=ALL)
    other = save_part(tmp_path / "other", base, ["mood"], mta=SMALL, seed=3)
    alter.extract(whole, task="urgency", output_dir=tmp_path / "urgency", threshold=0)
    alter.merge([tmp_path / "urgency", other], output_dir=tmp_path / "merged")
    assert_same_answers(tmp_path / "merged", [tmp_path / "urgency", other])
    alter.extract(tmp_path / "merged", task="urgency", output_dir=tmp_path / "again", threshold=0)
    assert_task_is(tmp_path / "again", whole, "urgency")


@pytest.mark.parametrize(
    "gate", [{"kind": "task"}, {"kind": "linear", "granularity": "sequence"}, {"kind": "linear", "granularity": "token"}]
)
def test_fewer_adapters_than_tasks_from_training_to_one_task(tmp_path: Path, gate: dict[str, Any]) -> None:
    settings = {
        "mta": {"num_adapters": 2, "num_shared": 2, "selector": {"kind": "selector", "own_weight": 0.8}, "gate": gate},
        "stages": {"stage2": {"max_steps": 3, "penalties": {"mutual_information": 0.1, "load_balance": 0.1}}},
    }
    made = train(toy(tmp_path, settings=settings), output_dir=tmp_path / "run")
    config = made.folder / "model" / "alter_config.json"
    config.write_text(config.read_text().replace('"router": "selector"', '"router": "gate"'))  # whichever stage was released
    whole = load_model(made.folder).model
    assert (whole.num_adapters, len(whole.task_names), whole.router) == (2, 4, "gate")
    for task in ("topic", "reply"):  # the second and the fourth own the second adapter
        report = alter.extract(made.folder, task=task, output_dir=tmp_path / task, threshold=0)
        assert list(report.kept) == ["adapter-0", "adapter-1", "shared-0", "shared-1"]
        assert_task_is(tmp_path / task, made.folder, task)
        small = alter.extract(made.folder, task=task, output_dir=tmp_path / f"own-{task}", threshold=0.7, renormalise=True)
        assert small.kept == {"adapter-1": task}
        assert small.scores["validation"].before == report.scores["validation"].before


def test_plain_fine_tuning_keeps_its_backbone_and_one_head(base: Path, tmp_path: Path) -> None:
    mta = {"sites": "none", "num_shared": 0}
    whole = save_part(tmp_path / "whole", base, ["intent", "urgency"], preset="alter", mta={**mta, "gate": {"kind": "uniform"}})
    report = alter.extract(whole, task="urgency", output_dir=tmp_path / "out")
    assert (report.kept, report.dropped, report.sites) == ({}, [], (0, 0))
    assert_task_is(tmp_path / "out", whole, "urgency")


def test_a_task_of_a_model_that_writes(tmp_path: Path) -> None:
    recipe = toy_texts(tmp_path, "gpt2", settings={"mta": {"selector": {"kind": "taps"}}})
    made = train(recipe, output_dir=tmp_path / "run")
    report = alter.extract(made.folder, task="echo", output_dir=tmp_path / "out")
    score = report.scores["validation"]
    assert score.before == pytest.approx(score.after)
    [mine], [theirs] = (alter.load(folder).predict("echo", ["the good"]) for folder in (tmp_path / "out", made.folder))
    assert mine.text == theirs.text


# ---- mistakes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "error", "told"),
    [
        ({"task": "moood"}, TaskError, r"no task 'moood'; allowed: mood, stars, topic. Did you mean 'mood'\?"),
        ({"threshold": 1.5}, ConfigError, r"--threshold is 1.5; it must be at least 0 and at most 1"),
        ({"split": "tset"}, DataError, r"unknown split 'tset'.*Did you mean 'test'"),
        ({"recipe": "nowhere.yaml"}, ConfigError, r"nowhere.yaml: no such file"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(
    run: Run, tmp_path: Path, given: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        alter.extract(run.folder, **{"task": "mood", "output_dir": tmp_path / "out", **given})
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there_is_left_alone(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is there already; choose another --output-dir"):
        alter.extract(run.folder, task="mood", output_dir=tmp_path)


def test_weights_that_depend_on_rows_need_rows(run: Run, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(run.folder / "model", tmp_path / "alone"))
    with pytest.raises(CheckpointError, match=r"add --recipe RECIPE.yaml. The task's weights depend on its rows.*--threshold 0"):
        alter.extract(alone, task="mood", output_dir=tmp_path / "out", threshold=0.3, renormalise=True)
    told = [
        alter.extract(alone, task="mood", output_dir=tmp_path / "none", threshold=0),
        alter.extract(alone, task="mood", output_dir=tmp_path / "given", threshold=0, recipe=run.folder / "recipe.yaml"),
    ]
    assert [bool(report.scores) for report in told] == [False, True]
    assert isinstance(told[0], ExtractReport)


def test_a_recipe_whose_rows_are_gone_costs_the_scores_alone_unless_it_was_given(base: Path, tmp_path: Path) -> None:
    run = toy(tmp_path, tasks=["mood", "topic"])
    folder = train(run, output_dir=tmp_path / "run").folder
    (tmp_path / "mood-validation.jsonl").unlink()
    report = alter.extract(folder, task="mood", output_dir=tmp_path / "out")
    assert report.scores == {}
    assert "mood-validation.jsonl" in report.remark
    with pytest.raises(DataError, match=r"mood-validation.jsonl"):
        alter.extract(folder, task="mood", output_dir=tmp_path / "other", recipe=folder / "recipe.yaml")
    assert not (tmp_path / "other").exists()
