"""delta_m, spreads and small tasks, by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from alter.comparing.statistics import delta_m, small_tasks, spread, summarise
from alter.comparison import ArmResult, ArmRun, ComparedTask, Comparison, read_comparison, write_comparison
from alter.errors import CheckpointError
from alter.evaluation import split_scores
from alter.results import SplitScores, TaskScore
from alter.tasks.spec import TaskSpec

NAN = math.nan


def scores(tasks: Mapping[str, float], groups: Mapping[str, str] | None = None) -> SplitScores:
    found = {name: TaskScore(score=score, metric="accuracy", metrics={}, num_examples=9) for name, score in tasks.items()}
    return split_scores(found, {name: TaskSpec(name=name, group=(groups or {}).get(name)) for name in tasks})


def compared(rows: Mapping[str, int], groups: Mapping[str, str] | None = None) -> dict[str, ComparedTask]:
    return {
        name: ComparedTask(kind="classification", metric="accuracy", rows={"train": number}, group=(groups or {}).get(name))
        for name, number in rows.items()
    }


# ---- delta_m -------------------------------------------------------------------------------------------------------


def test_delta_m_is_the_mean_of_relative_gains() -> None:
    gain, left_out = delta_m(scores({"a": 55.0, "b": 40.0}), scores({"a": 50.0, "b": 80.0}))
    assert gain == pytest.approx((10.0 - 50.0) / 2)
    assert left_out == []


def test_delta_m_over_itself_is_nothing() -> None:
    same = scores({"a": 33.3, "b": 77.7})
    assert delta_m(same, same) == (0.0, [])


def test_groups_do_not_matter_to_delta_m() -> None:
    groups = {"a": "pair", "b": "pair"}
    gain, _ = delta_m(scores({"a": 60.0, "b": 60.0, "c": 60.0}, groups), scores({"a": 50.0, "b": 50.0, "c": 40.0}, groups))
    assert gain == pytest.approx((20 + 20 + 50) / 3)


@pytest.mark.parametrize("single", [0.0, 0.99, -12.0, NAN])
def test_a_task_whose_single_score_is_next_to_nothing_is_left_out_and_named(single: float) -> None:
    gain, left_out = delta_m(scores({"a": 55.0, "b": 40.0}), scores({"a": 50.0, "b": single}))
    assert (gain, left_out) == (pytest.approx(10.0), ["b"])


def test_a_single_score_of_one_percent_counts() -> None:
    assert delta_m(scores({"a": 2.0}), scores({"a": 1.0})) == (pytest.approx(100.0), [])


def test_a_score_that_is_no_number_is_left_out() -> None:
    assert delta_m(scores({"a": NAN, "b": 40.0}), scores({"a": 50.0, "b": 80.0})) == (pytest.approx(-50.0), ["a"])


def test_without_any_task_left_the_gain_is_no_number() -> None:
    gain, left_out = delta_m(scores({"a": 3.0, "b": 4.0}), scores({"a": 0.5, "b": 0.0}))
    assert math.isnan(gain)
    assert left_out == ["a", "b"]


# ---- over seeds ----------------------------------------------------------------------------------------------------


def test_a_spread_is_mean_and_deviation_over_n_less_one() -> None:
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.seeds) == (3.0, 3)
    assert found.sd == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


def test_one_seed_has_no_deviation() -> None:
    found = spread([5.0])
    assert (found.mean, found.seeds) == (5.0, 1)
    assert math.isnan(found.sd)


@pytest.mark.parametrize("values", [[NAN, 1.0], [1.0, NAN, 2.0], [NAN, NAN], [math.inf, 1.0]])
def test_a_number_that_is_none_breaks_nothing(values: list[float]) -> None:
    found = spread(values)
    assert not math.isfinite(found.mean)
    assert math.isnan(found.sd)
    assert found.seeds == len(values)


def run(seed: int, tasks: Mapping[str, float], groups: Mapping[str, str] | None = None) -> ArmRun:
    return ArmRun(seed=seed, splits={"test": scores(tasks, groups)})


def test_a_summary_by_hand() -> None:
    tasks = compared({"big": 5000, "one": 100, "two": 200}, groups={"one": "pair", "two": "pair"})
    groups = {"one": "pair", "two": "pair"}
    runs = [run(0, {"big": 60.0, "one": 30.0, "two": 50.0}, groups), run(1, {"big": 70.0, "one": 40.0, "two": 60.0}, groups)]
    singles = {
        0: run(0, {"big": 50.0, "one": 30.0, "two": 0.0}, groups),
        1: run(1, {"big": 70.0, "one": 20.0, "two": 30.0}, groups),
    }
    found = summarise(runs, singles, tasks, split="test", small=small_tasks(tasks, 3000))
    assert found is not None
    assert (found.average.mean, found.average.sd) == (pytest.approx(55.0), pytest.approx(math.sqrt(50.0)))  # 50 and 60
    assert found.small is not None
    assert (found.small.mean, found.small.seeds) == (pytest.approx(45.0), 2)  # 40 and 50: the pair's mean
    assert found.delta_m is not None
    # `two` is next to nothing with seed 0, so it is left out with seed 1 as well: means over seeds are of the same tasks.
    assert found.delta_m.mean == pytest.approx(((20 + 0) / 2 + (0 + 100) / 2) / 2)
    assert found.left_out == ["two"]
    assert {name: one.mean for name, one in found.tasks.items()} == {"big": 65.0, "one": 35.0, "two": 55.0}


def test_a_task_is_left_out_of_arms_that_lack_the_seed_it_is_faint_with() -> None:
    tasks = compared({"one": 100, "two": 200})
    singles = {0: run(0, {"one": 50.0, "two": 40.0}), 1: run(1, {"one": 50.0, "two": 0.5}), 2: run(2, {"one": NAN, "two": 40.0})}
    found = summarise([run(0, {"one": 60.0, "two": 80.0})], {0: singles[0], 1: singles[1]}, tasks, split="test", small=[])
    assert found is not None
    assert found.delta_m is not None
    assert (found.delta_m.mean, found.left_out) == (pytest.approx(20.0), ["two"])
    none = summarise([run(0, {"one": 60.0, "two": 80.0})], singles, tasks, split="test", small=[])
    assert none is not None
    assert none.delta_m is not None
    assert math.isnan(none.delta_m.mean)
    assert sorted(none.left_out) == ["one", "two"]


def test_a_summary_without_single_task_models_has_no_delta_m() -> None:
    tasks = compared({"a": 10})
    found = summarise([run(0, {"a": 60.0})], {}, tasks, split="test", small=[])
    assert found is not None
    assert (found.delta_m, found.small, found.left_out) == (None, None, [])
    other_seed = summarise([run(0, {"a": 60.0})], {1: run(1, {"a": 50.0})}, tasks, split="test", small=[])
    assert other_seed is not None
    assert other_seed.delta_m is None


def test_gains_that_are_none_in_one_seed_of_several_break_no_summary() -> None:
    singles = {0: run(0, {"a": 0.0}), 1: run(1, {"a": 50.0})}
    found = summarise([run(0, {"a": 60.0}), run(1, {"a": 60.0})], singles, compared({"a": 10}), split="test", small=[])
    assert found is not None
    assert found.delta_m is not None
    assert math.isnan(found.delta_m.mean)


def test_a_split_that_nothing_was_scored_on_has_no_summary() -> None:
    assert summarise([run(0, {"a": 60.0})], {}, compared({"a": 10}), split="validation", small=[]) is None
    assert summarise([], {}, compared({"a": 10}), split="test", small=[]) is None


def test_small_tasks_that_are_all_of_a_split_or_none_of_it_have_no_mean_of_their_own() -> None:
    tasks = compared({"big": 5000, "one": 100})
    for scored in ({"one": 40.0}, {"big": 60.0}):
        found = summarise([run(0, scored)], {}, tasks, split="test", small=["one"])
        assert found is not None
        assert found.small is None


@pytest.mark.parametrize(
    ("rows", "small"),
    [({"a": 2999, "b": 3000}, ["a"]), ({"a": 1, "b": 2}, []), ({"a": 3000, "b": 9999}, []), ({}, [])],
)
def test_small_tasks_are_some_and_not_all(rows: dict[str, int], small: list[str]) -> None:
    assert small_tasks(compared(rows), 3000) == small


# ---- the file ------------------------------------------------------------------------------------------------------


def comparison() -> Comparison:
    tasks = compared({"a": 10})
    runs = [run(0, {"a": 60.0})]
    summary = summarise(runs, {}, tasks, split="test", small=[])
    assert summary is not None
    arm = ArmResult(title="the method", family="alter", runs=runs, summary={"test": summary})
    return Comparison(recipe="toy", model="base", preset="alter-lite", seeds=[0], tasks=tasks, arms={"alter-lite": arm})


def test_what_is_no_number_is_null_in_the_file_and_comes_back(tmp_path: Path) -> None:
    write_comparison(comparison(), tmp_path)
    content = json.loads((tmp_path / "compare.json").read_text())
    assert next(iter(content)) == "schema"
    assert content["arms"]["alter-lite"]["summary"]["test"]["average"] == {"mean": 60.0, "sd": None, "seeds": 1}
    again = read_comparison(tmp_path)
    assert math.isnan(again.arms["alter-lite"].summary["test"].average.sd)
    assert again.model_dump_json() == comparison().model_dump_json()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"compare\.json: no such file; give the --output-dir of a finished `alter compare`"),
        ("{", r"compare\.json: cannot be read .* run `alter compare` again, which keeps finished arms"),
        ("[]", "not a comparison of schema 1"),
        ('{"schema": 2}', "not a comparison of schema 1"),
        ('{"schema": 1, "schema_version": 1}', "not a comparison of schema 1"),
        ('{"schema": 1, "recipe": "toy"}', "the key 'model' is missing"),
        ('{"schema": 1, "colour": "red"}', "changed by hand, or written by another version"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "compare.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        read_comparison(tmp_path)
