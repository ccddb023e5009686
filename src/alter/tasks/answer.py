"""What a row wants written beside its input: a checked label, a number or a text, and the labels of a whole task.

Labels and numbers are read from a column; they become text (`target_text`) only where a model writes its answers. A generation's
target is rendered from the row, or the last message of its conversation.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from alter.errors import DataError, TaskError, counted, did_you_mean
from alter.tasks.example import Example
from alter.tasks.row import at_place, canonical, conversation, inputs_of, is_blank, segment
from alter.tasks.source import Row
from alter.tasks.spec import TaskSpec, label_text
from alter.tasks.template import check_template, render

MAX_LABELS = 1000


def labelled(row: Row, spec: TaskSpec) -> Example:
    """Return the example of a row with its label, or with its target and all texts that count as right.

    Raises:
        DataError: a column is missing, a text is empty, or the label is none of the task's.
    """
    values = canonical(row.values, spec, place=row.place)
    example = inputs_of(spec, values, row.place)
    if spec.kind == "generation":
        target = _target(values, spec, row.place)
        return replace(example, label=target, references=_references(values, target, at_place(row.place, spec)))
    return replace(example, label=_label(values, spec, at_place(row.place, spec)))


def infer_labels(spec: TaskSpec, examples: Iterable[Example]) -> list[str]:
    """Return the task's labels in the order of their ids: `labels`, or those of `examples`, sorted. Other kinds have none.

    Raises:
        TaskError: fewer than 2 labels, or so many that they are no labels.
    """
    if spec.kind != "classification":
        return []
    if spec.labels is not None:
        return list(spec.labels)
    rows = list(examples)
    labels = sorted({str(example.label) for example in rows if example.label is not None})
    at = at_place(rows[0].place if rows else "", spec)
    if len(labels) < 2:
        seen = f"only the label '{labels[0]}'" if labels else "no label"
        remedy = "a classification needs at least 2. Add rows, or list `labels`"
        raise TaskError(f"{at}: the {counted(len(rows), 'training row holds', 'training rows hold')} {seen}; {remedy}")
    if len(labels) > MAX_LABELS:
        remedy = "set kind: regression for numbers, or kind: generation for text"
        shown = ", ".join(repr(label[:40]) for label in labels[:3])
        raise TaskError(f"{at}: {len(labels)} different labels ({shown}, ...), and at most {MAX_LABELS} are allowed; {remedy}")
    return labels


def target_text(spec: TaskSpec, label: str | float) -> str:
    """Return the text that stands for a label or a number of `spec`, as a model that writes answers it.

    Raises:
        DataError: the template gives no text.
    """
    if isinstance(label, float):
        label = str(int(label)) if label.is_integer() and abs(label) < 1e15 else repr(label)
    return render(spec.target, {"label": label}, where=f"task '{spec.name}': target")


def _target(values: Mapping[str, Any], spec: TaskSpec, place: str) -> str:
    """Return the text that a generation row wants."""
    at = at_place(place, spec)
    if spec.chat and not is_blank(values.get("messages")):
        answer = conversation(values["messages"], at)[1]
        if answer is None:
            raise DataError(
                f"{at}: the last of messages is not the assistant's, so the row has no target; end it with the answer"
            )
        return answer
    if "label" not in values and "label" in check_template(spec.target):
        columns = ", ".join(sorted(values))
        what = f"the row has no target; name its column under columns.label (the row's columns: {columns})"
        raise DataError(f"{at}: {what}", missing="label")
    return segment(spec.target, values, name="target", at=at).strip()


def _references(values: Mapping[str, Any], target: str, at: str) -> tuple[str, ...]:
    """Return every text that counts as right: the row's `references`, or its target alone."""
    given = values.get("references")
    if is_blank(given):
        return (target,)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{at}: references is {given!r}; it must be a list of texts that count as right")
    return tuple(texts)


def _label(values: Mapping[str, Any], spec: TaskSpec, at: str) -> str | float:
    if "label" not in values:
        columns = ", ".join(sorted(values))
        what = f"the row has no label; name its column under columns.label (the row's columns: {columns})"
        raise DataError(f"{at}: {what}", missing="label")
    value = values["label"]
    if spec.kind == "regression":
        return _number(value, at)
    if is_blank(value):
        raise DataError(f"{at}: the label is empty ({value!r}); {_allowed(spec)} Fill it or remove the row")
    if isinstance(value, list | dict):
        raise DataError(f"{at}: the label is a {type(value).__name__} ({value!r}); {_allowed(spec)} A row has one label")
    label = label_text(value)
    if spec.labels is not None and label not in spec.labels:
        raise DataError(f"{at}: unknown label '{label}'; {did_you_mean(label, spec.labels)} Mend the row, or add it to `labels`")
    return label


def _allowed(spec: TaskSpec) -> str:
    return "allowed: any text." if spec.labels is None else did_you_mean("", spec.labels)


def _number(value: object, at: str) -> float:
    try:
        # A boolean is a number to Python and a class to everybody else.
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{at}: the label {value!r} is no finite number; a regression needs one, such as 3.5; mend the row")
    return number
