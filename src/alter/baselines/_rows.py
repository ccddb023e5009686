"""What yardsticks read from rows: one text, one label name or one number each."""

from __future__ import annotations

from alter.errors import TaskError
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec


def texts(rows: list[Example]) -> list[str]:
    """Return one text per row; the two texts of a pair are joined by ` [SEP] `."""
    return [row.text if row.text_pair is None else f"{row.text} [SEP] {row.text_pair}" for row in rows]


def label_names(spec: TaskSpec, rows: list[Example], *, split: str) -> list[str]:
    """Return the rows' label names.

    Raises:
        TaskError: there are no rows, or a row has no label name.
    """
    _check_any(spec, rows, split=split)
    names = []
    for row in rows:
        if not isinstance(row.label, str):
            raise _wrong(spec, row, split=split, wanted="a label name (kind: classification)")
        names.append(row.label)
    return names


def numbers(spec: TaskSpec, rows: list[Example], *, split: str) -> list[float]:
    """Return the rows' numbers.

    Raises:
        TaskError: there are no rows, or a row has no number.
    """
    _check_any(spec, rows, split=split)
    values = []
    for row in rows:
        if not isinstance(row.label, int | float):
            raise _wrong(spec, row, split=split, wanted="a number (kind: regression)")
        values.append(float(row.label))
    return values


def _check_any(spec: TaskSpec, rows: list[Example], *, split: str) -> None:
    if not rows:
        raise TaskError(f"task {spec.name}: no {split} rows; give source.{split} a file with at least one labelled row")


def _wrong(spec: TaskSpec, row: Example, *, split: str, wanted: str) -> TaskError:
    where = f"{row.place}: " if row.place else ""
    return TaskError(f"{where}task {spec.name}: a {split} row has the label {row.label!r}; it must be {wanted}")
