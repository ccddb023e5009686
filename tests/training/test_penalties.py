"""Penalties in training: the same however a step is cut, resumed bit for bit, and doing what they are for."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.recipes import StopAt, StopError, changed, journal, steps, toy, toy_texts, weights, write_recipe
from tests.training.test_processes import assert_close, launch

from alter.errors import ConfigError
from alter.gatemap import specific_sites
from alter.model import MTAModel
from alter.recipe import PENALTIES, Recipe, load_recipe
from alter.training.run import train

LEARNED: dict[str, Any] = {"selector": {"kind": "selector", "own_weight": 0.6}, "gate": {"kind": "linear", "over": "all"}}
TAPS: dict[str, Any] = {"selector": {"kind": "taps"}}
# penalty -> an MTA it can act on, and the stage
WHERE: dict[str, tuple[dict[str, Any], str]] = {
    "mutual_information": (LEARNED, "stage2"),
    "load_balance": (LEARNED, "stage2"),
    "sparsity": (TAPS, "stage1"),
}
each_penalty = pytest.mark.parametrize("name", PENALTIES.names())


def settings(name: str, factor: float = 0.5, **more: Any) -> dict[str, Any]:
    """Return a short run with one penalty, in the stage where it acts; without dropout, so that cuts can be compared."""
    mta, stage = WHERE[name]
    stages = {"stage1": {"max_steps": 3}, "stage2": {"max_steps": 3}}
    stages[stage]["penalties"] = {name: factor}  # type: ignore[assignment]
    train_settings = {"per_device_train_batch_size": 8, "logging_steps": 1, **more}
    return {"mta": mta, "stages": stages, "heads": {"dropout": 0.0}, "train": train_settings}


def penalties_of(folder: Path) -> list[dict[str, float]]:
    return [line["penalties"] for line in steps(folder) if "penalties" in line]


def assert_same(one: Path, other: Path, *, tolerance: float) -> None:
    assert_close(one, other, tolerance=tolerance)
    assert penalties_of(one)
    for mine, theirs in zip(penalties_of(one), penalties_of(other), strict=True):
        assert mine == pytest.approx(theirs, abs=tolerance)


def test_every_penalty_has_its_runs_here() -> None:
    assert set(WHERE) == set(PENALTIES.names())


# ---- the same however a step is cut ----------------------------------------------------------------------------------


@each_penalty
def test_micro_batches_have_the_penalty_of_the_whole_step(name: str, tmp_path: Path) -> None:
    whole = toy(tmp_path, settings=settings(name))
    thirds = changed(whole, {"train": {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 3}})
    whole = changed(whole, {"train": {"per_device_train_batch_size": 9}})
    train(whole, output_dir=tmp_path / "whole")
    train(thirds, output_dir=tmp_path / "thirds")
    assert_same(tmp_path / "whole", tmp_path / "thirds", tolerance=2e-6)


def test_a_last_step_with_fewer_rows_than_micro_batches_has_the_same_penalty(tmp_path: Path) -> None:
    given = settings("mutual_information")
    given["stages"] = {
        "stage1": {"num_train_epochs": 0},
        "stage2": {"num_train_epochs": 2, "max_steps": None, "penalties": {"mutual_information": 1}},
    }
    whole = toy(tmp_path, tasks=["topic", "mood"], sizes={"train": 5}, settings=given)
    quarters = changed(whole, {"train": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}})
    train(whole, output_dir=tmp_path / "whole")
    train(quarters, output_dir=tmp_path / "quarters")
    assert len(penalties_of(tmp_path / "whole")) == 4
    assert_same(tmp_path / "whole", tmp_path / "quarters", tolerance=2e-6)


@each_penalty
def test_looking_ahead_draws_no_random_numbers(name: str, tmp_path: Path) -> None:
    """A penalty too small to matter leaves a run with dropout and micro-batches as it is."""
    given = settings(name, factor=1e-30, gradient_accumulation_steps=2)
    given["heads"] = {"dropout": 0.3}
    with_penalty = toy(tmp_path, dropout=0.2, settings=given)
    train(with_penalty, output_dir=tmp_path / "with")
    train(changed(with_penalty, {"stages": {WHERE[name][1]: {"penalties": {name: 0}}}}), output_dir=tmp_path / "without")
    assert_close(tmp_path / "with", tmp_path / "without", tolerance=1e-8)
    assert not penalties_of(tmp_path / "without")


@each_penalty
def test_recomputed_activations_change_nothing(name: str, tmp_path: Path) -> None:
    recipe = toy(tmp_path, settings=settings(name))
    train(recipe, output_dir=tmp_path / "plain")
    train(changed(recipe, {"train": {"gradient_checkpointing": True}}), output_dir=tmp_path / "recomputed")
    assert_same(tmp_path / "plain", tmp_path / "recomputed", tolerance=1e-6)


@pytest.mark.parametrize("name", ["t5", "gpt2"])
@pytest.mark.parametrize("granularity", ["sequence", "token"])
def test_models_that_write_count_the_tokens_that_they_read_or_write(name: str, granularity: str, tmp_path: Path) -> None:
    """Micro-batches pad differently, so a token of padding that counted would show."""
    given = settings("mutual_information")
    given["mta"] = {**LEARNED, "gate": {"kind": "linear", "over": "all", "granularity": granularity}}
    whole = toy_texts(tmp_path, name, settings=given)
    halves = changed(whole, {"train": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}})
    train(whole, output_dir=tmp_path / "whole")
    train(halves, output_dir=tmp_path / "halves")
    assert_same(tmp_path / "whole", tmp_path / "halves", tolerance=1e-5)


def test_packed_rows_have_the_penalty_of_rows_apart(tmp_path: Path) -> None:
    apart = toy_texts(tmp_path, "gpt2", settings=settings("mutual_information"))
    train(apart, output_dir=tmp_path / "apart")
    train(changed(apart, {"train": {"packing": True}}), output_dir=tmp_path / "packed")
    assert_same(tmp_path / "apart", tmp_path / "packed", tolerance=1e-5)


@each_penalty
def test_half_precision_gives_nearly_the_same_penalty(name: str, tmp_path: Path) -> None:
    recipe = toy(tmp_path, settings=settings(name))
    train(recipe, output_dir=tmp_path / "whole")
    train(changed(recipe, {"train": {"mixed_precision": "bf16"}}), output_dir=tmp_path / "half")
    for mine, theirs in zip(penalties_of(tmp_path / "whole"), penalties_of(tmp_path / "half"), strict=True):
        assert mine == pytest.approx(theirs, abs=0.02)


@pytest.mark.slow
def test_two_processes_have_the_penalty_of_one(tmp_path: Path) -> None:
    arguments: list[str] = []
    for name in PENALTIES.names():
        path = write_recipe(tmp_path / name, settings=settings(name))
        cut = yaml.safe_load(path.read_text())
        cut["train"] |= {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
        path.with_name("cut.yaml").write_text(yaml.safe_dump(cut))
        train(load_recipe(path), output_dir=tmp_path / name / "one")
        arguments += [str(path.with_name("cut.yaml")), str(tmp_path / name / "two")]
    launch("launched.py", arguments, tmp_path)
    for name in PENALTIES.names():
        assert_same(tmp_path / name / "one", tmp_path / name / "two", tolerance=1e-5)


# ---- resumed ---------------------------------------------------------------------------------------------------------


@each_penalty
def test_a_run_with_a_penalty_resumes_bit_for_bit(name: str, tmp_path: Path) -> None:
    given = settings(name, logging_steps=2, save_steps=1, gradient_accumulation_steps=2)
    given["heads"] = {"dropout": 0.2}
    recipe = toy(tmp_path, dropout=0.1, settings=given)
    train(recipe, output_dir=tmp_path / "whole")
    folder = tmp_path / "broken"
    while not (folder / "results.json").exists():
        with contextlib.suppress(StopError):
            train(recipe, output_dir=folder, resume=folder.exists(), observer=StopAt(1))
    assert weights(folder) == weights(tmp_path / "whole")
    assert journal(folder) == journal(tmp_path / "whole")
    assert penalties_of(folder)


# ---- what they are for -----------------------------------------------------------------------------------------------


def test_the_penalty_on_mutual_information_raises_it(tmp_path: Path) -> None:
    found = {}
    for factor in (0.0, 2.0):
        stage1 = {"max_steps": 12, "penalties": {"mutual_information": factor}, "lr_scheduler_type": "constant"}
        stage1["learning_rates"] = {"selector": 0.05}
        given = {"mta": LEARNED, "stages": {"stage1": stage1, "stage2": None}, "train": {"per_device_train_batch_size": 16}}
        run = train(
            toy(tmp_path / str(factor), tasks=["mood", "topic"], settings=given), output_dir=tmp_path / str(factor) / "run"
        )
        [(mine, other), (another, its)] = site_means(run.folder)
        # I(T; E) of two tasks alike in number, each with one adapter of two
        joint = [[mine / 2, other / 2], [another / 2, its / 2]]
        found[factor] = sum(p * math.log(p / (0.5 * (joint[0][e] + joint[1][e]))) for row in joint for e, p in enumerate(row))
        if factor:
            informed = [-line["mutual_information"] for line in penalties_of(run.folder)]
            assert informed[-1] > informed[0] + 0.1
    assert found[2.0] > found[0.0] + 0.1


def site_means(run: Path) -> list[list[float]]:
    """Return each task's weights of task adapters, averaged over sites."""
    gates = json.loads((run / "gates.json").read_text())["stages"]["stage1"]
    return [[sum(site[e] for site in sites) / len(sites) for e in range(len(gates))] for sites in gates]


