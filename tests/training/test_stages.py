from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes import changed, journal, steps, toy

from alter.backbones._load import base_fingerprint, load_base
from alter.recipe import Recipe, StageSettings
from alter.results import SplitScores, StageResult
from alter.tasks.validate import settings_without_effect
from alter.tensors import load_tensors
from alter.training.observer import Silent
from alter.training.optim import build_schedule
from alter.training.remarks import NO_WEIGHT, about_shared
from alter.training.run import Run, better_stage, train
from alter.training.trainer import better

ABSURD = {"adapters": 30.0, "heads": 30.0, "gate": 30.0}


class Watch(Silent):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.started: list[tuple[str, int, int]] = []
        self.averages: dict[str, list[float]] = {}
        self.losses: dict[int, float] = {}
        self.closings = 0
        self.warnings: list[str] = []

    def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
        self.started.append((stage, num_steps, first_step))

    def validated(self, stage: str, step: int, scores: SplitScores, *, best: bool, loss: float) -> None:
        self.averages.setdefault(stage, []).append(scores.average)
        self.losses[step] = loss

    def warned(self, message: str) -> None:
        self.warnings.append(message)

    def closed(self) -> None:
        self.closings += 1


def best_of(run: Run, stage: str) -> dict[str, torch.Tensor]:
    return load_tensors(run.folder / "checkpoints" / f"best-{stage}.safetensors")


def parameters(run: Run) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in run.load().model.named_parameters()}


def moved(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in one.items() if not torch.equal(tensor, other[name])}


def stage(**settings: Any) -> StageSettings:
    return StageSettings.model_validate({"router": "selector", "trains": ["heads"], **settings})


@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_a_stage_2_that_ruins_the_model_is_not_released(tmp_path: Path, preset: str) -> None:
    settings = {
        "preset": preset,
        "stages": {
            "stage1": {"max_steps": 12, "learning_rates": {"heads": 0.02}},
            "stage2": {"max_steps": 2, "learning_rates": ABSURD, "lr_scheduler_type": "constant"},
        },
    }
    run = train(toy(tmp_path, tasks=["mood", "stars"], sizes={"train": 48}, settings=settings), output_dir=tmp_path / "run")
    stages = run.results.stages
    assert stages["stage2"].average < stages["stage1"].average
    assert run.results.released == "stage1"
    released, best = parameters(run), best_of(run, "stage1")
    assert moved(best, released) == set()
    assert moved(best, best_of(run, "stage2")) != set()
    assert run.results.splits["validation"].average == pytest.approx(stages["stage1"].average, abs=1e-9)
    assert run.load().model.router == "selector"


def test_a_stage_2_as_good_as_stage_1_is_released(tmp_path: Path) -> None:
    # A rate too small to change any answer: both stages reach the same average.
    settings = {"stages": {"stage2": {"max_steps": 1, "learning_rates": {"adapters": 1e-9, "heads": 1e-9, "gate": 1e-9}}}}
    run = train(toy(tmp_path, tasks=["mood"], settings=settings), output_dir=tmp_path / "run")
    assert run.results.stages["stage2"].average == run.results.stages["stage1"].average
    assert run.results.released == "stage2"
    assert run.load().model.router == "gate"


@pytest.mark.parametrize(
    ("first", "second", "released"),
    [(60.0, 60.0, "stage2"), (60.0, 59.9, "stage1"), (60.0, float("nan"), "stage1"), (float("nan"), 1.0, "stage2")],
)
def test_the_stage_to_release_is_never_the_worse(first: float, second: float, released: str) -> None:
    stages = {
        name: StageResult(average=value, seconds=1, trainable_parameters=1)
        for name, value in (("stage1", first), ("stage2", second))
    }
    assert better_stage(stages) == released


def test_a_first_average_that_is_no_number_does_not_stay_the_best() -> None:
    assert better(1.0, than=float("nan"))
    assert not better(float("nan"), than=1.0)
    assert not better(float("nan"), than=float("nan"))
    assert better(float("nan"), than=None)


