from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes import changed, steps, toy
from tests.tiny import tiny_model

from alter.model import MTAModel, equip
from alter.recipe import Recipe
from alter.tensors import load_tensors
from alter.training.run import Run, train
from alter.training.scope import parameter_scopes

NUM_STEPS = 6


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """One row a step, and `topic` so seldom that most steps have none of it."""
    settings: dict[str, Any] = {
        "mixture": {"kind": "weights"},
        "train": {"per_device_train_batch_size": 1, "save_steps": 1, "save_total_limit": 100, "weight_decay": 0.5},
        "stages": {
            "stage1": {"max_steps": NUM_STEPS, "eval_steps": 100, "lr_scheduler_type": "constant", "warmup_ratio": 0.0},
            "stage2": {"num_train_epochs": 0},
        },
    }
    given = toy(tmp_path_factory.mktemp("toy"), tasks=["mood", "topic"])
    tasks = [task.model_copy(update={"weight": weight}) for task, weight in zip(given.tasks, (0.75, 0.25), strict=True)]
    return changed(given.model_copy(update={"tasks": tasks}), settings)


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, output_dir=tmp_path_factory.mktemp("runs") / "run")


def of_task(name: str) -> str | None:
    """Return the task that a head's or task adapter's parameter belongs to."""
    for part in ("heads.heads.", ".adapters."):
        if part in name:
            number = int(name.split(part)[1].split(".")[0])
            return ("mood", "topic")[number] if number < 2 else None
    return None


def test_the_heads_and_adapters_of_an_absent_task_stand_still(run: Run) -> None:
    present = {line["step"]: set(line["losses"]) for line in steps(run)}
    assert {frozenset(tasks) for tasks in present.values()} == {frozenset({"mood"}), frozenset({"topic"})}
    checked = 0
    for step in range(2, NUM_STEPS + 1):
        before = load_tensors(run.folder / "checkpoints" / f"stage1-{step - 1:06d}" / "model.safetensors")
        after = load_tensors(run.folder / "checkpoints" / f"stage1-{step:06d}" / "model.safetensors")
        for task in ("mood", "topic"):
            own = [name for name in before if of_task(name) == task]
            moving = {name for name in own if not torch.equal(before[name], after[name])}
            if task in present[step]:
                assert {"heads" in name for name in moving} == {True, False}, (step, task)
            else:
                checked += 1
                assert moving == set(), (step, task)
    assert checked == NUM_STEPS - 1


def test_adamw_would_move_a_parameter_whose_gradient_is_zero() -> None:
    # The reason for the scopes: momentum and weight decay act on zero gradients, and not on missing ones.
    for absent, still in ((torch.zeros(2), False), (None, True)):
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([parameter], lr=0.1, weight_decay=0.5)
        parameter.grad = torch.ones(2)
        optimizer.step()
        before = parameter.detach().clone()
        parameter.grad = absent
        optimizer.step()
        assert torch.equal(parameter, before) == still


def scoped(preset: str, router: str, **mta: Any) -> tuple[MTAModel, dict[str, frozenset[int]]]:
    model = equip(tiny_model("bert"), tasks={"a": 2, "b": 2, "c": 1}, preset=preset, mta=mta)  # type: ignore[arg-type]
    return model, parameter_scopes(model, router)  # type: ignore[arg-type]


def adapters_of(model: MTAModel, scopes: dict[str, frozenset[int]]) -> dict[int, frozenset[int]]:
    names = model.parameter_groups()["task_adapters"]
    return {int(name.split(".adapters.")[1].split(".")[0]): scopes[name] for name in names if name in scopes}


@pytest.mark.parametrize("router", ["selector", "gate"])
def test_heads_belong_to_their_task_alone(router: str) -> None:
    for preset in ("alter-lite", "alter"):
        model, scopes = scoped(preset, router)
        heads = {name: scopes[name] for name in model.parameter_groups()["heads"]}
        assert heads["heads.heads.1.weight"] == {1}
        assert {tuple(tasks) for tasks in heads.values()} == {(0,), (1,), (2,)}


