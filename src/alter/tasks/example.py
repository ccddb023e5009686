"""An example: one row of one task, with its input rendered and its label checked."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One row of one task.

    Attributes:
        task: the task's name.
        text: the rendered input.
        text_pair: the rendered second segment, for pairs of texts.
        label: label name (classification), number (regression) or text (generation); None where the row is only to be predicted.
        references: all texts that count as right (generation).
        messages: (role, content) of a conversation so far, where the task is a chat.
        place: `file:line` of the row, for messages.
    """

    task: str
    text: str
    text_pair: str | None = None
    label: str | float | None = None
    references: tuple[str, ...] = ()
    messages: tuple[tuple[str, str], ...] = ()
    place: str = ""