def test_the_best_step_is_restored_and_not_the_last(tmp_path: Path) -> None:
    stage1 = {"max_steps": 8, "eval_steps": 1, "learning_rates": {"heads": 0.3, "adapters": 0.3}, "lr_scheduler_type": "constant"}
    recipe = toy(tmp_path, tasks=["mood", "topic"], settings={"stages": {"stage1": stage1, "stage2": None}})
    watch = Watch()
    run = train(recipe, output_dir=tmp_path / "run", observer=watch)
    averages = watch.averages["stage1"]
    result = run.results.stages["stage1"]
    assert result.average == max(averages)
    assert result.best_step == averages.index(max(averages)) + 1
    assert result.best_step < 8, "the rates are meant to be so high that the last step is not the best"
    last = load_tensors(run.folder / "checkpoints" / "stage1-000008" / "model.safetensors")
    assert moved(last, parameters(run)) != set()
    assert moved(best_of(run, "stage1"), parameters(run)) == set()
    assert run.results.splits["validation"].average == pytest.approx(result.average)
    assert result.scores == pytest.approx({task: score.score for task, score in run.results.splits["validation"].tasks.items()})


@pytest.mark.parametrize("logging_steps", [1, 2, 100])
def test_a_validation_is_told_with_the_mean_training_loss_that_the_journal_has_or_will_have(
    tmp_path: Path, logging_steps: int
) -> None:
    settings = {"stages": {"stage1": {"max_steps": 3, "eval_steps": 1}, "stage2": None}}
    recipe = toy(tmp_path, tasks=["mood", "stars"], settings=settings)
    each = [line["loss"] for line in steps(train(recipe, output_dir=tmp_path / "each"))]
    watch = Watch()
    run = train(changed(recipe, {"train": {"logging_steps": logging_steps}}), output_dir=tmp_path / "run", observer=watch)
    since = {1: [[0], [1], [2]], 2: [[0], [0, 1], [2]], 100: [[0], [0, 1], [0, 1, 2]]}[logging_steps]
    means = {step: sum(each[i] for i in which) / len(which) for step, which in enumerate(since, start=1)}
    assert watch.losses == pytest.approx(means)
    assert watch.losses[3] == steps(run)[-1]["loss"]


def test_a_stage_stops_early_after_so_many_validations_without_gain(tmp_path: Path) -> None:
    # Nothing changes at this rate, so no validation after the first is a gain.
    stage1 = {"max_steps": 20, "eval_steps": 2, "early_stopping_patience": 3, "learning_rates": {"heads": 1e-9, "adapters": 1e-9}}
    recipe = toy(tmp_path, tasks=["mood"], sizes={"train": 160}, settings={"stages": {"stage1": stage1, "stage2": None}})
    run = train(recipe, output_dir=tmp_path / "run")
    assert run.results.stages["stage1"].steps == 8
    assert run.results.stages["stage1"].best_step == 2
    assert [line["step"] for line in journal(run) if line["event"] == "validation"] == [2, 4, 6, 8]


def test_validation_comes_once_per_epoch_where_nothing_else_is_said(tmp_path: Path) -> None:
    stage1 = {"num_train_epochs": 2, "max_steps": None}
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": stage1, "stage2": None}})
    watch = Watch()
    run = train(recipe, output_dir=tmp_path / "run", observer=watch)
    assert watch.started == [("stage1", 6, 0)]  # 24 rows in steps of 8, twice
    assert [line["step"] for line in journal(run) if line["event"] == "validation"] == [3, 6]
    assert [line["epoch"] for line in steps(run)] == [0.3333, 0.6667, 1.0, 1.3333, 1.6667, 2.0]
    assert watch.closings == 1


def test_half_an_epoch_is_half_the_steps(tmp_path: Path) -> None:
    stage1 = {"num_train_epochs": 0.5, "max_steps": None}
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": stage1, "stage2": None}})
    assert train(recipe, output_dir=tmp_path / "run").results.stages["stage1"].steps == 2


