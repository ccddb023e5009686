"""What every yardstick must do, for each file in the folder, on the tickets that ship with the package."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import alter
from alter.baselines import BASELINES, tfidf
from alter.errors import TaskError
from alter.metrics import METRICS
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec

TICKETS = Path(alter.__file__).parent / "demo" / "tickets"
MOOD = {"negative": -1.0, "neutral": 0.0, "positive": 1.0}

each_baseline = pytest.mark.parametrize("name", BASELINES.names())


def spec_of(name: str, **settings: Any) -> TaskSpec:
    return TaskSpec.model_validate({"name": name, "source": {"train": "train.jsonl"}, **settings})


def tickets(file: str, column: str) -> list[Example]:
    rows = [json.loads(line) for line in (TICKETS / file).read_text(encoding="utf-8").splitlines()]
    return [
        Example(task=column, text=row["text"], label=row[column], place=f"{file}:{number}")
        for number, row in enumerate(rows, start=1)
    ]


def moods(file: str) -> list[Example]:
    return [replace(row, label=MOOD[str(row.label)]) for row in tickets(file, "sentiment")]


CLASSES = spec_of("intent", metrics=["f1_macro"])
NUMBERS = spec_of("sentiment", kind="regression")


def case(kind: str) -> tuple[TaskSpec, list[Example], list[Example], list[Example]]:
    """Return (spec, train, validation, inputs) of 100 rows each; the test rows stay out of it."""
    if kind == "regression":
        spec, train, inputs = NUMBERS, moods("train.jsonl"), moods("validation.jsonl")
    else:
        spec, train, inputs = CLASSES, tickets("train.jsonl", "intent"), tickets("validation.jsonl", "intent")
    return spec, train[:100], train[100:200], inputs


def test_the_battery_covers_every_file_in_the_folder() -> None:
    files = {path.stem for path in Path(str(tfidf.__file__)).parent.glob("*.py") if not path.stem.startswith("_")}
    assert {"majority", "tfidf"} <= files <= set(BASELINES.names())


@each_baseline
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_one_plain_prediction_per_row_repeatable_and_blind_to_the_answers(name: str, kind: str) -> None:
    fit_predict = BASELINES.get(name)
    spec, train, validation, inputs = case(kind)
    predicted = fit_predict(spec, train, validation, inputs, seed=0)
    assert len(predicted) == len(inputs)
    if kind == "regression":
        assert all(type(value) is float for value in predicted)
    else:
        assert all(type(value) is str for value in predicted)
        assert set(predicted) <= {row.label for row in train}
    blind = [replace(row, label=None) for row in inputs]
    assert fit_predict(spec, train, validation, blind, seed=0) == predicted
    # Row by row: what one row gets must not hang on which rows are asked with it.
    assert fit_predict(spec, train, validation, blind[:3], seed=0) == pytest.approx(predicted[:3])


@each_baseline
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_no_inputs_no_predictions(name: str, kind: str) -> None:
    spec, train, validation, _ = case(kind)
    assert BASELINES.get(name)(spec, train, validation, [], seed=0) == []


@each_baseline
@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_no_training_rows_is_a_task_error(name: str, kind: str) -> None:
    spec, _, validation, inputs = case(kind)
    with pytest.raises(TaskError, match=rf"task {spec.name}: no train rows.*source\.train"):
        BASELINES.get(name)(spec, [], validation, inputs, seed=0)


@each_baseline
@pytest.mark.parametrize("kind", ["classification", "regression"])
@pytest.mark.parametrize("fault", ["missing", "other kind"])
def test_a_training_row_without_a_fitting_label_is_a_task_error_with_its_place(name: str, kind: str, fault: str) -> None:
    spec, train, validation, inputs = case(kind)
    label: str | float | None = None if fault == "missing" else "3" if kind == "regression" else 3.0
    train[7] = replace(train[7], label=label)
    with pytest.raises(TaskError, match=rf"train\.jsonl:8: task {spec.name}: a train row has the label .*it must be a "):
        BASELINES.get(name)(spec, train, validation, inputs, seed=0)


@each_baseline
def test_the_summary_is_one_sentence(name: str) -> None:
    assert BASELINES.summaries()[name].endswith(".")


@each_baseline
def test_one_label_in_training_is_the_answer(name: str) -> None:
    spec, train, validation, inputs = case("classification")
    train = [replace(row, label="problem") for row in train]
    assert set(BASELINES.get(name)(spec, train, validation, inputs, seed=0)) == {"problem"}


def test_majority_takes_the_most_frequent_label_and_the_first_of_equals() -> None:
    rows = [Example(task="t", text="", label=label) for label in ["c", "b", "a", "c", "b"]]
    majority = BASELINES.get("majority")
    assert majority(spec_of("t"), rows, [], rows[:2], seed=0) == ["b", "b"]
    assert majority(spec_of("t"), rows[::-1], [], rows[:2], seed=0) == ["b", "b"]
    assert majority(spec_of("t"), rows[:4], [], rows[:1], seed=0) == ["c"]


def test_majority_takes_the_mean_of_numbers() -> None:
    rows = [Example(task="t", text="", label=label) for label in (1, 2.0, 6)]
    assert BASELINES.get("majority")(spec_of("t", kind="regression"), rows, [], rows[:2], seed=0) == [3.0, 3.0]


def score(name: str, spec: TaskSpec, rows: tuple[list[Example], ...]) -> float:
    predicted = BASELINES.get(name)(spec, *rows, seed=0)
    return float(
        METRICS.get(spec.primary_metric)(
            predicted, [row.label for row in rows[2]], labels=spec.metric_labels if spec.primary_metric == "f1" else None
        )
    )


def test_tfidf_learns_from_the_text_what_the_majority_cannot_know() -> None:
    spec, *rows = case("classification")
    assert score("majority", spec, tuple(rows)) < 0.1
    assert score("tfidf", spec, tuple(rows)) > 0.4
    spec, *rows = case("regression")
    assert score("majority", spec, tuple(rows)) == 0.0
    assert score("tfidf", spec, tuple(rows)) > 0.3


@pytest.mark.parametrize(
    ("kind", "settings", "grid", "best_of"),
    [
        ("classification", {"metrics": ["f1_macro"]}, "INVERSE_STRENGTHS", max),
        ("classification", {"metrics": ["f1"], "metric_labels": ["problem"]}, "INVERSE_STRENGTHS", max),
        ("regression", {"metrics": ["pearson"]}, "RIDGE_STRENGTHS", max),
    ],
)
def test_tfidf_chooses_its_strength_on_validation_by_the_primary_metric(
    kind: str, settings: dict[str, Any], grid: str, best_of: Callable[[list[float]], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, train, validation, _ = case(kind)
    spec = spec_of("t", kind=kind, **settings)
    rows = (train, validation, validation)
    chosen = score("tfidf", spec, rows)
    single = []
    for strength in getattr(tfidf, grid):
        monkeypatch.setattr(tfidf, grid, (strength,))
        single.append(score("tfidf", spec, rows))
    assert max(single) - min(single) > 1e-3, "the candidates must differ, or this test shows nothing"
    assert chosen == pytest.approx(best_of(single), abs=1e-9)


def test_tfidf_reads_both_texts_of_a_pair() -> None:
    _, train, validation, inputs = case("classification")
    spec = spec_of("t", metrics=["f1_macro"])

    def paired(rows: list[Example]) -> list[Example]:
        return [replace(row, text="same for all", text_pair=row.text) for row in rows]

    assert score("tfidf", spec, (paired(train), paired(validation), paired(inputs))) > 0.4


def test_tfidf_reads_one_letter_words_and_signs() -> None:
    rows = [Example(task="t", text=text, label=label) for text, label in [("a", "x"), ("!", "y"), ("\u263a", "z")] * 4]
    assert BASELINES.get("tfidf")(spec_of("t"), rows, rows, rows[:3], seed=0) == ["x", "y", "z"]


def test_tfidf_names_the_remedy_for_empty_texts() -> None:
    _, train, validation, inputs = case("classification")
    blank = [replace(row, text=" ") for row in train]
    with pytest.raises(TaskError, match=r"all 100 training texts are empty; check `input` and `columns`"):
        BASELINES.get("tfidf")(CLASSES, blank, validation, inputs, seed=0)
    blank_inputs = [replace(row, text="") for row in inputs]
    assert len(BASELINES.get("tfidf")(CLASSES, train, validation, blank_inputs, seed=0)) == len(inputs)


def test_tfidf_needs_validation_rows_to_choose_on() -> None:
    _, train, _, inputs = case("classification")
    with pytest.raises(TaskError, match=r"no validation rows.*source\.validation"):
        BASELINES.get("tfidf")(CLASSES, train, [], inputs, seed=0)


def test_yardsticks_need_no_torch() -> None:
    code = (
        "import sys; from alter.baselines import BASELINES; [BASELINES.get(name) for name in BASELINES.names()]; "
        "sys.exit(' '.join(m for m in ('torch', 'transformers', 'sklearn') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
