from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes import StopAt, StopError, changed, steps, toy, weights
from tests.tiny import FAMILY_NAMES

from alter.errors import ConfigError
from alter.recipe import Recipe
from alter.training.run import Run, train

# Rates and steps that let a tiny random base learn the toy tasks.
LEARNS: dict[str, dict[str, Any]] = {
    "lora": {"preset": "alter-lite", "mta": {"adapter": {"kind": "lora", "r": 8}}},
    "bottleneck": {"preset": "alter-lite", "mta": {"adapter": {"kind": "bottleneck", "r": 16}}},
    "merged_bottleneck": {"preset": "alter-lite", "mta": {"adapter": {"kind": "merged_bottleneck", "r": 16}}},
    "ffn_clone": {"preset": "alter", "mta": {"adapter": {"kind": "ffn_clone"}}},
}
STAGES: dict[str, Any] = {
    "stage1": {
        "num_train_epochs": 30,
        "max_steps": 100,
        "eval_steps": 25,
        "learning_rates": {"adapters": 0.02, "heads": 0.05, "backbone": 0.005},
    },
    "stage2": {"num_train_epochs": 30, "max_steps": 10, "eval_steps": 5, "learning_rates": {"adapters": 1e-3, "heads": 1e-3}},
}
SIZES = {"train": 240, "validation": 30, "test": 30}
BATCH = {"per_device_train_batch_size": 32, "logging_steps": 10}


def learner(folder: Path, kind: str, **train_settings: Any) -> Recipe:
    settings = {**LEARNS[kind], "stages": STAGES, "train": {**BATCH, **train_settings}}
    return toy(folder, tasks=["mood", "topic", "stars"], sizes=SIZES, longest=2, settings=settings)


def assert_learned(run: Run) -> None:
    scores = run.results.splits["test"].tasks
    assert {task: score.score for task, score in scores.items() if score.score <= 90} == {}
    assert steps(run)[-1]["loss"] < 0.5 * steps(run)[0]["loss"]


@pytest.mark.parametrize("kind", sorted(LEARNS))
def test_easy_tasks_are_learned_with_every_adapter_kind(tmp_path: Path, kind: str) -> None:
    run = train(learner(tmp_path, kind), output_dir=tmp_path / "run")
    assert_learned(run)
    predictor = run.load()
    labels = [prediction.label for prediction in predictor.predict("mood", ["we love you", "they hate it"])]
    assert labels == ["pleased", "upset"]
    one, three = predictor.predict("stars", ["one from you", "three from you"])
    assert one.value is not None
    assert three.value is not None
    assert one.value < 2 < three.value


def test_a_pair_of_texts_is_learned_from_its_second_part(tmp_path: Path) -> None:
    settings = {"preset": "alter", "stages": STAGES, "train": BATCH}
    run = train(toy(tmp_path, tasks=["reply"], sizes=SIZES, longest=2, settings=settings), output_dir=tmp_path / "run")
    assert run.results.splits["test"].tasks["reply"].score > 90


def test_bf16_learns_and_a_run_without_it_may_follow_in_the_same_process(tmp_path: Path) -> None:
    recipe = learner(tmp_path, "ffn_clone", mixed_precision="bf16")
    run = train(recipe, output_dir=tmp_path / "run")
    assert_learned(run)
    short = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"num_train_epochs": 0}}}
    plain = train(
        changed(recipe, {**short, "train": {"mixed_precision": "no", "logging_steps": 1}}), output_dir=tmp_path / "plain"
    )
    half = train(changed(recipe, {**short, "train": {"logging_steps": 1}}), output_dir=tmp_path / "half")
    first, other = steps(plain)[0]["loss"], steps(half)[0]["loss"]
    assert first != other, "bf16 changed nothing, so it was not at work"
    assert first == pytest.approx(other, rel=0.02)
    for parameter in half.load().model.parameters():
        assert parameter.dtype == torch.float32