def test_stage_2_with_no_epochs_is_skipped(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage2": {"num_train_epochs": 0}}})
    run = train(recipe, output_dir=tmp_path / "run")
    assert list(run.results.stages) == ["stage1"]
    assert run.results.released == "stage1"


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Run]:
    folder = tmp_path_factory.mktemp("lite")
    # Stage 2 validates better than any stage 1 because stage 1 hardly moves.
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 2}}}
    recipe = toy(folder, tasks=["mood", "topic"], settings=settings)
    return recipe, train(recipe, output_dir=folder / "run")


def test_alter_lite_leaves_the_backbone_bit_for_bit(lite: tuple[Recipe, Run]) -> None:
    recipe, run = lite
    fresh, _ = load_base(recipe.model_name_or_path)
    assert base_fingerprint(run.load().model.unequip()) == base_fingerprint(fresh)
    assert not (run.folder / "model" / "backbone.safetensors").exists()


def groups_moved(run: Run, one: str, other: str) -> set[str]:
    """Return the groups of the parameters that differ between two checkpoints."""
    before = load_tensors(run.folder / "checkpoints" / one)
    after = load_tensors(run.folder / "checkpoints" / other)
    group_of = {name: group for group, members in run.load().model.parameter_groups().items() for name in members}
    assert before.keys() == after.keys()
    return {group_of[name] for name in moved(before, after)}


def test_stage_2_trains_its_own_groups_and_nothing_else(lite: tuple[Recipe, Run]) -> None:
    recipe, run = lite
    found = groups_moved(run, "best-stage1.safetensors", "stage2-000002/model.safetensors")
    assert found == set(recipe.stages["stage2"].trains) == {"shared_adapters", "gate", "heads"}


@pytest.mark.parametrize(
    ("preset", "trained"),
    [
        ("alter-lite", ["heads"]),
        ("alter-lite", ["task_adapters"]),
        ("alter", ["task_adapters", "selector"]),
        ("alter", ["backbone", "heads"]),
    ],
)
def test_stage_1_trains_the_groups_it_names_and_nothing_else(tmp_path: Path, preset: str, trained: list[str]) -> None:
    stages = {"stage1": {"trains": trained, "max_steps": 2, "learning_rates": {"adapters": 0.01}}, "stage2": None}
    settings = {"preset": preset, "stages": stages, "train": {"save_steps": 1}}
    # Four tasks: the copies of two tasks that own each other's adapters stay alike, and a selector between them gets no gradient.
    run = train(toy(tmp_path, settings=settings), output_dir=tmp_path / "run")
    assert groups_moved(run, "stage1-000001/model.safetensors", "stage1-000002/model.safetensors") == set(trained)


