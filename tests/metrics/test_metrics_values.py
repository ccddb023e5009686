"""Each metric against values worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from alter.errors import TaskError
from alter.metrics import METRICS

# a: TP 2 FP 0 FN 1, F1 4/5, recall 2/3;  b: TP 1 FP 1 FN 1, F1 1/2, recall 1/2;  c: TP 1 FP 1 FN 0, F1 2/3, recall 1
REFERENCES = ["a", "a", "a", "b", "b", "c"]
PREDICTIONS = ["a", "a", "b", "b", "c", "c"]


def score(name: str, predictions: Any, references: Any, labels: Any = None) -> float:
    return float(METRICS.get(name)(predictions, references, labels=labels))


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("accuracy", None, 4 / 6),
        ("accuracy", ["a"], 4 / 6),
        ("exact_match", None, 4 / 6),
        ("f1", ["a"], 4 / 5),
        ("f1", ["b"], 1 / 2),
        ("f1", ["c"], 2 / 3),
        ("f1_macro", None, (4 / 5 + 1 / 2 + 2 / 3) / 3),
        ("f1_macro", ["a", "b"], (4 / 5 + 1 / 2) / 2),
        ("f1_macro", ["a", "b", "c", "d"], (4 / 5 + 1 / 2 + 2 / 3 + 0) / 4),
        ("f1_over_labels", ["a", "b"], (4 / 5 + 1 / 2) / 2),
        ("f1_over_labels", ["c"], 2 / 3),
        ("recall_macro", None, (2 / 3 + 1 / 2 + 1) / 3),
        ("recall_macro", ["b", "c"], (1 / 2 + 1) / 2),
        ("f1_micro", None, 4 / 6),
        ("f1_micro", ["b", "c"], 2 * 2 / (2 * 2 + 2 + 1)),
        ("f1_weighted", None, (3 * 4 / 5 + 2 * 1 / 2 + 1 * 2 / 3) / 6),
        ("f1_weighted", ["b", "c"], (2 * 1 / 2 + 1 * 2 / 3) / 3),
        # Gorodkin's R_K: (correct * n - sum p_k t_k) / sqrt((n^2 - sum p_k^2) (n^2 - sum t_k^2)), p = 2 2 2, t = 3 2 1
        ("matthews_correlation", None, (4 * 6 - 12) / math.sqrt((36 - 12) * (36 - 14))),
    ],
)
def test_three_labels(name: str, labels: list[str] | None, expected: float) -> None:
    assert score(name, PREDICTIONS, REFERENCES, labels) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("f1_macro", (2 / 3 + 0) / 2), ("recall_macro", (1 / 2 + 0) / 2), ("f1_weighted", 2 / 3), ("f1_micro", 1 / 2)],
)
def test_a_label_that_is_only_predicted(name: str, expected: float) -> None:
    assert score(name, ["a", "z"], ["a", "a"]) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["f1", "f1_macro", "f1_over_labels", "f1_micro", "f1_weighted", "recall_macro"])
def test_a_chosen_label_that_occurs_nowhere_scores_zero(name: str) -> None:
    assert score(name, ["a", "b"], ["a", "b"], ["z"]) == 0.0


def test_stance_counts_a_wrong_favor_on_a_none_row() -> None:
    references = ["none", "none", "favor", "against"]
    predictions = ["favor", "none", "favor", "none"]
    # favor: TP 1 FP 1 FN 0; against: TP 0 FN 1; the right `none` earns nothing.
    assert score("f1_over_labels", predictions, references, ["favor", "against"]) == pytest.approx((2 / 3 + 0) / 2)


def test_binary_matthews() -> None:
    # TP 2 TN 1 FP 1 FN 1
    assert score("matthews_correlation", ["y", "y", "n", "n", "y"], ["y", "y", "y", "n", "n"]) == pytest.approx(1 / 6)
    assert score("matthews_correlation", ["n", "y"], ["y", "n"]) == pytest.approx(-1.0)
    assert score("matthews_correlation", ["y", "y"], ["y", "y"]) == 0.0


@pytest.mark.parametrize("labels", [None, [], ["a", "b"]])
def test_f1_insists_on_one_positive_label(labels: list[str] | None) -> None:
    with pytest.raises(TaskError, match=r"f1: needs exactly one positive label, seen: .*metric_labels"):
        score("f1", PREDICTIONS, REFERENCES, labels)


def test_f1_over_labels_insists_on_labels() -> None:
    with pytest.raises(TaskError, match=r"f1_over_labels: needs labels.*metric_labels"):
        score("f1_over_labels", PREDICTIONS, REFERENCES)


def test_pearson() -> None:
    assert score("pearson", [1, 2, 3], [1, 2, 6]) == pytest.approx(5 / math.sqrt(2 * 14))
    assert score("pearson", [1.0, 2.0, 3.0], [-10, -20, -30]) == pytest.approx(-1.0)


def test_spearman_sees_order_only_and_shares_the_rank_of_ties() -> None:
    assert score("spearmanr", [1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert score("spearmanr", [1, 10, 1000], [0.1, 0.2, 0.3]) == pytest.approx(1.0)
    assert score("spearmanr", [1, 1, 2], [1, 2, 3]) == pytest.approx(1.5 / math.sqrt(1.5 * 2))


@pytest.mark.parametrize("name", ["pearson", "spearmanr"])
def test_constant_numbers_have_no_correlation(name: str) -> None:
    assert score(name, [2.5] * 4, [1, 2, 3, 4]) == 0.0
    assert score(name, [1, 2, 3, 4], [2.5] * 4) == 0.0
    assert score(name, [7], [7]) == 0.0


def test_a_spread_below_rounding_is_constant_to_pearson() -> None:
    assert score("pearson", [1e16, 1e16 + 2, 1e16 + 4], [1, 2, 3]) == 0.0


@pytest.mark.parametrize("name", ["pearson", "spearmanr", "mse"])
def test_numbers_as_text_are_refused_with_the_remedy(name: str) -> None:
    with pytest.raises(TaskError, match=rf"{name}: references\[0\] is the text '1'.*kind: regression"):
        score(name, ["1", "2"], ["1", "2"])


def test_mse() -> None:
    assert score("mse", [1, 2], [3, 2]) == pytest.approx(2.0)
    assert score("mse", [0.5], [-0.5]) == pytest.approx(1.0)


def test_exact_match_folds_case_and_white_space_only() -> None:
    references = ["New  York", " a b ", "a\tb\n", "naive", "a-b"]
    predictions = ["new york", "A B", "a b", "naive.", "ab"]
    assert score("exact_match", predictions, references) == pytest.approx(3 / 5)
    assert score("accuracy", predictions, references) == 0.0


def test_a_decoder_that_runs_on_costs_no_memory_per_row() -> None:
    import tracemalloc

    references = ["a", "b"] * 2000
    predictions = ["x" * 100_000, *references[1:]]
    score("f1_macro", references, references)
    tracemalloc.start()
    assert score("accuracy", predictions, references) == pytest.approx(3999 / 4000)
    score("f1_macro", predictions, references)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6  # numpy text arrays would take 4000 rows * 100 000 letters * 4 bytes
