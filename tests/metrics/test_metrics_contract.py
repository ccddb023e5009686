"""What every metric must do, for each file in the folder: a new metric is tested the moment its file exists."""

from __future__ import annotations

import importlib
import math
import random
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import alter.metrics
from alter.errors import TaskError
from alter.metrics import METRICS

TEXT = ["b", "a", "b", "c", "a", "b", "c", "b"]
GUESSED = ["b", "a", "a", "c", "b", "b", "c", "b"]  # each label with another precision and recall
NUMBERS = [2.0, 1.0, 2.0, 3.5, 1.0, 2.0, 3.5, 2.0]
NUMBER_OF = dict(zip(TEXT, NUMBERS, strict=True))

each_metric = pytest.mark.parametrize("name", METRICS.names())


def score(name: str, predictions: Any, references: Any, labels: Any = None) -> float:
    value = METRICS.get(name)(predictions, references, labels=labels)
    assert type(value) is float
    return float(value)


def reads_text(name: str) -> bool:
    """Find out what the metric reads by asking it; a metric that reads neither text nor numbers fails here."""
    try:
        score(name, TEXT, TEXT, labels=["b"])
    except TaskError:
        score(name, NUMBERS, NUMBERS)
        return False
    return True


def needs_labels(name: str) -> bool:
    try:
        score(name, *[TEXT if reads_text(name) else NUMBERS] * 2)
    except TaskError:
        return True
    return False


def reads_labels(name: str) -> bool:
    return needs_labels(name) or any(score(name, GUESSED, TEXT, [label]) != score(name, GUESSED, TEXT) for label in "abc")


def perfect(name: str) -> float:
    module = importlib.import_module(METRICS.modules()[name])
    return 1.0 if getattr(module, "HIGHER_IS_BETTER", True) else 0.0


def rows_of(name: str) -> tuple[list[Any], list[Any] | None]:
    """Return rows that the metric reads, and labels where it needs some."""
    rows: list[Any] = TEXT if reads_text(name) else NUMBERS
    return rows, [rows[0]] if needs_labels(name) else None


def guesses(rows: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).choices(rows, k=len(rows))