@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_gradient_checkpointing_gives_the_same_run(tmp_path: Path, preset: str) -> None:
    recipe = toy(tmp_path, settings={"preset": preset})
    plain = train(recipe, output_dir=tmp_path / "plain")
    saving = train(changed(recipe, {"train": {"gradient_checkpointing": True}}), output_dir=tmp_path / "saving")
    for one, other in zip(steps(plain), steps(saving), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_gradient_checkpointing_learns_with_dropout(tmp_path: Path) -> None:
    assert_learned(train(learner(tmp_path, "ffn_clone", gradient_checkpointing=True), output_dir=tmp_path / "run"))


def test_adapter_dropout_is_of_its_stage_alone_and_resumes_as_any_other_run(tmp_path: Path) -> None:
    settings = {"stages": {"stage1": {"max_steps": 4, "adapter_dropout": 0.5}, "stage2": {"max_steps": 2}}}
    recipe = toy(tmp_path, tasks=["mood", "stars"], settings=settings)
    run = train(recipe, output_dir=tmp_path / "run")
    without = train(changed(recipe, {"stages": {"stage1": {"adapter_dropout": 0.0}}}), output_dir=tmp_path / "without")
    assert [line["loss"] for line in steps(run)][:4] != [line["loss"] for line in steps(without)][:4]
    with pytest.raises(StopError):
        train(recipe, output_dir=tmp_path / "again", observer=StopAt(2))
    again = train(recipe, output_dir=tmp_path / "again", resume=True)
    assert [line["loss"] for line in steps(again)] == [line["loss"] for line in steps(run)]
    shared = changed(
        recipe,
        {"stages": {"stage1": {"adapter_dropout": 0.0}, "stage2": {"adapter_dropout": 0.0}}, "stage1_from": str(run.folder)},
    )
    second = train(shared, output_dir=tmp_path / "second")
    mine, theirs = ([line["loss"] for line in steps(one) if line["stage"] == "stage2"] for one in (second, run))
    assert mine == theirs, "stage 2 drops nothing"


RANDOM: dict[str, dict[str, Any]] = {
    "dropout": {"stages": {"stage1": {"adapter_dropout": 0.5}, "stage2": {"adapter_dropout": 0.5}}},
    "adamix": {
        "mta": {"selector": {"kind": "adamix"}, "gate": {"kind": "adamix"}},
        "stages": {"stage2": {"trains": ["shared_adapters", "heads"]}},
    },
}


@pytest.mark.parametrize("settings", RANDOM.values(), ids=RANDOM)
def test_adapters_are_drawn_alike_when_activations_are_recomputed(tmp_path: Path, settings: dict[str, Any]) -> None:
    recipe = toy(tmp_path, settings=settings)
    plain = train(recipe, output_dir=tmp_path / "plain")
    saving = train(changed(recipe, {"train": {"gradient_checkpointing": True}}), output_dir=tmp_path / "saving")
    for one, other in zip(steps(plain), steps(saving), strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_a_resumed_run_draws_the_adapters_of_one_never_stopped(tmp_path: Path) -> None:
    recipe = toy(tmp_path, settings=RANDOM["adamix"])
    run = train(recipe, output_dir=tmp_path / "run")
    with pytest.raises(StopError):
        train(recipe, output_dir=tmp_path / "again", observer=StopAt(2))
    again = train(recipe, output_dir=tmp_path / "again", resume=True)
    assert [line["loss"] for line in steps(again)] == [line["loss"] for line in steps(run)]
    assert weights(again) == weights(run)


@pytest.mark.parametrize(
    ("mta", "why"),
    [
        ({"adapter": {"kind": "ffn_clone"}}, "adapters of kind ffn_clone stand in for the FFN"),
        ({"adapter": {"kind": "merged_bottleneck"}}, "adapters of kind merged_bottleneck mix parameters"),
        ({"sites": "none", "num_shared": 0, "gate": {"kind": "one_hot"}}, "mta.sites is none"),
    ],
)
def test_adapters_that_a_model_cannot_do_without_are_not_dropped(tmp_path: Path, mta: dict[str, Any], why: str) -> None:
    stages = {"stage1": {"adapter_dropout": 0.1, "trains": ["heads"]}, "stage2": None}
    with pytest.raises(ConfigError, match=rf"stages.stage1.adapter_dropout is 0.1, but {why}.*set it to 0"):
        toy(tmp_path, tasks=["mood"], settings={"mta": mta, "stages": stages})


def test_tensorboard_files_appear_where_they_are_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = toy(tmp_path, tasks=["mood"], settings={"train": {"report_to": ["tensorboard"]}})
    run = train(recipe, output_dir=tmp_path / "run")
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"stage1/loss", "stage1/loss/mood", "stage1/validation/average", "stage1/validation/mood", "stage2/loss"} <= tags
    written = [event.value for event in events.Scalars("stage1/loss")]
    assert written == pytest.approx([line["loss"] for line in steps(run) if line["stage"] == "stage1"])
    assert events.Scalars("stage1/learning_rate/heads")[0].step == 1


def test_no_tensorboard_files_appear_unasked(tmp_path: Path) -> None:
    run = train(toy(tmp_path, tasks=["mood"], settings={"stages": {"stage2": None}}), output_dir=tmp_path / "run")
    assert not (run.folder / "tensorboard").exists()


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_trains_in_both_stages_and_loads_again(tmp_path: Path, family: str) -> None:
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 1}}}
    run = train(toy(tmp_path, tasks=["mood", "reply"], family=family, settings=settings), output_dir=tmp_path / "run")
    assert len(steps(run)) == 3
    assert run.load().predict("reply", [{"text": "open", "text_pair": "yes please"}])[0].label in ("agrees", "denies")


@pytest.mark.parametrize(
    "mta",
    [
        {"selector": {"kind": "uniform"}, "gate": {"kind": "uniform"}},
        {"selector": {"kind": "adamix"}, "gate": {"kind": "adamix"}},
        {"selector": {"kind": "selector"}, "gate": {"kind": "task", "over": "all"}},
        {"gate": {"kind": "linear", "granularity": "token", "top_k": 1, "over": "all"}},
        {"gate": {"kind": "linear", "granularity": "sequence", "over": "shared"}},
        {"gate": {"kind": "outputs"}, "num_adapters": 2, "sites": "last"},
        {"gate": {"kind": "one_hot"}, "num_shared": 0, "sites": [0]},
    ],
)
def test_every_kind_of_router_trains_through_both_stages(tmp_path: Path, mta: dict[str, Any]) -> None:
    trains = {"stage2": {"max_steps": 2, "trains": ["task_adapters", "shared_adapters", "gate", "heads"]}}
    run = train(toy(tmp_path, settings={"mta": mta, "stages": trains}), output_dir=tmp_path / "run")
    assert [line["stage"] for line in steps(run)] == ["stage1"] * 3 + ["stage2"] * 2
    assert run.load().predict("topic", ["the bank"])[0].label in ("access", "money", "parcel")
    assert weights(run)
