"""What every metric asks of its rows before it counts: equally many, at least one, all text or all finite numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real

from alter.errors import TaskError, counted

Values = Sequence[str] | Sequence[float]
References = Values | Sequence[Sequence[str]]
"""One reference for each row, or a list of several, each of them right."""


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Labels as small integers, in the sorted order of the labels.

    Attributes:
        predictions: code of each prediction.
        references: code of each reference.
        labels: codes of the labels to look at, where the caller chose some.
    """

    predictions: list[int]
    references: list[int]
    labels: list[int] | None


def check_rows(metric: str, predictions: Values, references: Values) -> None:
    """Refuse no rows, unequally many rows, rows that mix text and numbers, and numbers that are not finite.

    Raises:
        TaskError: with the metric, what was seen and the first row at fault.
    """
    _check_sizes(metric, predictions, references)
    is_text = isinstance(references[0], str)
    wanted = "text, as references[0] is" if is_text else "a finite number, unless all values are text"
    for what, values in (("references", references), ("predictions", predictions)):
        for row, value in enumerate(values):
            if not _is_alike(value, is_text=is_text):
                raise TaskError(f"{metric}: {what}[{row}] is {value!r}; it must be {wanted}")


def check_texts(metric: str, predictions: Values, references: References) -> tuple[list[str], list[list[str]]]:
    """Return the predictions, and for each row the list of its references; a prediction may be empty, a list may not.

    Raises:
        TaskError: no rows, unequally many rows, something else than text, rows with one reference beside rows with a list, or an
            empty list; with the metric, what was seen and the first row at fault.
    """
    _check_sizes(metric, predictions, references)
    several = has_lists(references[:1])
    rows = [_texts_of(metric, row, value, several=several) for row, value in enumerate(references)]
    for row, value in enumerate(predictions):
        if not isinstance(value, str):
            raise TaskError(f"{metric}: predictions[{row}] is {value!r}; it must be text, which may be empty")
    return [str(value) for value in predictions], rows


def has_lists(references: References) -> bool:
    """Return whether any row has a list of references."""
    return any(isinstance(value, list | tuple) for value in references)


def _texts_of(metric: str, row: int, value: object, *, several: bool) -> list[str]:
    if isinstance(value, list | tuple) != several:
        wanted = "a list of texts" if several else "one text"
        raise TaskError(f"{metric}: references[{row}] is {value!r}; it must be {wanted}, as references[0] is")
    texts = value if isinstance(value, list | tuple) else [value]
    if not texts:
        raise TaskError(f"{metric}: references[{row}] is an empty list; give each row at least one reference, or drop the row")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            place = f"references[{row}][{position}]" if several else f"references[{row}]"
            raise TaskError(f"{metric}: {place} is {text!r}; it must be text (a row may have a list of texts, if all rows do)")
    return list(texts)


def _check_sizes(metric: str, predictions: Values, references: References) -> None:
    if len(predictions) != len(references):
        raise TaskError(
            f"{metric}: {counted(len(predictions), 'prediction')} for {counted(len(references), 'reference')}; "
            f"give one prediction for each reference"
        )
    if not len(references):
        raise TaskError(f"{metric}: no rows to score; give at least one prediction and its reference")


def _is_alike(value: object, *, is_text: bool) -> bool:
    return isinstance(value, str) if is_text else isinstance(value, Real) and math.isfinite(value)


def as_numbers(metric: str, predictions: Values, references: Values) -> tuple[list[float], list[float]]:
    """Return both lists as finite floats.

    Raises:
        TaskError: see `check_rows`; also for text.
    """
    check_rows(metric, predictions, references)
    if isinstance(references[0], str):
        raise TaskError(
            f"{metric}: references[0] is the text {references[0]!r}; {metric} compares numbers (kind: regression); "
            f"for labels use e.g. accuracy or f1_macro"
        )
    return [float(value) for value in predictions], [float(value) for value in references]


def encode(metric: str, predictions: Values, references: Values, labels: Values | None = None) -> Codes:
    """Return the labels as integers, which scikit-learn reads alike whether labels are text or numbers.

    Raises:
        TaskError: see `check_rows`; also where `labels` is empty, of another type than the rows, or names a label twice.
    """
    check_rows(metric, predictions, references)
    if labels is not None:
        check_labels(metric, labels, is_text=isinstance(references[0], str))
    # Codes also keep memory flat: numpy would pad every text to the length of the longest, and a decoder can run on.
    code_of = {value: code for code, value in enumerate(sorted({*references, *predictions, *(labels or ())}))}
    return Codes(
        predictions=[code_of[value] for value in predictions],
        references=[code_of[value] for value in references],
        labels=None if labels is None else [code_of[value] for value in labels],
    )


def check_labels(metric: str, labels: Values, *, is_text: bool) -> None:
    """Refuse labels that are none, of another type than the rows, or named twice.

    Raises:
        TaskError: with the metric and the label at fault.
    """
    if not len(labels):
        raise TaskError(f"{metric}: labels is empty; name the labels to look at in metric_labels, or leave it out")
    wanted = "text" if is_text else "a finite number"
    for label in labels:
        if not _is_alike(label, is_text=is_text):
            raise TaskError(f"{metric}: the label {label!r} must be {wanted}, as the references are")
    twice = sorted({str(label) for label in labels if list(labels).count(label) > 1})
    if twice:
        raise TaskError(f"{metric}: labels holds {twice} more than once; name each label once")
