"""The quick metrics of resampling are the metrics themselves, and the intervals are of the same rows for every arm."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from alter.comparing.bootstrap import (
    FEW,
    FROM_COUNTS,
    FROM_NUMBERS,
    MANY,
    ROW_MEANS,
    Answered,
    Floats,
    draws_of,
    interval,
    is_quick,
    num_resamples,
    resampled_averages,
    scorer,
)
from alter.evaluation import metric_of
from alter.metrics import METRICS, metric_traits
from alter.tasks.spec import TaskSpec

LABELS = ["calm", "glad", "mad", "sad"]
COUNTED = ["accuracy", "f1", "f1_macro", "f1_over_labels", "f1_weighted", "matthews_correlation", "recall_macro"]


def task(name: str = "mood", **settings: Any) -> TaskSpec:
    return TaskSpec.model_validate({"name": name, "labels": LABELS, **settings})


def answered(spec: TaskSpec, given: Any, right: Any) -> Answered:
    return Answered(spec=spec, predictions=given, references=right)


def assert_as_the_evaluation(found: Answered, *, seed: int = 0, draws: int = 12) -> None:
    """On all rows, and on rows drawn with replacement, the quick score is the evaluation's."""
    quick, rows = scorer(found), len(found.references)
    generator = np.random.default_rng(seed)
    for drawn in [np.arange(rows), *(generator.integers(0, rows, size=rows) for _ in range(draws))]:
        given, right = [found.predictions[i] for i in drawn], [found.references[i] for i in drawn]
        assert quick(drawn) == pytest.approx(metric_of(found.spec.primary_metric, found.spec, given, right), abs=1e-9)


def spec_of(metric: str, chosen: list[str]) -> TaskSpec:
    """Return a task of this metric; the ones that need `metric_labels` get as many as they take."""
    needs = metric_traits(metric).metric_labels
    named = {"one": chosen[:1], "some": chosen}.get(needs or "")
    return task(metrics=[metric], **({} if named is None else {"metric_labels": named}))


def test_the_counted_metrics_are_all_that_are_counted() -> None:
    assert sorted(FROM_COUNTS) == COUNTED
    assert all(metric in METRICS.names() for metric in [*COUNTED, *ROW_MEANS, *FROM_NUMBERS])


@pytest.mark.parametrize("metric", COUNTED)
@pytest.mark.parametrize("seed", range(8))
def test_a_counted_metric_equals_the_metric_on_random_labels(metric: str, seed: int) -> None:
    generator = random.Random(seed)
    chosen = generator.sample(LABELS, 2)
    right = generator.choices(LABELS, weights=[5, 3, 1, 1], k=generator.randrange(3, 40))
    given = [label if generator.random() < 0.6 else generator.choice(LABELS) for label in right]
    assert_as_the_evaluation(answered(spec_of(metric, chosen), given, right), seed=seed)


@pytest.mark.parametrize("metric", COUNTED)
@pytest.mark.parametrize("seed", range(4))
def test_so_it_does_where_answers_are_no_labels(metric: str, seed: int) -> None:
    generator = random.Random(f"invalid {seed}")
    right = generator.choices(LABELS, k=25)
    given = generator.choices([*LABELS, "", "gladly", "i do not know"], k=25)
    assert_as_the_evaluation(answered(spec_of(metric, LABELS[:3]), given, right), seed=seed)


@pytest.mark.parametrize("metric", COUNTED)
@pytest.mark.parametrize(
    ("given", "right"),
    [
        (["calm"] * 6, ["calm"] * 6),  # one class, all right
        (["glad"] * 6, ["calm"] * 6),  # one class each, all wrong
        (["calm"] * 6, ["calm", "glad", "mad", "calm", "glad", "mad"]),  # one answer to every row
        (["calm", "glad", "mad", "calm", "glad", "mad"], ["calm"] * 6),  # one right label
        (["nonsense"] * 4, ["calm", "calm", "glad", "glad"]),  # nothing but answers that are no label
        (["calm"], ["calm"]),
    ],
)
def test_so_it_does_where_one_class_is_all_there_is(metric: str, given: list[str], right: list[str]) -> None:
    # `sad` and, mostly, `mad` occur nowhere: labels that are looked at all the same count 0.
    assert_as_the_evaluation(answered(spec_of(metric, ["sad", "mad", "calm"]), given, right))


