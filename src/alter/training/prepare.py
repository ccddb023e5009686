"""From a recipe to rows a model can train on: read, check, complete labels, encode."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

from alter.data.codec import Codec
from alter.data.encode import Features, Scale, encode, scale_of
from alter.errors import ConfigError, DataError
from alter.evaluation import EvalSet, Reference
from alter.nn.site import Kind
from alter.recipe import Recipe
from alter.tasks.answer import infer_labels, target_text
from alter.tasks.example import Example
from alter.tasks.read import SPLITS, UnknownTasks, capped, load_tasks, no_validation_rows
from alter.tasks.spec import TaskSpec

WRITING = ("target", "chat", "system", "decoding", "length_normalization", "generation")
"""A task's settings that only models that write read."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """All rows of a recipe, checked.

    Attributes:
        specs: the tasks, their labels complete.
        splits: split -> task -> examples.
        scales: regression task -> scale of its numbers.
    """

    specs: list[TaskSpec]
    splits: Mapping[str, Mapping[str, list[Example]]]
    scales: Mapping[str, Scale]


def read_rows(recipe: Recipe) -> Rows:
    """Read every file of a recipe.

    Raises:
        DataError: rows are wrong (the first ten problems are told; `alter validate` tells all), or a task has no validation rows.
        TaskError: a task's labels do not fit.
    """
    problems: list[str] = []
    # Labels are those of all training rows, not of the sample that a cap keeps: so they do not depend on the seed.
    whole = [task.model_copy(update={"cap": None}) for task in recipe.tasks]
    unknown = UnknownTasks(task.name for task in recipe.tasks)
    splits = {
        split: load_tasks(
            whole, split, seed=recipe.seed, on_problem=lambda error: problems.append(str(error)), on_other=unknown.note
        )
        for split in SPLITS
    }
    raise_problems([*problems, *map(str, unknown.problems())])
    for task in recipe.tasks:
        if not splits["validation"][task.name]:
            raise no_validation_rows(task)
    specs = [_complete(task, splits["train"][task.name]) for task in recipe.tasks]
    splits["train"] = {task.name: capped(splits["train"][task.name], task, task.cap, recipe.seed) for task in recipe.tasks}
    scales = {task.name: scale_of(splits["train"][task.name]) for task in specs if task.kind == "regression"}
    return Rows(specs=specs, splits=splits, scales=scales)


def raise_problems(problems: Sequence[str]) -> None:
    """Raise the first ten problems with rows as one error, if there are any.

    Raises:
        DataError: there are.
    """
    if problems:
        more = f"\n... and {len(problems) - 10} more; `alter validate` tells all" if len(problems) > 10 else ""
        raise DataError("\n".join(problems[:10]) + more)


def _complete(task: TaskSpec, train: Sequence[Example]) -> TaskSpec:
    return task if task.kind != "classification" else task.model_copy(update={"labels": infer_labels(task, train)})


def check_lengths(codec: Codec, base: PreTrainedModel) -> None:
    """Refuse texts longer than the base has positions for; families with relative or rotary positions have no such limit.

    Raises:
        ConfigError: `max_length` or `max_target_length` is too large.
    """
    reads = codec.max_length + (codec.max_target_length if codec.kind == "decoder" else 0)
    for name, module in base.named_modules():
        if not isinstance(module, nn.Embedding) or not name.endswith(("position_embeddings", "embed_positions", "wpe")):
            continue
        # RoBERTa counts positions from behind the padding id, BART and OPT from an offset.
        offset = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
        positions = module.num_embeddings - offset
        writes = codec.kind == "encoder-decoder" and name.startswith(("decoder", "model.decoder"))
        needed, what = (codec.max_target_length, "max_target_length") if writes else (reads, "max_length")
        if needed > positions:
            what += " and max_target_length together are" if codec.kind == "decoder" else " is"
            most = positions - (codec.max_target_length if codec.kind == "decoder" else 0)
            remedy = f"set {'max_target_length' if writes else 'max_length'}: {most}"
            if most < 4:  # the least that a recipe may say
                remedy = "lower max_target_length"
            raise ConfigError(f"{what} {needed}, but this base model has {positions} positions; {remedy}")


def check_tasks(specs: Sequence[TaskSpec], kind: Kind) -> None:
    """Refuse tasks that the base model's kind cannot do, and settings that it would not read.

    Raises:
        ConfigError: with the task, the setting and the remedy.
    """
    if kind != "encoder":
        return
    standard = {name: field.default for name, field in TaskSpec.model_fields.items()}
    for spec in specs:
        if spec.kind == "generation":
            raise ConfigError(
                f"task '{spec.name}' is a generation, and this base model is an encoder, which writes no text; choose a base model that "
                f"writes (e.g. google/flan-t5-small, package:alter_mini), or set kind: classification"
            )
        unread = [name for name in WRITING if getattr(spec, name) != standard[name]]
        if unread:
            raise ConfigError(
                f"task '{spec.name}' sets {', '.join(unread)}, which only a base model that writes reads; drop it: an encoder answers by "
                f"a head per task"
            )


def check_packing(recipe: Recipe, kind: Kind) -> None:
    """Refuse packing where one stack does not both read and write.

    Raises:
        ConfigError: it was asked for.
    """
    if recipe.train.packing and kind != "decoder":
        raise ConfigError(f"train.packing is for decoder-only models, and this base model is an {kind}; set train.packing: false")


def check_targets(specs: Sequence[TaskSpec], codec: Codec) -> None:
    """Refuse tasks of which a model that writes could not tell two answers apart.

    Raises:
        ConfigError: two labels, or all numbers of a regression, are written with the same tokens.
    """
    if codec.kind == "encoder":
        return
    for spec in specs:
        answers: list[str | float] = [1.0, 2.0] if spec.kind == "regression" else [*(spec.labels or [])]
        texts = [target_text(spec, answer) for answer in answers]
        first: dict[tuple[int, ...], int] = {}
        for position, ids in enumerate(codec.targets(texts)[0]):
            other = first.setdefault(tuple(ids), position)
            if other != position:
                raise ConfigError(
                    f"task '{spec.name}': the answers {answers[other]!r} and {answers[position]!r} are written with the same tokens "
                    f"({texts[other]!r}, {texts[position]!r}), so the model cannot tell them apart; let `target` ({spec.target!r}) give "
                    f"each its own text, of at most max_target_length ({codec.max_target_length}) tokens in words that the tokenizer knows"
                )


def encode_split(rows: Rows, split: str, *, codec: Codec) -> dict[str, list[Features]]:
    """Encode one split of all tasks."""
    return {
        spec.name: encode(rows.splits[split][spec.name], spec, task_id=task_id, codec=codec, scale=rows.scales.get(spec.name))
        for task_id, spec in enumerate(rows.specs)
    }


def rows_digest(rows: Mapping[str, Sequence[Features]]) -> str:
    """Return 16 hex digits that tell one set of encoded rows from another: token ids, labels and targets, in order."""
    digest = hashlib.sha256()
    for task, features in rows.items():
        digest.update(f"{task} {len(features)}\n".encode())
        for row in features:
            digest.update(f"{row.length} {row.label_id} {row.target!r}\n".encode())
            digest.update(array("q", row.inputs["input_ids"]).tobytes())
            if row.target_ids:
                digest.update(array("q", row.target_ids).tobytes())
    return digest.hexdigest()[:16]


def eval_sets(rows: Rows, split: str, *, codec: Codec) -> dict[str, EvalSet]:
    """Return one split, ready to be scored.

    Raises:
        DataError: a label of this split never occurs among the task's labels.
    """
    encoded = encode_split(rows, split, codec=codec)
    return {
        spec.name: EvalSet(
            spec=spec,
            features=encoded[spec.name],
            references=[_reference(example, spec) for example in rows.splits[split][spec.name]],
            scale=rows.scales.get(spec.name, Scale()),
        )
        for spec in rows.specs
    }


def _reference(example: Example, spec: TaskSpec) -> Reference:
    if example.label is None:
        raise DataError(f"{example.place}: task '{spec.name}': the row has no label to score against")
    if spec.kind == "generation":
        return list(example.references)
    return float(example.label) if spec.kind == "regression" else str(example.label)