def test_one_hot_adapters_belong_to_their_owners_in_both_stages() -> None:
    for router in ("selector", "gate"):
        model, scopes = scoped("alter-lite", router)
        assert adapters_of(model, scopes) == {0: {0}, 1: {1}, 2: {2}}


def test_an_adapter_with_two_owners_waits_for_either() -> None:
    model, scopes = scoped("alter-lite", "selector", num_adapters=2)
    assert adapters_of(model, scopes) == {0: {0, 2}, 1: {1}}
    model, scopes = scoped("alter-lite", "selector", selector={"kind": "one_hot", "num_owned": 2})
    assert adapters_of(model, scopes) == {0: {0, 2}, 1: {0, 1}, 2: {1, 2}}


@pytest.mark.parametrize("router", ["selector", "gate"])
def test_the_scores_and_adapters_of_taps_belong_to_their_task(router: str) -> None:
    model, scopes = scoped("alter-lite", router, selector={"kind": "taps"})
    assert adapters_of(model, scopes) == {0: {0}, 1: {1}, 2: {2}}
    scores = [scopes[name] for name in model.parameter_groups()["selector"]]
    assert scores == [{0}, {1}, {2}] * len(model.mtas)
    model, scopes = scoped("alter-lite", "gate", selector={"kind": "selector"}, gate={"kind": "taps"}, num_shared=0)
    assert adapters_of(model, scopes) == {0: {0}, 1: {1}, 2: {2}}
    assert [scopes[name] for name in model.parameter_groups()["gate"]] == [{0}, {1}, {2}] * len(model.mtas)


def test_a_score_of_an_absent_task_stands_still_under_its_penalty(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "mta": {"selector": {"kind": "taps"}},
        "train": {"per_device_train_batch_size": 1, "save_steps": 1, "save_total_limit": 9},
        "stages": {"stage1": {"max_steps": 3, "penalties": {"sparsity": 10.0}}, "stage2": None},
    }
    run = train(toy(tmp_path, tasks=["mood", "topic"], settings=settings), output_dir=tmp_path / "run")
    present = {line["step"]: set(line["losses"]) for line in steps(run)}
    for step in (2, 3):
        before, after = (
            load_tensors(run.folder / "checkpoints" / f"stage1-{number:06d}" / "model.safetensors") for number in (step - 1, step)
        )
        for task, name in enumerate(("mood", "topic")):
            mine = [key for key in before if key.endswith(f"selector.scores.{task}")]
            assert len(mine) == 2
            assert all(torch.equal(before[key], after[key]) == (name not in present[step]) for key in mine)


def test_adapters_that_all_tasks_weigh_belong_to_none() -> None:
    for router in ("selector", "gate"):
        model, scopes = scoped("alter", router)
        assert adapters_of(model, scopes) == {}
    model, scopes = scoped("alter-lite", "gate", gate={"kind": "task", "over": "all"})
    assert adapters_of(model, scopes) == {}


@pytest.mark.parametrize("gate", [{"kind": "task", "over": "shared"}, {"kind": "linear", "over": "shared"}, {"kind": "outputs"}])
@pytest.mark.parametrize("selector", ["one_hot", "taps"])
def test_scopes_hold_for_the_gradients_themselves(selector: str, gate: dict[str, Any]) -> None:
    """A parameter out of the batch's scope must have no gradient; the scopes claim it, autograd knows it."""
    torch.manual_seed(0)
    model, scopes = scoped("alter-lite", "gate", selector={"kind": selector}, gate=gate)
    model.router = "gate"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".scores." not in name:  # one that is off gives its adapters no gradient
                parameter.add_(0.05 * torch.randn_like(parameter))
    ids = torch.randint(5, 150, (4, 7))
    out = model(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        task_ids=torch.tensor([0, 0, 2, 2]),
        label_ids=torch.tensor([0, 1, -100, -100]),
    )
    out.losses.sum().backward()
    assert {1} <= {task for tasks in scopes.values() for task in tasks}
    parameters = dict(model.named_parameters())
    for name, tasks in scopes.items():
        gradient = parameters[name].grad
        touched = gradient is not None and bool(gradient.abs().max() > 0)
        assert touched == bool(tasks & {0, 2}), name
