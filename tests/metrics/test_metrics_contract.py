"""What every metric must do, for each file in the folder: a new metric is tested the moment its file exists."""

from __future__ import annotations

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
from alter.metrics import METRICS, metric_signature, metric_traits

TEXT = ["b", "a", "b", "c", "a", "b", "c", "b"]
GUESSED = ["b", "a", "a", "c", "b", "b", "c", "b"]  # each label with another precision and recall
NUMBERS = [2.0, 1.0, 2.0, 3.5, 1.0, 2.0, 3.5, 2.0]
NUMBER_OF = dict(zip(TEXT, NUMBERS, strict=True))

# Texts that every metric of generations can read: words, a number at the end, and `type: value` as spans are written.
SENTENCE_OF = {
    "a": "city: a long way to the far west by train 7",
    "b": "time: half past nine on a cold morning in May 12.5",
    "c": "name: nobody remembers what she was called then 1,000",
}
SENTENCES = [SENTENCE_OF[row] for row in TEXT]
GUESSED_SENTENCES = [SENTENCE_OF[row] for row in GUESSED]

each_metric = pytest.mark.parametrize("name", METRICS.names())


each_metric_of_generations = pytest.mark.parametrize(
    "name", [name for name in METRICS.names() if metric_traits(name).kind == "generation" or name == "exact_match"]
)


def score(name: str, predictions: Any, references: Any, labels: Any = None) -> float:
    value = METRICS.get(name)(predictions, references, labels=labels)
    assert type(value) is float
    return float(value)


def scores_generations(name: str) -> bool:
    return metric_traits(name).kind == "generation"


def reads_text(name: str) -> bool:
    """Find out what the metric reads by asking it; a metric that reads neither text nor numbers fails here."""
    if scores_generations(name):
        return True
    try:
        score(name, TEXT, TEXT, labels=["b"])
    except TaskError:
        score(name, NUMBERS, NUMBERS)
        return False
    return True


def sample(name: str) -> tuple[list[Any], list[Any]]:
    """Return rows that the metric reads, and guesses of them."""
    if scores_generations(name):
        return SENTENCES, GUESSED_SENTENCES
    return (TEXT, GUESSED) if reads_text(name) else (NUMBERS, [NUMBER_OF[row] for row in GUESSED])


def needs_labels(name: str) -> bool:
    try:
        score(name, *[sample(name)[0]] * 2)
    except TaskError:
        return True
    return False


def reads_labels(name: str) -> bool:
    rows, guessed = sample(name)
    return needs_labels(name) or any(score(name, guessed, rows, [label]) != score(name, guessed, rows) for label in "abc")


def perfect(name: str) -> float:
    return 1.0 if metric_traits(name).higher_is_better else 0.0


def rows_of(name: str) -> tuple[list[Any], list[Any] | None]:
    """Return rows that the metric reads, and labels where it needs some."""
    rows, _ = sample(name)
    if metric_traits(name).metric_labels == "task":
        return rows, sorted(set(rows))
    return rows, [rows[0]] if needs_labels(name) else None


def guesses(rows: list[Any], seed: int) -> list[Any]:
    return random.Random(seed).choices(rows, k=len(rows))


def test_the_battery_covers_every_file_in_the_folder() -> None:
    files = {path.stem for path in Path(alter.metrics.__file__).parent.glob("*.py") if not path.stem.startswith("_")}
    assert files <= set(METRICS.names())
    assert len(files) >= 23


@each_metric
def test_a_perfect_answer_has_the_perfect_score(name: str) -> None:
    rows, labels = rows_of(name)
    assert score(name, rows, list(rows), labels) == pytest.approx(perfect(name))


@each_metric
def test_labels_that_are_numbers_score_as_their_names_do(name: str) -> None:
    if not reads_text(name):
        assert score(name, NUMBERS, NUMBERS) == pytest.approx(perfect(name))
        return
    if scores_generations(name):
        with pytest.raises(TaskError, match=rf"^{name}: references\[0\] is 2\.0; it must be text"):
            score(name, NUMBERS, NUMBERS)
        return
    _, labels = rows_of(name)
    if metric_traits(name).metric_labels == "task":
        labels = labels and labels[:1]  # all of them would find no guess outside
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
        assert 0.0 <= value <= (1.0 if metric_traits(name).in_percent else math.inf)


@each_metric
def test_one_wrong_row_costs_something(name: str) -> None:
    rows, labels = rows_of(name)
    wrong = ["elsewhere" if metric_traits(name).metric_labels == "task" else rows[1], *rows[1:]]
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
    if not reads_text(name) or scores_generations(name):
        pytest.skip("reads no labels")
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

    (rows, labels), (_, guessed) = rows_of(name), sample(name)
    kept = list(guessed), list(rows)
    expected = score(name, guessed, rows, labels)
    assert (guessed, rows) == kept
    assert score(name, tuple(guessed), tuple(rows), labels) == expected
    assert score(name, np.array(guessed), np.array(rows), labels) == expected


