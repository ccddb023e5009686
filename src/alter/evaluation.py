"""Scores: what a model answers for rows of any tasks, and how right it is.

Shapes: B rows, C outputs of the largest task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from alter.data.batch import batches_by_length, collate
from alter.data.codec import Codec
from alter.data.encode import Features, Scale
from alter.errors import TrainingError
from alter.metrics import METRICS, metric_signature, metric_traits
from alter.model import MTAModel
from alter.results import SplitScores, TaskScore, average
from alter.tasks.spec import TaskSpec
from alter.writing import Answer, Writer

Reference = str | float | Sequence[str]


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Labelled rows of one task.

    Attributes:
        spec: the task.
        features: the encoded rows.
        references: the true labels or numbers, in the same order; of a generation every text that counts as right.
        scale: a regression task's scale.
    """

    spec: TaskSpec
    features: Sequence[Features]
    references: Sequence[Reference]
    scale: Scale


def outputs_of(model: MTAModel, rows: Sequence[Features], *, codec: Codec, batch_size: int) -> list[torch.Tensor]:
    """Return the outputs of each row's head, (C,) on the CPU, in the order of `rows`; the tasks may be mixed.

    Raises:
        TrainingError: an output is NaN or infinite, so there is nothing to score.
    """
    assert model.heads is not None
    model.eval()
    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for positions in batches_by_length(rows, batch_size):
            batch = collate([rows[position] for position in positions], codec).to(model.device)
            logits_BC = model(**batch.inputs, task_ids=batch.task_ids_B).logits
            real_BC = model.heads.real_TC.index_select(0, batch.task_ids_B)  # padding is -inf by design
            broken_B = (real_BC & ~torch.isfinite(logits_BC)).any(-1)
            if broken_B.any():
                broken = sorted({model.task_names[task] for task in batch.task_ids_B[broken_B].tolist()})
                raise TrainingError(
                    f"the model's outputs are NaN or infinite for {int(broken_B.sum())} of a batch of {len(positions)} rows (tasks: "
                    f"{', '.join(broken)}), only finite numbers can be scored; train it again with lower learning_rates"
                )
            found.update(zip(positions, logits_BC.float().cpu(), strict=True))
    return [found[position] for position in range(len(rows))]


def answer(output_C: torch.Tensor, spec: TaskSpec, scale: Scale) -> str | float:
    """Return the label or the number that a row's outputs stand for."""
    if spec.kind == "regression":
        return scale.restore(float(output_C[0]))
    assert spec.labels is not None
    return spec.labels[int(output_C[: len(spec.labels)].argmax())]


def evaluate(
    model: MTAModel, sets: Mapping[str, EvalSet], *, codec: Codec, batch_size: int
) -> tuple[SplitScores, dict[str, list[str | float]]]:
    """Score a model on labelled rows of all tasks, in mixed batches.

    Returns:
        the scores, and each task's answers in the order of its rows.
    """
    found = answers_of(model, sets, codec=codec, batch_size=batch_size)
    values = {task: [given.value for given in answers] for task, answers in found.items()}
    return score_answers(sets, found), values


def score_answers(sets: Mapping[str, EvalSet], found: Mapping[str, Sequence[Answer]]) -> SplitScores:
    """Score each task's answers, which stand in the order of its rows."""
    scored = {
        task: score_task(
            sets[task].spec,
            [given.value for given in answers],
            sets[task].references,
            num_truncated=sum(row.truncated for row in sets[task].features),
            num_invalid=sum(not given.is_valid for given in answers),
            training_mean=sets[task].scale.mean,
        )
        for task, answers in found.items()
    }
    return split_scores(scored, {task: sets[task].spec for task in found})


def answers_of(model: MTAModel, sets: Mapping[str, EvalSet], *, codec: Codec, batch_size: int) -> dict[str, list[Answer]]:
    """Answer the rows of all tasks, in mixed batches; tasks without rows are left out."""
    tasks = [task for task, eval_set in sets.items() if eval_set.features]
    rows = [row for task in tasks for row in sets[task].features]
    if model.kind == "encoder":
        outputs = iter(outputs_of(model, rows, codec=codec, batch_size=batch_size))
        return {
            task: [Answer(value=answer(next(outputs), sets[task].spec, sets[task].scale)) for _ in sets[task].features]
            for task in tasks
        }
    by_id = {row.task_id: sets[task].spec for task in tasks for row in sets[task].features[:1]}
    answers = iter(Writer(model=model, codec=codec, specs=by_id, batch_size=batch_size).answer(rows))
    return {task: [next(answers) for _ in sets[task].features] for task in tasks}


def split_scores(scored: Mapping[str, TaskScore], specs: Mapping[str, TaskSpec]) -> SplitScores:
    """Put task scores and their average (groups first) together."""
    groups = {task: specs[task].group for task in scored}
    mean = average({task: score.score for task, score in scored.items()}, groups)
    return SplitScores(average=mean, tasks=dict(scored))


def score_task(
    spec: TaskSpec,
    answers: Sequence[str | float],
    references: Sequence[Reference],
    *,
    num_truncated: int = 0,
    num_invalid: int = 0,
    training_mean: float = 0.0,
) -> TaskScore:
    """Compute a task's metrics, in percent where they are fractions, and notice where a model gave one answer to every row.

    Answers that are no label, or no number, count as wrong: a number that is none counts as the mean of the training rows' numbers.
    """
    if spec.kind == "regression" and num_invalid:
        answers = [training_mean if isinstance(given, float) and math.isnan(given) else given for given in answers]
    metrics = {name: metric_of(name, spec, answers, references) for name in spec.metric_names}
    distinct = {_rounded(given) for given in answers}
    collapsed = len(distinct) == 1 and len({_rounded(reference) for reference in references}) > 1
    signatures = {name: signature for name in spec.metric_names if (signature := metric_signature(name, references)) is not None}
    return TaskScore(
        score=metrics[spec.primary_metric],
        metric=spec.primary_metric,
        metrics=metrics,
        num_examples=len(references),
        constant_prediction=str(answers[0]) if collapsed else None,
        num_truncated=num_truncated,
        num_invalid=num_invalid,
        signatures=signatures,
    )


def metric_of(name: str, spec: TaskSpec, answers: Sequence[str | float], references: Sequence[Reference]) -> float:
    """Return one metric of a task's answers, in percent where it is a fraction."""
    traits = metric_traits(name)
    labels = traits.choose_labels(labels=spec.labels, metric_labels=spec.metric_labels)
    if name.endswith("_macro") and labels is None and spec.labels is not None:
        # What a model wrote that is no label is a wrong answer, and no class of its own that the mean would count.
        labels = sorted({str(reference) for reference in references} | ({str(given) for given in answers} & set(spec.labels)))
    value = float(METRICS.get(name)(list(answers), list(references), labels=labels))
    return 100 * value if traits.in_percent else value


def _rounded(value: Reference) -> Any:
    """Numbers that agree to 4 digits are one answer: a collapsed regression still jitters in the last bits."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else value
    return value if isinstance(value, str) else tuple(value)
