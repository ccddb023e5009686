"""Curves, gate weights, confusions and worst answers, on numbers written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.reporting.folders import blocks_of, figures_of, reading_of, scores, tables_of, write_gates, write_lines, write_run

from alter.comparison import Comparison
from alter.reporting.blocks import Examples
from alter.reporting.run import gather
from alter.results import StageResult

Compared = tuple[Path, Comparison]


def answer(given: Any, right: Any, score: float | None = None, **more: Any) -> dict[str, Any]:
    return {"input": f"{given} for {right}", "prediction": given, "target": right, "score": score, **more}


# curves


def journal(folder: Path, lines: list[tuple[str, str, int, Any]]) -> None:
    write_lines(folder / "metrics.jsonl", [
        {"event": event, "stage": stage, "step": step, **({"losses": value} if event == "step" else {"average": value})}
        for event, stage, step, value in lines
    ])  # fmt: skip


def test_losses_are_means_over_seeds_and_stage_2_goes_on_from_stage_1(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"run{seed}", {"a": 50.0}, seed=seed) for seed in (0, 1)]
    for seed, run in enumerate(runs):
        journal(run, [
            ("step", "stage1", 10, {"a": 2.0 + seed}), ("step", "stage1", 20, {"a": 1.0 + seed}), ("validation", "stage1", 20, 40.0 + seed),
            ("step", "stage2", 10, {"a": 0.5} if seed else {"a": 0.5, "b": 9.0}), ("validation", "stage2", 10, 45.0),
        ])  # fmt: skip
    losses, validation = figures_of(gather(runs), "curves")
    [series] = losses.series  # b was logged by one seed alone
    assert (series.name, series.x, series.y) == ("a", [10, 20, 30], [2.5, 1.5, 0.5])
    assert losses.marks == [(20.0, "stage 2")]
    assert [(one.name, one.x, one.y) for one in validation.series] == [
        ("seed 0", [20, 30], [40.0, 45.0]),
        ("seed 1", [20, 30], [41.0, 45.0]),
    ]


def test_a_line_by_itself_is_named_in_the_title_and_one_validation_is_no_curve(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"mood": 50.0})
    journal(run, [
        ("step", "stage1", 10, {"mood": 2.0}), ("step", "stage1", 20, {"mood": 1.0}), ("validation", "stage1", 20, 40.0),
    ])  # fmt: skip
    report = gather([run])
    assert [chart.title for chart in figures_of(report, "curves")] == ["Training loss of mood"]
    assert "best validation average" in tables_of(report, "curves")["Stages"][0]


@pytest.mark.parametrize(("precision", "told"), [("bf16", True), ("no", False)])
def test_validation_in_another_number_format_is_told(tmp_path: Path, precision: str, told: bool) -> None:
    splits = {split: scores({"a": 50.0}) for split in ("test", "validation")}
    run = write_run(tmp_path / "run", {"a": 50.0}, splits=splits, environment={"precision": precision})
    journal(run, [("step", "stage1", 10, {"a": 2.0})])
    assert ("in the training's number format" in reading_of(gather([run]), "curves")) == told


def test_many_tasks_have_several_charts_and_many_steps_are_thinned(tmp_path: Path) -> None:
    tasks = {f"t{number}": 50.0 for number in range(8)}
    run = write_run(tmp_path / "run", tasks)
    journal(run, [("step", "stage1", step, {task: float(step) for task in tasks}) for step in range(1, 1001)])
    charts = figures_of(gather([run]), "curves")
    assert [len(chart.series) for chart in charts] == [4, 4]
    assert charts[0].y_label == "training loss (mean since last logged step)"
    assert all(len(series.x) <= 150 for chart in charts for series in chart.series)
    assert charts[0].series[0].y[0] == pytest.approx(4.0)  # the mean of steps 1 to 7


def test_a_stage_1_taken_from_another_run_brings_its_curve(tmp_path: Path) -> None:
    first = write_run(tmp_path / "arms" / "stage1" / "seed0", {"a": 50.0})
    journal(first, [("step", "stage1", 10, {"a": 2.0}), ("step", "stage2", 10, {"a": 7.0})])
    stage = StageResult(average=1.0, seconds=1.0, trainable_parameters=1, taken_from="/gone/arms/stage1/seed0")
    second = write_run(tmp_path / "arms" / "gate" / "seed0", {"a": 50.0}, stages={"stage1": stage})
    journal(second, [("step", "stage2", 10, {"a": 1.0})])
    [losses] = figures_of(gather([second]), "curves")
    assert losses.series[0].y == [2.0, 1.0]


# gates and affinity


def gated(folder: Path, weights_TLE: Any, *, adapters: list[str] | None = None, seed: int = 0) -> Path:
    tasks = ["a", "b", "c"][: len(weights_TLE)]
    run = write_run(folder, dict.fromkeys(tasks, 50.0), seed=seed)
    write_gates(
        run,
        {"stage2": weights_TLE},
        tasks=tasks,
        adapters=adapters or [*tasks, "shared-0"],
        sites=list(range(len(weights_TLE[0]))),
    )
    return run


def test_shares_are_of_the_whole_weight_over_sites(tmp_path: Path) -> None:
    a, b, c = [[0.8, 0.2, 0, 1.0], [0.4, 0.6, 0, 1.0]], [[0, 1.0, 0, 0], [0, 1.0, 0, 0]], [[0, 0, 0, 0], [0, 0, 0, 0]]
    report = gather([gated(tmp_path / "run", [a, b, c])])
    [table] = tables_of(report, "gates").values()
    assert table[1:] == [
        ["a", "30.0", "20.0", "50.0", "b (20.0)"], ["b", "100.0", "0.0", "0.0", "-"], ["c", "0.0", "0.0", "0.0", "-"],
        ["mean", "43.3", "6.7", "16.7", ""],
    ]  # fmt: skip
    assert "a borrows most from another task's adapter, 20.0 % of its weight from b" in reading_of(report, "gates")
    whole, *sites = figures_of(report, "gates")
    assert whole.values[0] == pytest.approx([0.6, 0.4, 0.0, 1.0])
    assert [site.title for site in sites] == ["site 0", "site 1"]


def test_maps_are_means_over_seeds_and_shares_have_a_deviation(tmp_path: Path) -> None:
    runs = [
        gated(
            tmp_path / f"run{seed}",
            [[[1.0 - seed / 2, seed / 2, 0.0]], [[0.0, 1.0, 0.0]]],
            adapters=["a", "b", "shared-0"],
            seed=seed,
        )
        for seed in (0, 1)
    ]
    report = gather(runs)
    assert figures_of(report, "gates")[0].values[0] == pytest.approx([0.75, 0.25, 0.0])
    [table] = tables_of(report, "gates").values()
    assert table[1][:3] == ["a", "75.0 \u00b1 35.4", "25.0 \u00b1 35.4"]


def test_fewer_adapters_than_tasks_are_owned_in_turn(tmp_path: Path) -> None:
    report = gather([gated(tmp_path / "run", [[[1.0, 0.0]], [[0.0, 1.0]], [[0.75, 0.25]]], adapters=["adapter-0", "adapter-1"])])
    [table] = tables_of(report, "gates").values()
    assert table[3] == ["c", "75.0", "25.0", "0.0", "adapter-1 (25.0)"]


def test_affinity_is_the_cosine_over_sites_and_adapters(tmp_path: Path) -> None:
    run = gated(
        tmp_path / "run", [[[1.0, 0, 0, 0], [1.0, 0, 0, 0]], [[1.0, 0, 0, 0], [0, 1.0, 0, 0]], [[0, 0, 1.0, 0], [0, 0, 1.0, 0]]]
    )
    report = gather([run])
    matrix, tree = figures_of(report, "affinity")
    by_name = {(row, column): matrix.values[i][j] for i, row in enumerate(matrix.rows) for j, column in enumerate(matrix.columns)}
    assert by_name["a", "b"] == pytest.approx(0.5)
    assert by_name["a", "c"] == by_name["c", "b"] == pytest.approx(0.0)
    assert sorted(tree.leaves) == ["a", "b", "c"]
    assert [max(heights) for heights, _ in tree.branches] == pytest.approx([0.5, 1.0])
    assert "b are most alike (0.50)" in reading_of(report, "affinity") or "a are most alike (0.50)" in reading_of(
        report, "affinity"
    )


def test_weights_that_no_two_tasks_share_have_no_affinity(tmp_path: Path) -> None:
    report = gather([gated(tmp_path / "run", [[[1.0, 0, 0]], [[0, 1.0, 0]]], adapters=["a", "b", "shared-0"])])
    assert "no two tasks share any adapter" in reading_of(report, "affinity")
    assert figures_of(report, "affinity") == []


def test_one_task_has_nothing_to_be_compared_with(tmp_path: Path) -> None:
    report = gather([gated(tmp_path / "run", [[[1.0, 0.5]]])])
    assert "there is one task" in reading_of(report, "affinity")
    assert "no task borrows" in reading_of(report, "gates")


# confusions and worst answers


def test_confusions_are_counted_with_answers_that_are_no_label(tmp_path: Path) -> None:
    answers = [answer("x", "x")] * 3 + [answer("y", "x")] + [answer("y", "y")] * 2 + [answer("what?", "y")]
    report = gather([write_run(tmp_path / "run", {"a": 50.0}, labels={"a": ["x", "y"]}, answers={"a": answers})])
    [matrix] = figures_of(report, "confusions")
    assert (matrix.rows, matrix.columns) == (["x", "y"], ["x", "y", "(no label)"])
    assert matrix.texts == [["3", "1", ""], ["", "2", "1"]]
    assert matrix.values[0] == pytest.approx([0.75, 0.25, 0.0])
    assert reading_of(report, "confusions") == (
        "5 of 7 answers right (71.4 %), 1 is no label; the most frequent confusion is in a, where 'x' got the answer 'y' (1 of 4)."
    )


def test_many_labels_have_a_table_of_the_most_frequent_pairs(tmp_path: Path) -> None:
    labels = [f"l{number:02d}" for number in range(25)]
    wrong = [answer(labels[(number + 1) % 25], label) for number, label in enumerate(labels) for _ in range(number)]
    run = write_run(tmp_path / "run", {"a": 50.0}, labels={"a": labels}, answers={"a": [*wrong, *[answer("l24", "l24")] * 24]})
    report = gather([run])
    assert figures_of(report, "confusions") == []
    [table] = tables_of(report, "confusions").values()
    assert len(table) == 1 + 15
    assert table[1] == ["l24", "l00", "24", "48", "50.0"]


@pytest.mark.parametrize(("number_of", "given", "drawn"), [(16, "l00", True), (16, "what?", False), (17, "l00", False)])
def test_labels_are_either_drawn_with_numbers_or_told_in_a_table(tmp_path: Path, number_of: int, given: str, drawn: bool) -> None:
    """A column for answers that are no label counts, too."""
    labels = [f"l{number:02d}" for number in range(number_of)]
    run = write_run(tmp_path / "run", {"a": 50.0}, labels={"a": labels}, answers={"a": [answer(given, "l01")]})
    report = gather([run])
    assert (len(figures_of(report, "confusions")) == 1) == drawn
    assert (len(tables_of(report, "confusions")) == 1) != drawn


def test_the_surest_wrong_labels_come_first(tmp_path: Path) -> None:
    answers = [answer("x", "y", score / 10, gate_weights={"a": 0.7, "b": 0.001}) for score in range(8)] + [answer("x", "x", 1.0)]
    report = gather([write_run(tmp_path / "run", {"a": 50.0}, answers={"a": answers})])
    [examples] = blocks_of(report, "worst")
    assert isinstance(examples, Examples)
    assert "8 of 9 test rows are wrong; the surest of them has a score of 0.70" in examples.caption
    assert [dict(row.facts)["score"] for row in examples.rows] == ["0.70", "0.60", "0.50", "0.40", "0.30"]
    assert dict(examples.rows[0].facts)["gate weights"] == "a 0.70"
    assert "The surest wrong label is in a: 'x' with a score of 0.70, where 'y' was right." in reading_of(report, "worst")


def test_the_numbers_furthest_off_come_first_and_no_number_is_furthest(tmp_path: Path) -> None:
    answers = [answer(1.0, 1.0), answer(0.0, 3.0), answer("many", 1.0), answer(2.0, 1.0)]
    run = write_run(tmp_path / "run", {"a": 50.0}, kinds={"a": "regression"}, answers={"a": answers})
    [examples] = blocks_of(gather([run]), "worst")
    assert isinstance(examples, Examples)
    assert [dict(row.facts)["off by"] for row in examples.rows] == ["no number", "3.00", "1.00"]


def test_the_texts_least_like_what_was_right_come_first(tmp_path: Path) -> None:
    answers = [
        answer("the cat", "a dog", 0.2),
        answer("one two", "one three", 0.9),
        answer("same", "same"),
        answer("cow", "dog", 0.5),
    ]
    answers.append({**answer("hen", "dog", 0.1), "references": ["dog", "hen"]})
    run = write_run(tmp_path / "run", {"a": 50.0}, kinds={"a": "generation"}, answers={"a": answers})
    [examples] = blocks_of(gather([run]), "worst")
    assert isinstance(examples, Examples)
    assert [(row.answer, dict(row.facts)["token F1"]) for row in examples.rows] == [
        ("cow", "0.0"),
        ("the cat", "0.0"),
        ("one two", "50.0"),
    ]
    assert "2 of 5 test rows share no word with what was right, 2 all of them" in examples.caption


def test_the_affinities_of_many_tasks_are_a_table_too(tmp_path: Path) -> None:
    tasks = [f"t{number}" for number in range(18)]
    weights = [[[0.5 + (row == column) / 2 for column in range(18)]] for row in range(18)]
    run = write_run(tmp_path / "run", dict.fromkeys(tasks, 50.0))
    write_gates(run, {"stage1": weights}, tasks=tasks, adapters=tasks, sites=[3])
    report = gather([run])
    [table] = tables_of(report, "affinity").values()
    assert len(table) == 19
    assert "all tasks are about as alike" in reading_of(report, "affinity")


def test_a_model_without_sites_has_no_weights(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"a": 50.0})
    write_gates(run, {"stage1": [[]]}, tasks=["a"], adapters=["a"], sites=[])
    assert "the model has no site with adapters" in reading_of(gather([run]), "gates")