def test_the_battery_covers_every_file_in_the_folder() -> None:
    files = {path.stem for path in Path(alter.metrics.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert files <= set(METRICS.names())
    assert len(files) >= 12


@each_metric
def test_a_perfect_answer_has_the_perfect_score(name: str) -> None:
    rows, labels = rows_of(name)
    assert score(name, rows, list(rows), labels) == pytest.approx(perfect(name))


@each_metric
def test_labels_that_are_numbers_score_as_their_names_do(name: str) -> None:
    if not reads_text(name):
        assert score(name, NUMBERS, NUMBERS) == pytest.approx(perfect(name))
        return
    _, labels = rows_of(name)
    labels_as_numbers = None if labels is None else [NUMBER_OF[label] for label in labels]
    as_numbers = score(name, [NUMBER_OF[row] for row in GUESSED], NUMBERS, labels_as_numbers)
    assert as_numbers == pytest.approx(score(name, GUESSED, TEXT, labels))
    assert 0.0 < as_numbers < 1.0


@each_metric
@pytest.mark.parametrize("seed", range(20))
def test_guesses_stay_in_range_and_never_beat_perfection(name: str, seed: int) -> None:
    rows, labels = rows_of(name)
    value = score(name, guesses(rows, seed), rows, labels)
    assert math.isfinite(value)
    if perfect(name) == 1.0:
        assert -1.0 - 1e-12 <= value <= 1.0 + 1e-12
    else:
        assert value >= 0.0


@each_metric
def test_one_wrong_row_costs_something(name: str) -> None:
    rows, labels = rows_of(name)
    wrong = [rows[1], *rows[1:]]
    gap = score(name, rows, rows, labels) - score(name, wrong, rows, labels)
    assert (gap if perfect(name) == 1.0 else -gap) > 1e-6


@each_metric
@pytest.mark.parametrize("seed", range(5))
def test_the_order_of_rows_does_not_matter(name: str, seed: int) -> None:
    rows, labels = rows_of(name)
    pairs = list(zip(guesses(rows, seed), rows, strict=True))
    before = score(name, [guess for guess, _ in pairs], [row for _, row in pairs], labels)
    random.Random(seed).shuffle(pairs)
    assert score(name, [guess for guess, _ in pairs], [row for _, row in pairs], labels) == pytest.approx(before)


@each_metric
def test_the_order_and_the_spelling_of_labels_do_not_matter(name: str) -> None:
    if not reads_text(name):
        pytest.skip("reads numbers")
    labels = ["a", "b"]
    try:
        before = score(name, GUESSED, TEXT, labels)
    except TaskError:  # a metric of one label, such as f1
        labels = ["b"]
        before = score(name, GUESSED, TEXT, labels)
    assert 0.0 < before < 1.0
    assert score(name, GUESSED, TEXT, labels[::-1]) == pytest.approx(before)
    # The renaming turns the sorted order round: nothing may hang on which label sorts first.
    renamed = {"a": "z", "b": "y", "c": "x"}
    respelled = score(
        name, [renamed[row] for row in GUESSED], [renamed[row] for row in TEXT], [renamed[label] for label in labels]
    )
    assert respelled == pytest.approx(before)


@each_metric
def test_rows_may_be_tuples_or_arrays_and_stay_unchanged(name: str) -> None:
    import numpy as np

    rows, labels = rows_of(name)
    guessed: list[Any] = GUESSED if reads_text(name) else [NUMBER_OF[row] for row in GUESSED]
    kept = list(guessed), list(rows)
    expected = score(name, guessed, rows, labels)
    assert (guessed, rows) == kept
    assert score(name, tuple(guessed), tuple(rows), labels) == expected
    assert score(name, np.array(guessed), np.array(rows), labels) == expected


@each_metric
def test_degenerate_rows_give_a_number_without_a_warning(name: str) -> None:
    rows, labels = rows_of(name)
    other = rows[1]
    many = [f"label {i % 25}" for i in range(40)] if reads_text(name) else [float(i % 25) for i in range(40)]
    cases = [
        ([rows[0]], [rows[0]], labels),
        ([other], [rows[0]], labels),
        ([other] * len(rows), rows, labels),
        (rows, [other] * len(rows), labels),
        ([other] * 3, [other] * 3, labels),
        (many, many[::-1], None if labels is None else [many[0]]),
    ]
    if reads_text(name):
        cases.append((TEXT, TEXT, ["nowhere"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for predictions, references, chosen in cases:
            assert math.isfinite(score(name, predictions, references, chosen))


@each_metric
@pytest.mark.parametrize("fault", ["empty", "short", "long", "mixed", "missing", "not finite"])
def test_rows_that_do_not_fit_are_a_task_error_that_names_the_metric(name: str, fault: str) -> None:
    rows, labels = rows_of(name)
    mixed: Any = 1.0 if reads_text(name) else "a"
    predictions, references = {
        "empty": ([], []),
        "short": (rows[:-1], rows),
        "long": ([*rows, rows[0]], rows),
        "mixed": ([*rows[:-1], mixed], rows),
        "missing": (rows, [*rows[:-1], None]),
        "not finite": ([*NUMBERS[:-1], math.nan], NUMBERS),
    }[fault]
    if fault == "not finite" and labels is not None:
        labels = [NUMBERS[0]]
    with pytest.raises(TaskError, match=rf"^{name}: ") as caught:
        score(name, predictions, references, labels)
    place = {"mixed": "predictions[7]", "missing": "references[7]", "not finite": "predictions[7]"}.get(fault, "")
    assert place in str(caught.value)


@each_metric
@pytest.mark.parametrize("labels", [[], ["b", "b"], [2.0]], ids=["empty", "twice", "number"])
def test_wrong_labels_are_refused_or_have_no_effect(name: str, labels: list[Any]) -> None:
    if not reads_text(name):
        pytest.skip("reads numbers")
    if reads_labels(name):
        with pytest.raises(TaskError, match=rf"^{name}: "):
            score(name, GUESSED, TEXT, labels)
    else:
        assert score(name, GUESSED, TEXT, labels) == score(name, GUESSED, TEXT)


@each_metric
def test_the_summary_is_one_sentence(name: str) -> None:
    summary = METRICS.summaries()[name]
    assert summary.endswith(".")
    assert len(summary) <= 100


def test_listing_and_loading_metrics_imports_no_heavy_package() -> None:
    code = (
        "import sys; from alter.metrics import METRICS; METRICS.summaries(); [METRICS.get(name) for name in METRICS.names()]; "
        "sys.exit(' '.join(m for m in ('torch', 'transformers', 'sklearn', 'scipy', 'numpy') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