@pytest.mark.parametrize(("factor", "share"), [(0.0, 1.0), (30.0, 0.0)])
def test_a_large_factor_switches_sites_off_and_none_keeps_them(factor: float, share: float, tmp_path: Path) -> None:
    given = {
        "mta": TAPS,
        "stages": {
            "stage1": {
                "max_steps": 12,
                "penalties": {"sparsity": factor},
                "learning_rates": {"selector": 0.05 if factor else 0.003},
            },
            "stage2": None,
        },
        "train": {"per_device_train_batch_size": 16},
    }
    run = train(toy(tmp_path, settings=given), output_dir=tmp_path / "run")
    gates = json.loads((run.folder / "gates.json").read_text())["stages"]["stage1"]
    assert specific_sites(gates, num_adapters=4) == [share] * 4
    told = [line["sparsity"] for line in penalties_of(run.folder)]
    assert told == sorted(told, reverse=True) if factor else told == []


def test_scores_of_taps_stay_between_0_and_1(tmp_path: Path) -> None:
    given = {**settings("sparsity", factor=30.0)}
    given["stages"] = {
        "stage1": {**given["stages"]["stage1"], "max_steps": 6, "learning_rates": {"selector": 0.2}},
        "stage2": None,
    }
    run = train(toy(tmp_path, settings=given), output_dir=tmp_path / "run")
    model = run.load().model
    scores = [float(p.detach()) for p in model.parameter_groups()["selector"].values()]
    assert len(scores) == 4 * len(model.mtas)
    assert all(0 <= score <= 1 for score in scores)
    assert 0.0 in scores


