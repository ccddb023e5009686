"""What a comparison's page does not say: nothing of stages, averages, seeds and costs that are not there or not shared."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.reporting.by_hand import TWO_STAGES, asked, costly, hand, released
from tests.reporting.folders import arm_of, reading_of, scores, tables_of, write_arms

from alter.comparison import Budget
from alter.reporting.run import gather

ONE_STAGE = {"stage1": TWO_STAGES["stage1"]}


@pytest.mark.parametrize(
    ("other", "stages"),
    [("multi-full", ONE_STAGE), ("alter", {**TWO_STAGES, "stage1": (51.0, 60.0)}), ("stage1-longer", ONE_STAGE)],
    ids=["another training in one stage", "a stage 1 of its own", "a longer stage 1"],
)
def test_arms_that_score_the_same_by_chance_share_no_stage_1(
    tmp_path: Path, other: str, stages: dict[str, tuple[float, float | None]]
) -> None:
    mine = hand("alter", {0: 100.0}, stages=TWO_STAGES, released=released("stage1"))
    arms = {other: hand("own", {0: 100.0}, stages=stages, released=released("stage1")), "alter-lite": mine}
    report = gather([write_arms(tmp_path, arms, [asked(other, [0.0], low=0.0, high=0.0)])])
    assert f"{other} = alter-lite has an average of 100.0" in reading_of(report, "scores")
    assert "one and the same stage 1" not in reading_of(report, "scores")
    [table] = tables_of(report, "answers").values()
    assert table[1][1] == "the same scores (one seed)"


@pytest.mark.parametrize("has_validation", [True, False])
def test_what_has_no_validation_average_is_chosen_as_the_first(tmp_path: Path, has_validation: bool) -> None:
    splits = ("test", "validation") if has_validation else ("test",)
    found = {name: {split: scores({"a": level}) for split in splits} for name, level in (("own-a", 60.0), ("own-b", 62.0))}
    report = gather([write_arms(tmp_path, {name: arm_of("own", {0: one}) for name, one in found.items()})])
    chosen = "own-b" if has_validation else "own-a"
    why = "has the best average" if has_validation else "is the first, for none has one"
    said = f"Looked at closely is {chosen}: alter-lite, the recipe as it stands, has no run; of the method's variants it {why} on"
    assert f"{said} validation rows." in reading_of(report, "short")


def test_an_average_that_is_no_number_is_told_with_the_task_that_lacks_a_score(tmp_path: Path) -> None:
    arms = {
        "multi-full": arm_of("one-model", {0: {"test": scores({"a": 60.0, "b": 50.0})}}, budget=costly(900)),
        "tfidf": arm_of("yardstick", {0: {"test": scores({"a": 61.0, "b": 51.0})}}),
        "alter-lite": arm_of("alter", {0: {"test": scores({"a": 60.0, "b": math.nan})}}, budget=costly(100)),
    }
    question = asked("multi-full", [math.nan], low=math.nan, high=math.nan)
    report = gather([write_arms(tmp_path, arms, [question], rows={"a": 10, "b": 10})])
    short = reading_of(report, "short")
    assert "alter-lite, the recipe as it stands, has no average on test rows: b has no score." in short
    assert "Against multi-full (an arm of family one-model; average 55.0): no interval (one seed). Cost" in short
    said = reading_of(report, "scores")
    assert "next comes multi-full with 55.0. Best" in said, "and not: alter-lite has -"
    assert "alter-lite has no average: b has no score." in said
    assert "no interval (one seed)." in reading_of(report, "answers")
    assert "Fewer than two arms have a known cost and an average" in reading_of(report, "quality")


def test_a_difference_without_an_interval_has_no_brackets(tmp_path: Path) -> None:
    arms = {"multi-full": hand("one-model", {0: 60.0}), "alter-lite": hand("alter", {0: 62.0})}
    report = gather([write_arms(tmp_path, arms, [asked("multi-full", [2.0], low=math.nan, high=math.nan)])])
    assert "no interval (one seed), +2.0 points." in reading_of(report, "short")


def test_an_arm_without_an_average_is_told_without_one(tmp_path: Path) -> None:
    arms = {"multi-full": hand("one-model", {0: math.nan}), "alter-lite": hand("alter", {0: 62.0})}
    question = asked("multi-full", [math.nan], low=math.nan, high=math.nan)
    report = gather([write_arms(tmp_path, arms, [question])])
    assert "Against multi-full (an arm of family one-model): no interval (one seed)." in reading_of(report, "short")


def test_a_question_on_an_arm_that_is_not_there_is_answered(tmp_path: Path) -> None:
    report = gather([write_arms(tmp_path, {"alter-lite": hand("alter", {0: 60.0})}, [asked("tfidf", [1.0])])])
    assert "Against tfidf: better (one seed), +1.0 points (+0.6 to +1.4)." in reading_of(report, "short")


@pytest.mark.parametrize("is_asked", [True, False])
@pytest.mark.parametrize(
    ("seeds", "best"), [((2, 3), ""), ((2,), "called the best is one of those with 2 seeds or more")], ids=["others", "fewer"]
)
def test_averages_over_other_seeds_are_told(tmp_path: Path, seeds: tuple[int, ...], best: str, is_asked: bool) -> None:
    arms = {"multi-full": hand("one-model", dict.fromkeys(seeds, 60.0)), "alter-lite": hand("alter", {0: 60.0, 1: 61.0})}
    report = gather([write_arms(tmp_path, arms, [asked("multi-full", [1.0])] if is_asked else [])])
    more = "; ".join(part for part in (best, "the questions take the same seeds" if is_asked else "") if part)
    said = f"Not all of them have the same seeds, so averages do not quite compare{f': {more}' if more else ''}."
    assert said in reading_of(report, "scores")


def test_one_model_a_task_is_not_held_against_itself(tmp_path: Path) -> None:
    report = gather([write_arms(tmp_path, {"single-full": hand("per-task", {0: 60.0}), "tfidf": hand("yardstick", {0: 50.0})})])
    assert "Looked at closely is single-full" in reading_of(report, "short")
    assert "Against one fine-tuned model a task" not in reading_of(report, "scores")


def test_of_many_arms_with_the_same_scores_some_are_named_and_the_recipe_is_told(tmp_path: Path) -> None:
    others = {f"own-{number}": hand("own", {0: 60.0}, budget=costly(5)) for number in range(20)}
    arms = {"low": hand("own", {0: 50.0}, budget=costly(9)), **others, "alter-lite": hand("alter", {0: 60.0}, budget=costly(5))}
    report = gather([write_arms(tmp_path, arms)])
    scored, drawn = reading_of(report, "scores"), reading_of(report, "quality")
    assert scored.startswith(
        "On test rows own-0 = own-1 = own-2 = own-3 = own-4 = 16 more has the best average, 60.0; next comes"
    )
    assert "alter-lite has 60.0." in scored
    assert "is as good as alter-lite = own-0 = own-1 = own-2 = own-3 = 16 more (5, 60.0)." in drawn


@pytest.mark.parametrize("best", [61.0, 60.04], ids=["comes next", "shares the best"])
def test_among_many_averages_that_read_alike_the_recipe_is_named(tmp_path: Path, best: float) -> None:
    near = {f"own-{number}": hand("own", {0: 60.0 + number / 1000}) for number in range(1, 9)}
    report = gather([write_arms(tmp_path, {"top": hand("own", {0: best}), **near, "alter-lite": hand("alter", {0: 60.0})})])
    named = "next come alter-lite, own-8" if best == 61 else "On test rows alter-lite, top"
    assert named in reading_of(report, "scores")


@pytest.mark.parametrize("has_size", [True, False])
def test_where_no_cost_of_the_seeds_is_known_nothing_is_held_against_it(tmp_path: Path, has_size: bool) -> None:
    mine = Budget(trainable_parameters=100 if has_size else None, seconds=5.0)
    arms = {name: hand("one-model", {2: 60.0}, budget=costly(900)) for name in ("multi-full", "shared-lora")}
    arms["alter-lite"] = hand("alter", {0: 60.0, 1: 61.0}, budget=mine)
    said = reading_of(gather([write_arms(tmp_path, arms)]), "quality")
    told = "nothing with fewer trained parameters is as good as alter-lite (100, 60.5)."
    expected = told if has_size else "none has a known cost and an average."
    assert said == f"Of arms trained with seeds 0 and 1, {expected}"