def test_a_label_that_is_looked_at_and_occurs_nowhere_counts_as_zero() -> None:
    found = answered(spec_of("f1_over_labels", ["calm", "sad"]), ["calm", "glad"], ["calm", "glad"])
    assert scorer(found)(np.arange(2)) == 50.0


def test_tasks_whose_labels_are_not_known_are_counted_too() -> None:
    spec = TaskSpec(name="mood", metrics=["f1_macro"])
    assert spec.labels is None
    assert_as_the_evaluation(answered(spec, ["a", "b", "c", "a"], ["a", "b", "b", "d"]))


GENERATED: dict[str, list[tuple[str, list[str]]]] = {
    "words": [
        ("the app crashes", ["the app crashed", "it crashes"]), ("Bill", ["bill"]), ("", ["refund"]), ("a b c", ["c b a"]),
        ("pay the bill today", ["please pay the bill"]), ("12 apples", ["there are 12"]), ("48-24", ["24"]),
        ("#### 7", ["so it is 7"]), ("no number", ["They are equal"]),
    ],
}  # fmt: skip


@pytest.mark.parametrize("metric", sorted(ROW_MEANS))
def test_a_mean_over_rows_equals_the_metric_on_resamples(metric: str) -> None:
    spec = TaskSpec(name="say", kind="generation", metrics=[metric])
    given, right = ([row[side] for row in GENERATED["words"]] for side in (0, 1))
    assert is_quick(spec)
    assert_as_the_evaluation(answered(spec, given, right), draws=5)


@pytest.mark.parametrize("metric", ["exact_match"])
def test_labels_may_be_scored_by_a_mean_over_rows(metric: str) -> None:
    assert_as_the_evaluation(answered(task(metrics=[metric]), ["calm", "Mad", "glad"], ["calm", "mad", "sad"]))