def test_label_smoothing_changes_the_training_loss(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
    plain = train(recipe, output_dir=tmp_path / "plain")
    smooth = train(changed(recipe, {"train": {"label_smoothing": 0.2}}), output_dir=tmp_path / "smooth")
    assert steps(plain)[0]["loss"] != steps(smooth)[0]["loss"]


def rates(settings: StageSettings, num_steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = build_schedule(optimizer, settings, num_steps=num_steps)
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_the_linear_schedule_rises_and_falls_to_nothing() -> None:
    assert rates(stage(warmup_ratio=0.3), 10) == pytest.approx([1 / 4, 2 / 4, 3 / 4, *((7 - k) / 7 for k in range(7))])


def test_the_cosine_schedule_is_half_way_down_in_the_middle() -> None:
    found = rates(stage(warmup_ratio=0.0, lr_scheduler_type="cosine"), 10)
    assert (found[0], found[5]) == pytest.approx((1.0, 0.5))
    assert found == sorted(found, reverse=True)


def test_the_constant_schedule_stays_after_the_warm_up() -> None:
    assert rates(stage(warmup_ratio=0.2, lr_scheduler_type="constant"), 10) == pytest.approx([1 / 3, 2 / 3, *([1.0] * 8)])


def test_a_stage_that_is_all_warm_up_never_reaches_its_rate() -> None:
    assert rates(stage(warmup_ratio=1.0), 4) == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_the_journal_shows_each_group_s_own_rate(tmp_path: Path) -> None:
    stage1 = {"max_steps": 4, "warmup_ratio": 0.0, "learning_rates": {"adapters": 0.004, "heads": 0.02}}
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": stage1, "stage2": None}})
    found = [line["learning_rates"] for line in steps(train(recipe, output_dir=tmp_path / "run"))]
    # A line is written after the schedule's step, so it shows the rate of the step to come.
    assert [line["heads"] for line in found] == pytest.approx([0.015, 0.01, 0.005, 0.0])
    assert [line["task_adapters"] for line in found] == pytest.approx([0.003, 0.002, 0.001, 0.0])


@pytest.mark.parametrize(("rate", "warns"), [(1.0, True), (1e-6, False)])
def test_a_gate_that_shuts_shared_adapters_off_is_told_with_the_rate_to_lower(tmp_path: Path, rate: float, warns: bool) -> None:
    """The paper's gate network: after a stage 1 of the whole model its shared adapters, copies of the old FFN, do harm at first."""
    settings = {
        "preset": "alter",
        "stages": {
            "stage1": {"max_steps": 60, "learning_rates": {"adapters": 0.01, "backbone": 0.01, "heads": 0.01}},
            "stage2": {"max_steps": 20, "learning_rates": {"gate": rate, "adapters": 1e-6}, "lr_scheduler_type": "constant"},
        },
    }
    watch = Watch()
    run = train(toy(tmp_path / "toy", settings=settings), output_dir=tmp_path / "run", observer=watch)
    found = json.loads((run.folder / "gates.json").read_text(encoding="utf-8"))
    most = max(weight for task in found["stages"]["stage2"] for site in task for weight in site[-2:])
    assert (most <= NO_WEIGHT) == warns
    told = [warning for warning in watch.warnings if "shared adapters" in warning]
    assert len(told) == warns
    assert all(one.startswith("stage2: the gate gives") and "stages.stage2.learning_rates.gate (1)" in one for one in told)


def test_shared_adapters_that_nobody_trained_or_weighed_are_not_told_of(tmp_path: Path) -> None:
    recipe = toy(tmp_path / "toy", tasks=("mood", "topic"), settings={"preset": "alter"})
    off = [[[0.5, 0.5, 0.0, 0.0]], [[0.5, 0.5, 0.0, 0.0]]]
    assert len(about_shared(recipe, "stage2", off)) == 1
    assert about_shared(recipe, "stage1", off) == []
    assert about_shared(recipe, "stage2", [off[0], [[0.5, 0.4, 0.1, 0.0]]]) == []
    assert about_shared(recipe, "stage2", [off[0], [[0.5, 0.5, -0.1, 0.0]]]) == [], "weights of a table may be below zero"
    assert about_shared(recipe, "stage2", [off[0], [[0.5, 0.5, float("nan"), 0.0]]]) == []
    for trains in (["gate", "heads"], ["shared_adapters", "heads"]):
        frozen = changed(recipe, {"stages": {"stage2": {"trains": trains}}})
        assert about_shared(frozen, "stage2", off) == []


@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_a_stage_that_trains_shared_adapters_where_there_are_none_is_told(tmp_path: Path, preset: str) -> None:
    none = {"num_shared": 0, "gate": {"kind": "task", "over": "all"}}
    settings = {"preset": preset, "mta": none, "stages": {"stage1": {"max_steps": 1}, "stage2": {"max_steps": 1}}}
    recipe = toy(tmp_path / "toy", tasks=("mood", "topic"), settings=settings)
    [warning] = settings_without_effect(recipe)
    assert warning.startswith("stages.stage2.trains names shared_adapters, but mta.num_shared is 0")
    assert ("mta.gate.kind: outputs" if preset == "alter" else "mta.gate.kind: task") in warning
    watch = Watch()
    train(recipe, output_dir=tmp_path / "run", observer=watch)
    assert warning in watch.warnings
    assert settings_without_effect(changed(recipe, {"stages": {"stage2": {"trains": ["gate", "heads"]}}})) == []
