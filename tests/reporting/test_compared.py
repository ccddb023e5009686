"""What a comparison's page says first, which stage scores are of, and what is said with care, on numbers written by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from tests.reporting.by_hand import TWO_STAGES, asked, costly, hand, released
from tests.reporting.folders import arm_of, blocks_of, notes_of, reading_of, scores, tables_of, write_arms

from alter.comparison import ArmResult, Budget
from alter.reporting.blocks import Report, Table
from alter.reporting.json_text import to_json
from alter.reporting.markdown_text import to_markdown
from alter.reporting.run import gather


def gates(*stages: str) -> dict[str, ArmResult]:
    """Return an arm, and three gates on the same stage 1 that all kept it with seed 0."""
    mine = hand("alter", {0: 60.0, 1: 62.0}, stages=TWO_STAGES, released=released(*stages))
    return {"alter-lite": mine} | {
        f"gate-{name}": hand("gate", {0: 60.0}, stages={**TWO_STAGES, "stage1": (50.0, None)}, released=released("stage1"))
        for name in ("task", "linear", "outputs")
    } | {"stage1": hand("stage2", {0: 60.0, 1: 62.0}, stages={"stage1": (50.0, 60.0)}, released=released("stage1", "stage1"))}  # fmt: skip


SAME = [asked(f"gate-{name}", [0.0], question=f"Is the recipe's gate better than gate-{name}?", low=0.0, high=0.0)
        for name in ("task", "linear", "outputs")]  # fmt: skip


# which stage


def test_the_stage_that_was_released_is_told_by_seed_with_what_both_reached(tmp_path: Path) -> None:
    report = gather([write_arms(tmp_path, gates("stage1", "stage2"))])
    assert "alter-lite released stage 1 with seed 0, stage 2 with seed 1, the stage with the best validation" in reading_of(
        report, "scores"
    )
    table = tables_of(report, "scores")["Stage by stage, averages over tasks at the best step"]
    assert table[1][:5] == ["alter-lite", "0, 1", "stage 1, stage 2", "50.0 \u00b1 0.0", "49.0 \u00b1 0.0"]
    assert table[1][5:] == ["60.0 \u00b1 0.0", "61.5 \u00b1 0.0", "+1.5, +1.5"]
    assert table[2] == ["gate-task", "0", "stage 1", "50.0", "49.0", "60.0", "61.5", "+1.5"], "the test average of the arm stage1"
    assert "stage1" not in [row[0] for row in table]


def test_arms_that_kept_one_stage_1_are_told_and_their_questions_are_one_row(tmp_path: Path) -> None:
    report = gather([write_arms(tmp_path, gates("stage1", "stage1"), SAME)])
    assert "gate-task, gate-linear and gate-outputs have the same scores: they released one and the same stage 1" in reading_of(
        report, "scores"
    )
    [table] = tables_of(report, "answers").values()
    [row] = table[1:]
    assert row[:4] == [
        "Is the recipe's gate better than gate-task, gate-linear and gate-outputs?",
        "the same scores (one seed; both released the same stage 1)",
        "alter-lite",
        "3 arms",
    ]
    [section] = [one for one in to_json(report)["sections"] if one["key"] == "answers"]
    assert section["blocks"][0]["rows"][0][3] == ["gate-task", "gate-linear", "gate-outputs"], "JSON has them all"


def test_seeds_with_which_both_kept_one_stage_1_are_told(tmp_path: Path) -> None:
    question = asked("stage1", [0.0, 0.1], low=-0.2, high=0.3)
    report = gather([write_arms(tmp_path, gates("stage1", "stage2"), [question])])
    [table] = tables_of(report, "answers").values()
    assert table[1][1] == "not told apart (interval holds 0; both released the same stage 1 with seed 0)"


def test_a_question_on_weights_says_that_they_are_stage_1_s(tmp_path: Path) -> None:
    arms = {**gates("stage1", "stage2"), "uniform-weights": hand("ablation", {0: 57.0}), "no-task": hand("ablation", {1: 57.0})}
    report = gather([write_arms(tmp_path, arms, [asked("uniform-weights", [3.0]), asked("no-task", [5.0])])])
    [table] = tables_of(report, "answers").values()
    assert [row[1] for row in table[1:]] == ["better (one seed; stage 1's weights)", "better (one seed)"]
    assert "not about those that the gate of stage 2 learnt" in notes_of(report, "answers")


# in short


def test_the_answers_that_matter_most_come_first(tmp_path: Path) -> None:
    cost = Budget(trainable_parameters=1_000_000, relative_time=0.7)
    mine = hand("alter", {0: 60.0, 1: 62.0}, stages=TWO_STAGES, released=released("stage1", "stage1"), budget=cost)
    full = hand("per-task", {0: 59.0, 1: 64.0}, budget=Budget(trainable_parameters=9_000_000, relative_time=1.5))
    arms = {"tfidf": hand("yardstick", {0: 40.0, 1: 41.0}), "single-full": full, "alter-lite": mine}
    report = gather(
        [write_arms(tmp_path, arms, [asked("tfidf", [20.0, 21.0]), asked("single-full", [1.0, -2.0], low=-0.9, high=-0.1)])]
    )
    lines = to_markdown(report).replace("\u00a0", " ").splitlines()
    assert lines[2] == "## In short"
    assert lines[4:10] == [
        "- alter-lite, the recipe as it stands, has an average of 61.0 \u00b1 1.4 percent on test rows (1 task, 2 seeds).",
        "- Against single-full (an arm of family per-task; average 61.5): not told apart (seeds disagree), -0.5 points (-0.9 to -0.1).",
        "- Against tfidf (an arm of family yardstick; average 40.5): better, +20.5 points (+20.1 to +20.9).",
        "- Released: stage 1 with all 2 seeds.",
        "- Cost: 1 M trained parameters, 0.70 times the time of multi-full; single-full has 9 M (1.50 times the time).",
        "",
    ]


def test_answers_are_those_of_the_arm_that_is_looked_at(tmp_path: Path) -> None:
    arms = {"multi-full": hand("one-model", {0: 60.0}), "alter-lite": hand("alter", {0: 62.0}), "mine": hand("own", {0: 65.0})}
    mine = asked("multi-full", [5.0]).model_copy(update={"arm": "mine"})
    report = gather([write_arms(tmp_path, arms, [mine, asked("multi-full", [2.0])])])
    assert "Against multi-full (an arm of family one-model; average 60.0): better (one seed), +2.0 points" in reading_of(
        report, "short"
    )
    assert "alter-lite against multi-full: better (one seed), +2.0 points" in reading_of(report, "answers")


@pytest.mark.parametrize("against", ["multi-full", "single-full"])
def test_an_answer_of_another_arm_is_none_of_the_one_that_is_looked_at(tmp_path: Path, against: str) -> None:
    """Case one: no run of the recipe, and the best variant is asked nothing. Case two: the recipe has no seed in common with `against`."""
    best = ("stage1", hand("stage2", {0: 66.0})) if against == "multi-full" else ("alter-lite", hand("alter", {0: 66.0}))
    arms = {against: hand("one-model", {1: 60.0}), best[0]: best[1], "mine": hand("own", {1: 55.0})}
    report = gather([write_arms(tmp_path, arms, [asked(against, [-5.0]).model_copy(update={"arm": "mine"})])])
    assert f"{best[0]}" in reading_of(report, "short")
    assert "Against" not in reading_of(report, "short")
    assert f"mine against {against}: worse (one seed), -5.0 points" in reading_of(report, "answers")


# scores


def test_averages_that_read_alike_are_no_ranking_and_the_recipe_is_always_told(tmp_path: Path) -> None:
    arms = {
        "one": hand("own", {0: 61.01}),
        "other": hand("own", {0: 61.04}),
        "alter-lite": hand("alter", {0: 60.0}),
    }
    said = reading_of(gather([write_arms(tmp_path, arms)]), "scores")
    assert said.startswith("On test rows other and one share the best average, 61.0. alter-lite has 60.0.")


def test_tasks_without_rows_win_nothing(tmp_path: Path) -> None:
    arms = {name: arm_of("own", {0: {"test": scores({"a": level, "b": level})}}) for name, level in (("x", 50.0), ("y", 60.0))}
    report = gather([write_arms(tmp_path, arms, rows={"a": 10, "b": 10, "c": 0})])
    assert "Best score by task, of 2 tasks: y on 2 (ties count for each); c has no test rows." in reading_of(report, "scores")


def test_a_gain_stands_beside_the_answer_of_its_question(tmp_path: Path) -> None:
    arms = {"single-full": hand("per-task", {0: 58.0}), "alter-lite": hand("alter", {0: 60.0}, delta_m=3.6)}
    report = gather([write_arms(tmp_path / "asked", arms, [asked("single-full", [2.0], low=-1.0, high=5.0)])])
    said = "alter-lite is 3.6 percent better on average over tasks"
    assert said in reading_of(report, "scores")
    assert "as a difference of averages: not told apart (interval holds 0; one seed)." in reading_of(report, "scores")
    assert "; one seed" not in reading_of(gather([write_arms(tmp_path / "both", {
        **arms, "alter-lite": hand("alter", {0: 60.0, 1: 60.0}, delta_m=3.6)})]), "scores")  # fmt: skip


@pytest.mark.parametrize("many", [True, False])
def test_a_table_has_the_seeds_and_of_many_arms_the_average_first(tmp_path: Path, many: bool) -> None:
    arms = {f"own-{number}": hand("own", {0: 50.0 + number}) for number in range(8 if many else 2)}
    report = gather([write_arms(tmp_path, {"alter-lite": hand("alter", {0: 60.0, 1: 62.0}), **arms})])
    table = tables_of(report, "scores")
    [rows] = [found for caption, found in table.items() if caption.startswith("Scores on test rows")]
    if many:
        assert rows[0] == ["arm", "seeds", "average", "delta_m", "a"]
        assert rows[1][:2] == ["alter-lite", "0, 1"]
    else:
        assert [row[0] for row in rows] == ["task", "a", "average", "delta_m", "seeds"]
        assert rows[-1] == ["seeds", "0, 1", "0", "0"]
    assert "not with arms that have other seeds" in notes_of(report, "scores")


def test_what_happened_to_many_arms_is_told_task_by_task(tmp_path: Path) -> None:
    arms = {}
    for number in range(6):
        found = scores({"a": 50.0})
        cut = found.tasks["a"].model_copy(update={"num_truncated": 2 + number % 2})
        arms[f"own-{number}"] = arm_of("own", {0: {"test": found.model_copy(update={"tasks": {"a": cut}})}})
    said = notes_of(gather([write_arms(tmp_path, arms)]), "scores")
    assert "Texts that were cut at max_length, on test rows: own-0, own-1, own-2 and 3 more on a (2 to 3 of 10)." in said


# overview


def test_arms_without_scores_are_counted_apart_and_messages_of_seeds_too(tmp_path: Path) -> None:
    lost = ArmResult(title="gone", family="own", failed="seed 0: no memory\nseed 1: no time")
    report = gather([write_arms(tmp_path, {"alter-lite": hand("alter", {0: 60.0}), "lost": lost})])
    assert "2 arms side by side on 1 classification task with 5 training rows, 1 of which has scores." in reading_of(
        report, "overview"
    )
    assert "No seed of an arm came through. lost: seed 0: no memory; seed 1: no time" in notes_of(report, "overview")
    [arms] = [block for block in blocks_of(report, "overview") if isinstance(block, Table) and block.caption == "Arms"]
    assert arms.columns[-1] == "number of seeds"


# quality


def quality(folder: Path, **more: ArmResult) -> Report:
    arms = {
        "alter-lite": hand("alter", {0: 60.0, 1: 62.0}, budget=costly(100)),
        "multi-full": hand("one-model", {0: 60.0, 1: 62.04}, budget=costly(900)),
        "lucky": hand("gate", {0: 70.0}, budget=costly(50)),
    }
    return gather([write_arms(folder, {**arms, **more})])


def test_the_front_is_of_arms_with_the_seeds_of_the_recipe_and_ties_are_the_cheaper_one_s(tmp_path: Path) -> None:
    said = reading_of(quality(tmp_path), "quality")
    assert (
        "Of arms trained with seeds 0 and 1, nothing with fewer trained parameters is as good as alter-lite (100, 61.0)." in said
    )
    assert "nothing quicker is as good as alter-lite (1.00, 61.0)." in said
    assert "lucky" not in said


def test_what_trains_nothing_and_is_better_is_told(tmp_path: Path) -> None:
    report = quality(tmp_path, tfidf=hand("yardstick", {0: 80.0, 1: 80.0}), majority=hand("yardstick", {0: 10.0, 1: 10.0}))
    said = reading_of(report, "quality")
    assert "tfidf, which trains no language model, has 80.0: at least as much as each of them." in said
    assert "majority" not in said


def test_arms_that_a_chart_lacks_are_told_by_chart(tmp_path: Path) -> None:
    quick = hand("own", {0: 50.0, 1: 50.0}, budget=Budget(relative_time=0.1))
    report = quality(tmp_path, tfidf=hand("yardstick", {0: 20.0, 1: 20.0}), quick=quick)
    assert "In neither chart, for what they cost is nothing or unknown: tfidf (20.0)." in notes_of(report, "quality")
    assert "Not in the first chart, for what they cost is nothing or unknown: quick (50.0)." in notes_of(report, "quality")


def test_an_arm_without_a_number_is_no_point(tmp_path: Path) -> None:
    assert "broken" not in reading_of(quality(tmp_path, broken=hand("own", {0: math.nan}, budget=costly(1))), "quality")