@pytest.mark.parametrize("metric", sorted(FROM_NUMBERS))
@pytest.mark.parametrize("seed", range(4))
def test_a_correlation_equals_the_metric_on_resamples(metric: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    spec = TaskSpec(name="stars", kind="regression", metrics=[metric])
    assert is_quick(spec)
    right = generator.normal(size=15)
    for given in (right + generator.normal(size=15), -right, np.round(right), generator.normal(size=15) + 1e6):
        assert_as_the_evaluation(answered(spec, given.tolist(), right.tolist()), seed=seed)
    ties = generator.integers(1, 4, size=15).astype(float)
    assert_as_the_evaluation(answered(spec, right.tolist(), ties.tolist()), seed=seed)


@pytest.mark.parametrize("metric", sorted(FROM_NUMBERS))
@pytest.mark.parametrize("given", [[1.0] * 4, [0.1, 0.1, 0.1, 0.1], [1e9, 1e9, 1e9, 1e9 + 1e-7]])
def test_a_constant_side_has_no_correlation(metric: str, given: list[float]) -> None:
    found = answered(TaskSpec(name="stars", kind="regression", metrics=[metric]), given, [1.0, 2.0, 3.0, 4.0])
    if len(set(given)) == 1:
        assert scorer(found)(np.arange(4)) == 0.0
    assert_as_the_evaluation(found)
    turned = answered(found.spec, found.references, found.predictions)
    assert_as_the_evaluation(turned)


def test_bleu_is_computed_from_the_counts_of_each_row() -> None:
    spec = TaskSpec(name="say", kind="generation", metrics=["bleu"])
    assert num_resamples([spec]) == MANY
    several = [
        ("a cat sits on the red mat today", ["a cat sits on a red mat today", "the cat is on the mat"]),
        ("no", ["no words here at all", "none"]),
        ("", ["something long enough to count as words"]),
        ("the weather in Paris is mild and dry", ["the weather in Paris is mild and dry"]),
    ]
    given, right = [row[0] for row in several], [row[1] for row in several]
    assert_as_the_evaluation(answered(spec, given, right), draws=50)
    assert_as_the_evaluation(answered(spec, ["", "a b"], [["x"], ["c d"]]), draws=5)  # no four words anywhere


def test_metrics_over_whole_texts_are_computed_from_the_texts_of_few_resamples() -> None:
    spec = TaskSpec(name="say", kind="generation", metrics=["chrf"])
    assert not is_quick(spec)
    assert (num_resamples([spec, task()]), num_resamples([task()])) == (FEW, MANY)
    given, right = ([row[side] for row in GENERATED["words"]] for side in (0, 1))
    assert_as_the_evaluation(answered(spec, given, right), draws=2)


# ---- resampling ----------------------------------------------------------------------------------------------------


def arm(share: float, *, rows: int = 60, seed: int = 0, name: str = "mood", **settings: Any) -> Answered:
    """Return answers of which about this share is right, by rows of one fixed order of difficulty."""
    generator = random.Random(f"rows {rows}")
    right = generator.choices(LABELS[:2], k=rows)
    hard = [generator.random() for _ in range(rows)]
    other = {"calm": "glad", "glad": "calm"}
    given = [label if difficulty < share else other[label] for label, difficulty in zip(right, hard, strict=True)]
    return answered(task(name, metrics=["accuracy"], **settings), given, right)


def difference(one: Answered, other: Answered) -> Floats:
    name = one.spec.name
    return resampled_averages({name: one}, resamples=MANY) - resampled_averages({name: other}, resamples=MANY)


def test_the_same_rows_are_drawn_for_every_arm() -> None:
    seen: list[list[int]] = []
    for found in (arm(0.5), arm(0.9)):
        draws = [drawn.tolist() for drawn in draws_of(found.spec.name, 60, 5)]
        seen.append([row for drawn in draws for row in drawn])
    assert seen[0] == seen[1]
    assert seen[0] != [row for drawn in draws_of("topic", 60, 5) for row in drawn.tolist()], "tasks are drawn apart"
    # An arm that is right wherever another is can only be better, row for row and so on every resample.
    spans = difference(arm(0.9), arm(0.5))
    assert (spans >= 0).all()
    assert interval(spans)[0] > 0


def test_identical_arms_differ_by_exactly_nothing() -> None:
    assert interval(difference(arm(0.7), arm(0.7))) == (0.0, 0.0)


def test_the_interval_holds_the_difference_of_the_population() -> None:
    """Of 40 samples of a population with a known difference about 38 intervals should hold it."""
    population = random.Random(0)
    held = 0
    for _ in range(40):
        right = ["calm"] * 80
        first = ["calm" if population.random() < 0.8 else "mad" for _ in right]
        second = ["calm" if population.random() < 0.65 else "mad" for _ in right]
        spec = task(metrics=["accuracy"])
        spans = [resampled_averages({"mood": answered(spec, given, right)}, resamples=400) for given in (first, second)]
        low, high = interval(spans[0] - spans[1])
        held += low <= 15.0 <= high
    assert 34 <= held <= 40


def test_the_resamples_lie_about_the_score_itself() -> None:
    found = resampled_averages({"mood": arm(0.8)}, resamples=MANY)
    score = scorer(arm(0.8))(np.arange(60))
    assert found.mean() == pytest.approx(score, abs=1.0)
    # The standard error of a share.
    assert found.std() == pytest.approx(100 * np.sqrt(score / 100 * (1 - score / 100) / 60), rel=0.1)


def test_groups_are_averaged_first() -> None:
    tasks = {
        "a": arm(1.0, name="a", group="pair"),
        "b": arm(0.0, name="b", group="pair"),
        "c": arm(1.0, name="c"),
    }
    found = resampled_averages(tasks, resamples=7)
    assert found == pytest.approx(np.full(7, (50 + 100) / 2))
    alone = {
        name: answered(one.spec.model_copy(update={"group": None}), one.predictions, one.references)
        for name, one in tasks.items()
    }
    assert resampled_averages(alone, resamples=7) == pytest.approx(np.full(7, 200 / 3))


def test_correlations_are_in_percent_as_other_scores_are() -> None:
    spec = TaskSpec(name="stars", kind="regression", metrics=["pearson"])
    found = resampled_averages({"stars": answered(spec, [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0])}, resamples=30)
    assert set(np.round(found, 6)) <= {0.0, 100.0}, "0 where all drawn rows are one and the same"
    assert 100.0 in np.round(found, 6)