# ---- none, and refused -----------------------------------------------------------------------------------------------


def test_a_run_without_penalties_keeps_no_weights_and_says_nothing_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MTAModel, "trace_weights", None)  # would be called
    train(toy(tmp_path, tasks=["mood"]), output_dir=tmp_path / "run")
    assert penalties_of(tmp_path / "run") == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (
            {"stages": {"stage1": {"penalties": {"mutual_informaton": 1}}}},
            r"stages.stage1.penalties: unknown penalty 'mutual_informaton'; allowed: load_balance, .*Did you mean 'mutual_information'\?",
        ),
        ({"stages": {"stage1": {"penalties": {"sparsity": -1}}}}, r"stages.stage1.penalties.sparsity: .*greater than or equal to 0"),
        ({"stages": {"stage1": {"penalties": {"sparsity": 1}}}}, r"mta.selector.kind is one_hot, which has no scores; use kind taps"),
        ({"stages": {"stage1": {"penalties": {"mutual_information": 1}}}}, r"kind is one_hot, whose weights it cannot move; use kind sel"),
        ({"stages": {"stage2": {"penalties": {"load_balance": 1}}}, "mta": {"num_shared": 1}}, r"fewer than two shared adapters"),
        (
            {"stages": {"stage2": {"penalties": {"mutual_information": 1}, "trains": ["heads"]}}},
            r"the stage does not train the gate, which it would act on; add gate to trains",
        ),
    ],
)  # fmt: skip
def test_penalties_with_nothing_to_act_on_are_refused(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        toy(tmp_path, tasks=["mood", "topic"], settings=given)


def test_a_factor_of_zero_is_no_penalty_wherever_it_stands(tmp_path: Path) -> None:
    recipe: Recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": {"penalties": {"sparsity": 0}}}})
    train(recipe, output_dir=tmp_path / "run")
    assert penalties_of(tmp_path / "run") == []
