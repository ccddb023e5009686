"""One row's input: its columns by our names, and its text, pair of texts or conversation, rendered.

What a labelled row wants beside its input is in `alter.tasks.answer`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alter.errors import DataError, did_you_mean
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec
from alter.tasks.template import check_template, render

ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("text", "input", "sentence", "source", "prompt", "content", "sentence1"),
    "text_pair": ("text_pair", "sentence2"),
    "label": ("label", "target", "output", "completion"),
    "task_name": ("task_name", "task"),
    "references": ("references",),
    "messages": ("messages",),
}
"""Our name -> the columns that count as it where `columns` says nothing, in order."""


def canonical(values: Mapping[str, Any], spec: TaskSpec, *, place: str = "", for_prediction: bool = False) -> dict[str, Any]:
    """Return a row's columns, and beside them our names (`ALIASES`) as far as the row has them.

    Args:
        values: the row.
        spec: the task; its `columns` come first, then the usual names (`ALIASES`).
        place: `file:line`, for messages.
        for_prediction: the row needs no label and no task name, and may use our names instead of the file's.

    Raises:
        DataError: `columns` names a column that the row lacks.
    """
    found = dict(values)
    for ours, theirs in spec.columns.items():
        if theirs in values:
            found[ours] = values[theirs]
        elif not (for_prediction and (ours in ("label", "task_name") or ours in values)):
            hint = did_you_mean(theirs, values)
            what = f"columns.{ours} is '{theirs}', and the row has no such column"
            raise DataError(f"{at_place(place, spec)}: {what}; {hint}", missing=theirs)
    taken = {theirs for ours, theirs in spec.columns.items() if ours in ALIASES}
    for ours, names in ALIASES.items():
        if ours == "label" and spec.kind == "generation":
            names = (*names[1:], names[0])  # a row with a label and a target: here the text is meant
        if ours not in spec.columns:
            name = next((name for name in names if name in values and name not in taken), None)
            if name is not None:
                found[ours] = values[name]
            elif ours in taken:
                # The file's `text` is, say, our label: the input must not read it.
                del found[ours]
    return found


def render_inputs(spec: TaskSpec, values: Mapping[str, Any] | str, *, place: str = "") -> tuple[str, str | None]:
    """Return the rendered text and text pair of a row, labelled or not.

    Args:
        spec: the task.
        values: a row; a plain text counts as a row whose `text` it is.
        place: `file:line`, for messages.

    Raises:
        ConfigError: a template is not valid.
        DataError: a column is missing, or the text is empty.
    """
    example = unlabelled(spec, values, place=place)
    return example.text, example.text_pair


def unlabelled(spec: TaskSpec, values: Mapping[str, Any] | str, *, place: str = "") -> Example:
    """Return the example of a row that is to be answered; see `render_inputs`."""
    row = {"text": values} if isinstance(values, str) else canonical(values, spec, place=place, for_prediction=True)
    return inputs_of(spec, row, place)


def inputs_of(spec: TaskSpec, values: Mapping[str, Any], place: str) -> Example:
    """Return the row's example, without its label."""
    if spec.chat and not is_blank(values.get("messages")):
        messages, _ = conversation(values["messages"], at_place(place, spec))
        return Example(task=spec.name, text="\n".join(text for _, text in messages), messages=messages, place=place)
    text, text_pair = _rendered(spec, values, place)
    example = Example(task=spec.name, text=text, text_pair=text_pair, place=place)
    if not spec.chat:
        return example
    system = () if spec.system is None else (("system", segment(spec.system, values, name="system", at=at_place(place, spec))),)
    return replace(example, messages=(*system, ("user", text if text_pair is None else f"{text}\n{text_pair}")))


def conversation(given: Any, at: str) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Return a row's messages up to the answer, and the answer: the last message, where the assistant wrote it."""
    messages: list[tuple[str, str]] = []
    for position, message in enumerate(given if isinstance(given, list) else [given]):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str) or not content.strip():
            raise DataError(
                f"{at}: messages[{position}] is {message!r}; a message is {{'role': 'system' | 'user' | 'assistant' | 'tool', "
                f"'content': text}}"
            )
        messages.append((role, content))
    answer = messages.pop()[1] if messages and messages[-1][0] == "assistant" else None
    if all(role != "user" for role, _ in messages):
        raise DataError(f"{at}: messages holds no user's message before the answer; a conversation begins with the user's")
    return tuple(messages), answer


def _rendered(spec: TaskSpec, values: Mapping[str, Any], place: str) -> tuple[str, str | None]:
    text = segment(spec.input, values, name="input", at=at_place(place, spec))
    if spec.input_pair is not None:
        return text, segment(spec.input_pair, values, name="input_pair", at=at_place(place, spec))
    # A shared file has empty cells in this column for tasks of single texts; a task that maps the column means it.
    if is_blank(values.get("text_pair")) and "text_pair" not in spec.columns:
        return text, None
    return text, segment("{{ text_pair }}", values, name="text_pair", at=at_place(place, spec))


def segment(template: str, values: Mapping[str, Any], *, name: str, at: str) -> str:
    """Return one part of a row, rendered.

    Raises:
        DataError: it cannot be rendered, is empty, or is no text.
    """
    text = render(template, values, where=f"{at}: {name}")
    # Fixed words around empty columns ("Question: ") are no input either.
    read = sorted(check_template(template) & values.keys())
    if not text.strip() or (read and all(is_blank(values[column]) for column in read)):
        seen = ", ".join(f"{column}={values[column]!r}" for column in read) or repr(text)
        raise DataError(f"{at}: the {name} is empty ({seen}); fill the row's text or remove the row")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        seen = f"{text[error.start]!a} at {error.start}"
        raise DataError(f"{at}: the {name} holds half a character ({seen}); write the file as UTF-8 again") from None
    return text


def at_place(place: str, spec: TaskSpec) -> str:
    """Return what a message about a row of a task begins with."""
    return f"{place}: task '{spec.name}'" if place else f"task '{spec.name}'"


def is_blank(value: object) -> bool:
    """Return whether a column's value says nothing: null, NaN, spaces or an empty list."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, list | dict) and not value)
