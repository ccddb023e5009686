"""Scores, plain answers and data, on numbers written by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from tests.reporting.by_hand import spread
from tests.reporting.folders import blocks_of, notes_of, reading_of, scores, tables_of, write_run

from alter.comparison import Comparison, Difference, Summary, write_comparison
from alter.reporting.arms import Column
from alter.reporting.run import gather
from alter.reporting.sections._standing import merged
from alter.reporting.sections.questions import answer
from alter.reporting.sections.scores import _cells
from alter.results import SplitScores, StageResult

Compared = tuple[Path, Comparison]


# scores


def test_arms_are_rows_of_a_table_and_the_best_of_a_column_is_bold_where_they_are_many(tmp_path: Path) -> None:
    runs = [
        write_run(tmp_path / f"run{n}", {"a": 50.0 + n, "b": 60.0 - n}, recipe=f"r{n}", labels={"a": [str(n)]}) for n in range(9)
    ]
    report = gather(runs)
    [(caption, table)] = tables_of(report, "scores").items()
    assert "bold" in caption
    assert table[0] == ["arm", "average", "a", "b"]
    assert table[3] == ["r2: stage 1 (released)", "55.0", "52.0", "58.0"]
    assert "r8: stage 1 (released) on 1" in reading_of(report, "scores")


def test_seeds_of_the_same_settings_are_one_arm_with_a_deviation(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"run{seed}", {"a": 50.0 + 2 * seed}, seed=seed) for seed in (0, 1)]
    [table] = tables_of(gather(runs), "scores").values()
    assert table == [["task", "stage 1 (released)"], ["a", "51.0 \u00b1 1.4"], ["average", "51.0 \u00b1 1.4"]]


def test_the_same_seed_twice_is_two_arms_called_after_their_folders(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, {"a": 50.0}) for name in ("one", "other")]
    [table] = tables_of(gather(runs), "scores").values()
    assert table[0] == ["task", "one: stage 1 (released)", "other: stage 1 (released)"]
    alike = [write_run(tmp_path / name / "run", {"a": 50.0}) for name in ("one", "other")]
    [table] = tables_of(gather(alike), "scores").values()
    assert table[0] == ["task", *(f"{run}: stage 1 (released)" for run in alike)]


def test_the_same_folder_twice_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": 50.0})
    [table] = tables_of(gather([run, tmp_path / "." / "run"]), "scores").values()
    assert table[0] == ["task", "stage 1 (released)"]


def test_yardsticks_and_both_stages_stand_beside_what_was_released(tmp_path: Path) -> None:
    stage = StageResult(average=40.0, seconds=1.0, trainable_parameters=1, scores={"a": 40.0}, test=scores({"a": 41.0}))
    stages = {"stage1": stage, "stage2": stage.model_copy(update={"average": 45.0, "scores": {"a": 45.0}})}
    run = write_run(
        tmp_path / "run", {"a": 46.0}, stages=stages, released="stage2", baselines={"majority": {"test": scores({"a": 12.0})}},
        splits={"test": scores({"a": 46.0}), "validation": scores({"a": 45.0})},
    )  # fmt: skip
    report = gather([run])
    test, validation = tables_of(report, "scores").values()
    assert test[:2] == [["task", "majority", "stage 1", "stage 2 (released)"], ["a", "12.0", "41.0", "46.0"]]
    assert validation[:2] == [["task", "stage 1", "stage 2 (released)"], ["a", "40.0", "45.0"]]
    assert "stage 2 (released) has the best average, 46.0; next comes stage 1 with 41.0" in reading_of(report, "scores")


def test_a_yardstick_of_one_seed_has_that_seed_alone(tmp_path: Path) -> None:
    yardsticks = {"majority": {"test": scores({"a": 12.0})}}
    runs = [write_run(tmp_path / f"run{seed}", {"a": 50.0}, seed=seed, baselines={} if seed else yardsticks) for seed in (0, 1)]
    report = gather(runs)
    [table] = tables_of(report, "scores").values()
    assert table[0] == ["task", "majority", "stage 1 (released)"]
    assert table[-1] == ["seeds", "0", "0, 1"]
    assert "Not all of them have the same seeds, so averages do not quite compare." in reading_of(report, "scores")


def test_a_split_has_the_seeds_that_were_scored_on_it(tmp_path: Path, compared: Compared) -> None:
    arm = compared[1].arms["majority"]
    lacking = arm.runs[1].model_copy(update={"splits": {"validation": arm.runs[1].splits["validation"]}})
    arms = {**compared[1].arms, "majority": arm.model_copy(update={"runs": [arm.runs[0], lacking]})}
    write_comparison(compared[1].model_copy(update={"arms": arms}), tmp_path)
    test, validation = tables_of(gather([tmp_path]), "scores").values()
    assert (test[-1][1], validation[-1][1]) == ("0", "0, 1")


def test_small_tasks_have_an_average_of_their_own_and_a_missing_score_is_a_dash(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": 40.0, "b": 60.0, "c": math.nan}, rows={"a": 100, "b": 2999, "c": 3000})
    [table] = tables_of(gather([run]), "scores").values()
    assert ["c", "-"] in table
    assert ["average of tasks below 3,000 training rows", "50.0"] in table


def test_one_answer_for_all_rows_cut_texts_and_no_labels_are_told(tmp_path: Path) -> None:
    found = scores({"a": 50.0})
    told = found.tasks["a"].model_copy(update={"constant_prediction": "yes", "num_truncated": 3, "num_invalid": 1})
    run = write_run(tmp_path / "run", {"a": 50.0}, splits={"test": SplitScores(average=50.0, tasks={"a": told})})
    text = " ".join(getattr(block, "text", "") for block in blocks_of(gather([run]), "scores"))
    assert "One and the same answer for every row, on test rows: hand on a (10 of 10)." in text
    assert "Texts that were cut at max_length, on test rows: hand on a (3 of 10)." in text
    assert "Answers that are no label or number, on test rows: hand on a (1 of 10)." in text


def test_delta_m_is_put_into_words(compared: Compared) -> None:
    assert (
        "alter-lite is 3.2 percent worse on average over tasks, relative to their scores (delta_m -3.2 \u00b1 0.5)"
        in reading_of(gather([compared[0]]), "scores")
    )


@pytest.mark.parametrize(
    ("means", "able", "bold"),
    [
        ([50.0, 60.0, 59.96], [True, True, True], [False, True, True]),
        ([50.0, 60.0, 70.0], [True, True, False], [False, True, False]),  # one lucky seed
        ([60.0, 60.0, 70.0], [True, True, False], [False, False, False]),  # alike, and the third is no match for them
        ([60.0, 60.0, math.nan], [True, True, True], [False, False, False]),
        ([math.nan, 50.0, 40.0], [True, True, True], [False, True, False]),
    ],
)
def test_the_best_is_bold_among_those_with_seeds_enough(means: list[float], able: list[bool], bold: list[bool]) -> None:
    cells = _cells([spread(mean) for mean in means], able, signed=False)
    assert [cell.is_best for cell in cells] == bold


def test_columns_with_all_scores_in_common_count_once() -> None:
    def column(name: str, a: float, b: float) -> Column:
        tasks = {"a": spread(a), "b": spread(b)}
        return Column(name=name, splits={"test": Summary(average=spread((a + b) / 2), tasks=tasks)})

    found = merged([column("one", 1.0, 2.0), column("two", 1.0, 2.0), column("three", 2.0, 1.0)], "test")
    assert [one.name for one in found] == ["one = two", "three"]


# plain answers


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 2, "better"), (-2, -0.1, "worse"), (-1, 1, "not told apart (interval holds 0)"), (math.nan, 1, "no interval")],
)
def test_a_difference_is_told_where_its_interval_leaves_out_zero(low: float, high: float, word: str) -> None:
    middle = -1.0 if high == -0.1 else 0.5
    one = Difference(question="?", arm="a", against="b", split="test", difference=middle, low=low, high=high)
    assert answer(one) == word


def test_one_seed_and_equal_scores_are_said() -> None:
    one = Difference(question="?", arm="a", against="b", split="test", difference=0.5, low=0.1, high=0.9, by_seed=[0.5])
    assert answer(one) == "better (one seed)"
    same = one.model_copy(update={"difference": 0.0, "low": 0.0, "high": 0.0, "by_seed": [0.0, 0.0]})
    assert answer(same) == "the same scores"
    apart = one.model_copy(update={"low": -0.1})
    assert answer(apart) == "not told apart (interval holds 0; one seed)"


def test_a_difference_needs_all_seeds_and_a_digit() -> None:
    one = Difference(question="?", arm="a", against="b", split="test", difference=0.5, low=0.1, high=0.9, by_seed=[1.1, -0.1])
    assert answer(one) == "not told apart (seeds disagree)"
    assert answer(one.model_copy(update={"by_seed": [0.6, 0.4]})) == "better"
    small = one.model_copy(update={"by_seed": [0.01, 0.01], "difference": 0.01, "low": 0.005, "high": 0.02})
    assert answer(small) == "not told apart (below 0.05 points)"


def test_the_answers_of_a_comparison_are_counted_and_the_first_question_is_answered(compared: Compared) -> None:
    """Not the one with the largest difference, which says least."""
    report = gather([compared[0]])
    said = reading_of(report, "answers")
    assert "3 questions: 1 better, 1 worse, 1 not told apart (with one seed)." in said
    assert "alter-lite against single-full: worse, -5.5 points (-7.0 to -4.0)." in said
    assert "majority" not in said
    assert "it does not mean that two arms are equal" in notes_of(report, "answers")
    [table] = tables_of(report, "answers").values()
    assert table[2][1:] == ["worse", "alter-lite", "single-full", "test", "-5.5", "-7.0 to -4.0", "-5.0, -6.0"]


def test_where_nothing_is_told_apart_the_reasons_are_all_that_is_said(tmp_path: Path, compared: Compared) -> None:
    """An interval may leave zero out and its seeds disagree: then it is not true that every interval holds zero."""
    one = compared[1].differences[0].model_copy(update={"by_seed": [20.0, -4.0], "split": "validation"})
    write_comparison(compared[1].model_copy(update={"differences": [one]}), tmp_path)
    said = reading_of(gather([tmp_path]), "answers")
    assert "1 question: 1 not told apart. No difference is told apart" in said
    assert "seeds disagree" in said


def test_an_arm_that_failed_says_why(compared: Compared) -> None:
    text = " ".join(getattr(block, "text", "") for block in blocks_of(gather([compared[0]]), "overview"))
    assert "one-go: seed 0: the loss is <nan>" in text


def test_what_went_wrong_is_told_with_the_remedy_at_its_end_for_every_seed(tmp_path: Path, compared: Compared) -> None:
    failed = "\n".join(f"seed {seed}: {'the loss is nan ' * 20}. Lower the rates" for seed in (0, 1))
    arms = {**compared[1].arms, "one-go": compared[1].arms["one-go"].model_copy(update={"failed": failed})}
    write_comparison(compared[1].model_copy(update={"arms": arms}), tmp_path)
    text = " ".join(getattr(block, "text", "") for block in blocks_of(gather([tmp_path]), "overview"))
    assert text.count("Lower the rates") == 2


@pytest.mark.parametrize("fewer", [True, False])
def test_arms_with_fewer_seeds_are_told(tmp_path: Path, compared: Compared, fewer: bool) -> None:
    arm = compared[1].arms["majority"]
    runs = arm.runs[:1] if fewer else arm.runs
    means = {split: one.average.model_copy(update={"seeds": len(runs)}) for split, one in arm.summary.items()}
    summary = {split: one.model_copy(update={"average": means[split]}) for split, one in arm.summary.items()}
    arms = {**compared[1].arms, "majority": arm.model_copy(update={"runs": runs, "summary": summary})}
    write_comparison(compared[1].model_copy(update={"arms": arms}), tmp_path)
    assert ("Not all of them have the same seeds" in reading_of(gather([tmp_path]), "scores")) == fewer


# data


def test_tasks_and_labels_are_listed(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", {"a": 50.0, "b": 1.0}, labels={"a": ["no", "yes"]}, kinds={"b": "regression"}, rows={"a": 7, "b": 8}
    )
    (run / "model").mkdir()
    config = {"tasks": [{"name": "a", "labels": ["maybe", "no", "yes"]}, {"name": "b", "kind": "regression"}]}
    (run / "model" / "alter_config.json").write_text(json.dumps(config))
    tasks = tables_of(gather([run]), "overview")["Tasks"]
    assert tasks[1] == ["a", "classification", "accuracy", "3: maybe, no and yes", "7", "-", "10"]
    assert tasks[2][:4] == ["b", "regression", "accuracy", "-"]


def test_environments_that_differ_are_told(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"run{n}", {"a": 50.0}, seed=n, environment={"alter": "1", "torch": f"2.{n}"}) for n in (0, 1)]
    report = gather(runs)
    assert "Not all numbers came from the same environment: torch differ" in reading_of(report, "environment")
    assert tables_of(report, "environment")["Versions and machine"][2] == ["torch", "2.0", "2.1"]


def test_an_arm_of_one_s_own_is_no_other_program_s_whatever_its_name(tmp_path: Path, compared: Compared) -> None:
    other = compared[1].arms["majority"]
    peer, own = (other.model_copy(update={"family": family}) for family in ("peer", "own"))
    arms = {"adapters-fusion": peer, "adapters-r8": own}
    write_comparison(compared[1].model_copy(update={"arms": arms, "differences": [], "environment": {}}), tmp_path)
    said = reading_of(gather([tmp_path]), "environment")
    assert said.startswith("The files do not say")
    assert "Trained by another program, whose versions are not known here: adapters-fusion." in said


def test_run_directories_that_have_no_environment_are_not_said_to_have_one(tmp_path: Path, compared: Compared) -> None:
    write_run(tmp_path / "arms/alter-lite/seed0", {"a": 60.0}, environment={"alter": "1", "torch": "2"})
    write_run(tmp_path / "arms/alter-lite/seed1", {"a": 60.0}, seed=1)
    write_comparison(compared[1], tmp_path)
    assert "All run directories that say so have alter 1, torch 2;" in reading_of(gather([tmp_path]), "environment")


# several recipes


def test_arms_of_one_recipe_with_other_presets_are_called_after_both(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / preset, {"a": 50.0}, preset=preset) for preset in ("alter", "alter-lite")]
    [table] = tables_of(gather(runs), "scores").values()
    assert table[0] == ["task", "hand (alter): stage 1 (released)", "hand (alter-lite): stage 1 (released)"]


def test_averages_over_different_tasks_are_said_not_to_compare(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / task, {task: 50.0}, recipe=task) for task in ("a", "b")]
    assert "Not all of them have the same tasks, so their averages do not compare." in reading_of(gather(runs), "scores")


def test_an_average_that_is_no_number_is_told(tmp_path: Path) -> None:
    report = gather([write_run(tmp_path / "run", {"a": math.nan})])
    assert "On test rows no average is a number" in reading_of(report, "scores")
