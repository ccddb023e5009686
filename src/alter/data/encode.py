"""Examples become features: token ids, the task's id, the label's id, the standardised target, the ids of the text to write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alter.data.codec import Codec
from alter.nn.losses import NOT_A_CLASS
from alter.tasks.answer import target_text
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """One row, ready to be padded into a batch.

    Attributes:
        task_id: the task's position among the model's tasks.
        inputs: token ids and what else the tokenizer gives per token (token_type_ids), without padding.
        label_id: the label's position among the task's labels; NOT_A_CLASS for regression and for rows without a label.
        target: the standardised target of a regression row.
        target_ids: ids of the text to write, its end included (models that write).
        truncated: whether the text was longer than max_length.
        target_truncated: whether the text to write was longer than max_target_length.
    """

    task_id: int
    inputs: Mapping[str, list[int]]
    label_id: int = NOT_A_CLASS
    target: float = 0.0
    target_ids: Sequence[int] = ()
    truncated: bool = False
    target_truncated: bool = False

    @property
    def length(self) -> int:
        """Number of tokens, those to write included."""
        return len(self.inputs["input_ids"]) + len(self.target_ids)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How a regression task's numbers are standardised: target = (number - mean) / std, from training rows."""

    mean: float = 0.0
    std: float = 1.0

    def standardise(self, number: float) -> float:
        """Return the model's target for a number."""
        return (number - self.mean) / self.std

    def restore(self, target: float) -> float:
        """Return the number for a model's output."""
        return target * self.std + self.mean


def scale_of(examples: Sequence[Example]) -> Scale:
    """Return the scale of a regression task's training rows; equal numbers everywhere have std 1."""
    numbers = [float(example.label) for example in examples if example.label is not None]
    mean = sum(numbers) / len(numbers)
    std = math.sqrt(sum((number - mean) ** 2 for number in numbers) / len(numbers))
    return Scale(mean=mean, std=std or 1.0)


def encode(
    examples: Sequence[Example], spec: TaskSpec, *, task_id: int, codec: Codec, scale: Scale | None = None
) -> list[Features]:
    """Tokenise the examples of one task.

    Args:
        examples: rows of this task; those without a label are encoded without one.
        spec: the task, with its labels.
        task_id: the task's position among the model's tasks.
        codec: the base model's way with text.
        scale: a regression task's scale.
    """
    if not examples:
        return []
    inputs, too_long = codec.inputs(examples)
    targets = _targets(examples, spec, codec)
    labels = {label: position for position, label in enumerate(spec.labels or [])}
    return [
        Features(
            task_id=task_id,
            inputs={name: values[row] for name, values in inputs.items()},
            # A label that training never showed (it happens in test files) has no id; scores compare names, so it counts as wrong.
            label_id=labels.get(str(example.label), NOT_A_CLASS),
            target=_number(example, spec, scale),
            target_ids=targets[row][0],
            truncated=too_long[row],
            target_truncated=targets[row][1],
        )
        for row, example in enumerate(examples)
    ]


def _targets(examples: Sequence[Example], spec: TaskSpec, codec: Codec) -> list[tuple[list[int], bool]]:
    """Return the ids of the text each example wants written and whether it was cut; empty where it wants none."""
    none: list[tuple[list[int], bool]] = [([], False) for _ in examples]
    rows = [row for row, example in enumerate(examples) if example.label is not None]
    if codec.kind == "encoder" or not rows:
        return none
    texts = [_target_text(examples[row], spec) for row in rows]
    for row, ids, cut in zip(rows, *codec.targets(texts), strict=True):
        none[row] = (ids, cut)
    return none


def _target_text(example: Example, spec: TaskSpec) -> str:
    assert example.label is not None
    return str(example.label) if spec.kind == "generation" else target_text(spec, example.label)


def _number(example: Example, spec: TaskSpec, scale: Scale | None) -> float:
    if spec.kind != "regression" or example.label is None:
        return 0.0
    return (scale or Scale()).standardise(float(example.label))
