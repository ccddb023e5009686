"""Scores: what a model answers for rows of any tasks, and how right it is.

Shapes: B rows, C outputs of the largest task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from alter.data.batch import batches_by_length, collate
from alter.data.encode import Features, Scale
from alter.errors import TrainingError
from alter.metrics import METRICS, metric_traits
from alter.model import MTAModel
from alter.results import SplitScores, TaskScore, average
from alter.tasks.spec import TaskSpec


@dataclass(frozen=True, kw_only=True)
class EvalSet:
    """Labelled rows of one task.

    Attributes:
        spec: the task.
        features: the encoded rows.
        references: the true labels or numbers, in the same order.
        scale: a regression task's scale.
    """

    spec: TaskSpec
    features: Sequence[Features]
    references: Sequence[str | float]
    scale: Scale


def outputs_of(
    model: MTAModel, rows: Sequence[Features], *, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> list[torch.Tensor]:
    """Return the outputs of each row's head, (C,) on the CPU, in the order of `rows`; the tasks may be mixed.

    Raises:
        TrainingError: an output is NaN or infinite, so there is nothing to score.
    """
    assert model.heads is not None
    model.eval()
    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for positions in batches_by_length(rows, batch_size):
            batch = collate([rows[position] for position in positions], tokenizer).to(model.device)
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
    model: MTAModel, sets: Mapping[str, EvalSet], *, tokenizer: PreTrainedTokenizerBase, batch_size: int
) -> tuple[SplitScores, dict[str, list[str | float]]]:
    """Score a model on labelled rows of all tasks, in mixed batches.

    Returns:
        the scores, and each task's answers in the order of its rows.
    """
    tasks = [task for task, eval_set in sets.items() if eval_set.features]
    rows = [row for task in tasks for row in sets[task].features]
    outputs = iter(outputs_of(model, rows, tokenizer=tokenizer, batch_size=batch_size))
    answers: dict[str, list[str | float]] = {}
    for task in tasks:
        eval_set = sets[task]
        answers[task] = [answer(next(outputs), eval_set.spec, eval_set.scale) for _ in eval_set.features]
    scored = {
        task: score_task(
            sets[task].spec, answers[task], sets[task].references, num_truncated=sum(row.truncated for row in sets[task].features)
        )
        for task in tasks
    }
    return split_scores(scored, {task: sets[task].spec for task in tasks}), answers


def split_scores(scored: Mapping[str, TaskScore], specs: Mapping[str, TaskSpec]) -> SplitScores:
    """Put task scores and their average (groups first) together."""
    groups = {task: specs[task].group for task in scored}
    mean = average({task: score.score for task, score in scored.items()}, groups)
    return SplitScores(average=mean, tasks=dict(scored))


def score_task(
    spec: TaskSpec, answers: Sequence[str | float], references: Sequence[str | float], *, num_truncated: int = 0
) -> TaskScore:
    """Compute a task's metrics, in percent where they are fractions, and notice where a model gave one answer to every row."""
    metrics = {name: _metric(name, spec, answers, references) for name in spec.metric_names}
    distinct = {_rounded(given) for given in answers}
    collapsed = len(distinct) == 1 and len({_rounded(reference) for reference in references}) > 1
    return TaskScore(
        score=metrics[spec.primary_metric],
        metric=spec.primary_metric,
        metrics=metrics,
        num_examples=len(references),
        constant_prediction=str(answers[0]) if collapsed else None,
        num_truncated=num_truncated,
    )


def _metric(name: str, spec: TaskSpec, answers: Sequence[str | float], references: Sequence[str | float]) -> float:
    traits = metric_traits(name)
    labels = spec.metric_labels if traits.metric_labels is not None else None
    value = float(METRICS.get(name)(list(answers), list(references), labels=labels))
    return 100 * value if traits.in_percent else value


def _rounded(value: str | float) -> str | float:
    """Numbers that agree to 4 digits are one answer: a collapsed regression still jitters in the last bits."""
    return float(f"{value:.4g}") if isinstance(value, float) and math.isfinite(value) else value