@each_metric
def test_degenerate_rows_give_a_number_without_a_warning(name: str) -> None:
    rows, labels = rows_of(name)
    other = rows[1]
    many = [f"label: item {i % 25}" for i in range(40)] if reads_text(name) else [float(i % 25) for i in range(40)]
    cases = [
        ([rows[0]], [rows[0]], labels),
        ([other], [rows[0]], labels),
        ([other] * len(rows), rows, labels),
        (rows, [other] * len(rows), labels),
        ([other] * 3, [other] * 3, labels),
        (many, many[::-1], None if labels is None else [many[0]]),
    ]
    if reads_text(name):
        cases.append((rows, rows, ["nowhere"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for predictions, references, chosen in cases:
            assert math.isfinite(score(name, predictions, references, chosen))


@each_metric
@pytest.mark.parametrize("fault", ["empty", "short", "long", "mixed", "missing", "not finite"])
def test_rows_that_do_not_fit_are_a_task_error_that_names_the_metric(name: str, fault: str) -> None:
    if fault == "not finite" and scores_generations(name):
        pytest.skip("reads no numbers")
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
    rows, guessed = sample(name)
    if reads_labels(name):
        with pytest.raises(TaskError, match=rf"^{name}: "):
            score(name, guessed, rows, labels)
    else:
        assert score(name, guessed, rows, labels) == score(name, guessed, rows)


@each_metric_of_generations
def test_several_references_count_by_the_best_one_whatever_their_order(name: str) -> None:
    other = SENTENCES[1:] + SENTENCES[:1]
    several = [[*[wrong] * (row % 2), true, wrong] for row, (true, wrong) in enumerate(zip(SENTENCES, other, strict=True))]
    assert score(name, SENTENCES, several) == pytest.approx(1.0)
    assert score(name, SENTENCES, [right[::-1] for right in several]) == pytest.approx(1.0)
    assert score(name, SENTENCES, [tuple(right) for right in several]) == pytest.approx(1.0)
    some = score(name, GUESSED_SENTENCES, several)
    assert score(name, GUESSED_SENTENCES, [right[::-1] for right in several]) == pytest.approx(some)
    assert score(name, GUESSED_SENTENCES, SENTENCES) <= some + 1e-12


@each_metric_of_generations
def test_lists_of_one_reference_score_as_the_reference_does(name: str) -> None:
    lists = [[true] for true in SENTENCES]
    assert score(name, GUESSED_SENTENCES, lists) == score(name, GUESSED_SENTENCES, SENTENCES)


@each_metric_of_generations
@pytest.mark.parametrize("nothing", ["", " \n"])
def test_a_model_may_say_nothing(name: str, nothing: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(name, [nothing] * 8, SENTENCES) == 0.0
        assert score(name, [nothing] * 8, [[true, TEXT[0] + ": x"] for true in SENTENCES]) == 0.0
        assert 0.0 < score(name, [nothing, *SENTENCES[1:]], SENTENCES) < 1.0


@each_metric_of_generations
@pytest.mark.parametrize(
    ("row", "value", "seen"),
    [
        (3, [], r"references\[3\] is an empty list; give each row at least one reference"),
        (3, "one", r"references\[3\] is 'one'; it must be a list of texts, as references\[0\] is"),
        (3, ["one", None], r"references\[3\]\[1\] is None; it must be text"),
        (0, [], r"references\[0\] is an empty list"),
    ],
)
def test_wrong_lists_of_references_are_refused(name: str, row: int, value: Any, seen: str) -> None:
    references: list[Any] = [[true] for true in SENTENCES]
    references[row] = value
    with pytest.raises(TaskError, match=rf"^{name}: {seen}"):
        score(name, SENTENCES, references)


@each_metric_of_generations
def test_lists_beside_single_references_are_refused(name: str) -> None:
    references: list[Any] = [*SENTENCES[:-1], [SENTENCES[-1]]]
    with pytest.raises(TaskError, match=rf"^{name}: references\[7\] is \[.*\]; it must be one text, as references\[0\] is"):
        score(name, SENTENCES, references)


@each_metric
def test_a_signature_is_one_line_where_there_is_one(name: str) -> None:
    signature = metric_signature(name, sample(name)[0])
    assert signature is None or (signature and signature.split() == [signature])


@each_metric
def test_the_summary_is_one_sentence(name: str) -> None:
    summary = METRICS.summaries()[name]
    assert summary.endswith(".")
    assert len(summary) <= 100


def test_listing_and_loading_metrics_imports_no_heavy_package() -> None:
    heavy = ("torch", "transformers", "sklearn", "scipy", "numpy", "sacrebleu", "rouge_score", "nltk")
    code = (
        "import sys; from alter.metrics import METRICS; METRICS.summaries(); [METRICS.get(name) for name in METRICS.names()]; "
        f"sys.exit(' '.join(m for m in {heavy} if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
