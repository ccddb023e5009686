"""Examples become features: token ids, the task's id, the label's id or the standardised target."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from alter.nn.losses import NOT_A_CLASS
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
        truncated: whether the text was longer than max_length.
    """

    task_id: int
    inputs: Mapping[str, list[int]]
    label_id: int = NOT_A_CLASS
    target: float = 0.0
    truncated: bool = False

    @property
    def length(self) -> int:
        """Number of tokens."""
        return len(self.inputs["input_ids"])


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
    examples: Sequence[Example],
    spec: TaskSpec,
    *,
    task_id: int,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    scale: Scale | None = None,
) -> list[Features]:
    """Tokenise the examples of one task.

    Args:
        examples: rows of this task; those without a label are encoded without one.
        spec: the task, with its labels.
        task_id: the task's position among the model's tasks.
        tokenizer: the base model's.
        max_length: longer inputs are cut, the longest segment first, and marked.
        scale: a regression task's scale.
    """
    if not examples:
        return []
    inputs = _tokenise(examples, tokenizer, max_length=None)
    too_long = [row for row, ids in enumerate(inputs["input_ids"]) if len(ids) > max_length]
    if too_long:
        cut = _tokenise([examples[row] for row in too_long], tokenizer, max_length=max_length)
        for name, values in cut.items():
            for row, value in zip(too_long, values, strict=True):
                inputs[name][row] = value
    marked = set(too_long)
    labels = {label: position for position, label in enumerate(spec.labels or [])}
    return [
        Features(
            task_id=task_id,
            inputs={name: values[row] for name, values in inputs.items()},
            # A label that training never showed (it happens in test files) has no id; scores compare names, so it counts as wrong.
            label_id=labels.get(str(example.label), NOT_A_CLASS),
            target=_target(example, spec, scale),
            truncated=row in marked,
        )
        for row, example in enumerate(examples)
    ]


def _target(example: Example, spec: TaskSpec, scale: Scale | None) -> float:
    if spec.kind != "regression" or example.label is None:
        return 0.0
    return (scale or Scale()).standardise(float(example.label))


def _tokenise(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None
) -> dict[str, list[list[int]]]:
    """Return the tokenizer's columns. Pairs go apart from single texts: an empty second segment would still cost a separator."""
    columns: dict[str, list[list[int]]] = {}
    for pairs in (False, True):
        chosen = [row for row, example in enumerate(examples) if (example.text_pair is not None) == pairs]
        if chosen:
            part = _tokenise_alike([examples[row] for row in chosen], tokenizer, max_length=max_length)
            for name, values in part.items():
                column = columns.setdefault(name, [[] for _ in examples])
                for row, value in zip(chosen, values, strict=True):
                    column[row] = value
    return columns


def _tokenise_alike(
    examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None
) -> dict[str, list[list[int]]]:
    encoding = tokenizer(
        [example.text for example in examples],
        [example.text_pair for example in examples] if examples[0].text_pair is not None else None,
        truncation="longest_first" if max_length is not None else False,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
    )
    return {name: list(values) for name, values in encoding.items()}
