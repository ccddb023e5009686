"""Paired bootstrap over rows: how far a difference between two arms would move with other test rows of the same kind.

Each resample draws every task's rows anew, with replacement, the same rows for all arms and seeds. The average over tasks is computed
of each resample; the difference of two arms' averages then has an interval (percentiles 2.5 and 97.5). Efron and Tibshirani 1993; for
comparing systems on one test set: Koehn 2004, Berg-Kirkpatrick et al. 2012.

Shapes: R resamples, B rows, C labels.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alter.evaluation import metric_of
from alter.metrics import bleu, metric_traits
from alter.results import average
from alter.tasks.spec import TaskSpec

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MANY, FEW = 1000, 200
"""Resamples; few where a metric has to be computed from the texts of each resample."""
ROW_MEANS = frozenset(
    {"exact_match", "squad_exact_match", "token_f1", "numeric_match", "rouge1", "rouge2", "rougeL", "rougeL_characters"}
)
"""Metrics that are a mean over rows, so that each row is scored once."""


@dataclass(frozen=True, kw_only=True)
class Answered:
    """One task's rows as an arm answered them.

    Attributes:
        spec: the task, its labels complete.
        predictions: what was answered.
        references: what is right; of a generation each a list of texts.
    """

    spec: TaskSpec
    predictions: Sequence[Any]
    references: Sequence[Any]


def is_quick(spec: TaskSpec) -> bool:
    """Whether a task's primary metric is computed from numbers that are found once."""
    return spec.primary_metric == "bleu" or any(spec.primary_metric in quick for quick in (ROW_MEANS, FROM_COUNTS, FROM_NUMBERS))


def num_resamples(specs: Sequence[TaskSpec]) -> int:
    """Return how many resamples these tasks get."""
    return MANY if all(is_quick(spec) for spec in specs) else FEW


def resampled_averages(tasks: Mapping[str, Answered], *, resamples: int) -> Floats:
    """Return the average over tasks (groups first) of each resample, (R,), in percent; the same rows are drawn for every arm."""
    scores = {name: _resampled(answered, resamples) for name, answered in tasks.items()}
    groups = {name: answered.spec.group for name, answered in tasks.items()}
    return np.array([average({name: float(found[r]) for name, found in scores.items()}, groups) for r in range(resamples)])


def interval(differences: Floats) -> tuple[float, float]:
    """Return the 95 % interval of resampled differences."""
    low, high = np.percentile(differences, [2.5, 97.5])
    return float(low), float(high)


def draws_of(task: str, rows: int, resamples: int) -> Iterator[Ints]:
    """Yield the rows of each resample, (B,): the same for every arm, for only the task's name and size count."""
    generator = np.random.default_rng([zlib.crc32(task.encode()), rows])
    for _ in range(resamples):
        yield generator.integers(0, rows, size=rows)


def _resampled(answered: Answered, resamples: int) -> Floats:
    """Return a task's score, in percent, on each resample, (R,)."""
    score = scorer(answered)
    draws = draws_of(answered.spec.name, len(answered.references), resamples)
    found: Floats = np.array([score(drawn_B) for drawn_B in draws])
    return found


def scorer(answered: Answered) -> Callable[[Ints], float]:
    """Return the task's primary metric, as the evaluation computes it, as a function of the drawn rows, (B,)."""
    spec, name = answered.spec, answered.spec.primary_metric
    given, right = answered.predictions, answered.references
    if name in ROW_MEANS:
        scores_B = np.array([metric_of(name, spec, [one], [other]) for one, other in zip(given, right, strict=True)])
        return lambda drawn_B: float(scores_B[drawn_B].mean())
    if name in FROM_COUNTS:
        of_counts = _counted(answered, FROM_COUNTS[name])
        return lambda drawn_B: 100 * of_counts(drawn_B)
    if name in FROM_NUMBERS:
        of_numbers, given_B, right_B = FROM_NUMBERS[name], np.array(given, np.float64), np.array(right, np.float64)
        return lambda drawn_B: 100 * of_numbers(given_B[drawn_B], right_B[drawn_B])
    if name == "bleu":
        counts_BK = np.array(bleu.row_counts(given, right))
        return lambda drawn_B: 100 * bleu.from_counts(counts_BK[drawn_B].sum(0).tolist())
    return lambda drawn_B: metric_of(name, spec, [given[i] for i in drawn_B], [right[i] for i in drawn_B])


def _counted(answered: Answered, metric: Callable[[Floats, Sequence[int] | None], float]) -> Callable[[Ints], float]:
    """Return a metric of labels as a function of the drawn rows, through the counts of (right, answered) pairs."""
    spec = answered.spec
    known = sorted({*map(str, answered.predictions), *map(str, answered.references), *(spec.metric_labels or ())})
    code_of = {label: code for code, label in enumerate(known)}
    given_B = np.array([code_of[str(value)] for value in answered.predictions])
    right_B = np.array([code_of[str(value)] for value in answered.references])
    number = len(known)
    pairs_B = right_B * number + given_B
    chosen = metric_traits(spec.primary_metric).choose_labels(labels=spec.labels, metric_labels=spec.metric_labels)
    codes = None if chosen is None else [code_of[label] for label in chosen if label in code_of]
    allowed = None if spec.labels is None else {code_of[label] for label in spec.labels if label in code_of}

    def score(drawn_B: Ints) -> float:
        counts_CC = np.bincount(pairs_B[drawn_B], minlength=number * number).reshape(number, number).astype(np.float64)
        looked_at = codes
        if looked_at is None and allowed is not None:
            # As the evaluation does: an answer that is no label is wrong, and no class of its own.
            seen = np.flatnonzero(counts_CC.sum(0) + counts_CC.sum(1))
            true = set(np.flatnonzero(counts_CC.sum(1)).tolist())
            looked_at = [int(code) for code in seen if code in allowed or code in true]
        return metric(counts_CC, looked_at)

    return score


def _f1s(counts_CC: Floats) -> Floats:
    """Return 2 TP / (2 TP + FP + FN) of each label, 0 where it occurs nowhere."""
    double, both = 2 * counts_CC.diagonal(), counts_CC.sum(0) + counts_CC.sum(1)
    f1s: Floats = np.divide(double, both, out=np.zeros_like(both), where=both > 0)
    return f1s


def _seen(counts_CC: Floats, labels: Sequence[int] | None) -> list[int]:
    return list(labels) if labels is not None else np.flatnonzero(counts_CC.sum(0) + counts_CC.sum(1)).tolist()


def _accuracy(counts_CC: Floats, labels: Sequence[int] | None) -> float:
    return float(counts_CC.trace() / counts_CC.sum())


def _f1_macro(counts_CC: Floats, labels: Sequence[int] | None) -> float:
    return float(_f1s(counts_CC)[_seen(counts_CC, labels)].mean())


def _f1_weighted(counts_CC: Floats, labels: Sequence[int] | None) -> float:
    return float((_f1s(counts_CC) * counts_CC.sum(1)).sum() / counts_CC.sum())


def _recall_macro(counts_CC: Floats, labels: Sequence[int] | None) -> float:
    right = counts_CC.sum(1)
    recalls = np.divide(counts_CC.diagonal(), right, out=np.zeros_like(right), where=right > 0)
    return float(recalls[_seen(counts_CC, labels)].mean())


def _matthews(counts_CC: Floats, labels: Sequence[int] | None) -> float:
    """Return the correlation of Gorodkin 2004, 0 where one side is constant."""
    total, right, given = counts_CC.sum(), counts_CC.sum(1), counts_CC.sum(0)
    over = counts_CC.trace() * total - right @ given
    under = math.sqrt((total**2 - given @ given) * (total**2 - right @ right))
    return float(over / under) if under else 0.0


def _pearson(given_B: Floats, right_B: Floats) -> float:
    """Return r, 0 where one side is constant but for rounding."""
    sides = []
    for values_B in (given_B, right_B):
        mean = values_B.mean()
        norm = np.linalg.norm(values_B - mean)
        if (values_B == values_B[0]).all() or norm < 1e-13 * abs(mean):  # scipy's measure of nearly constant
            return 0.0
        sides.append((values_B - mean) / norm)
    return float(np.clip(sides[0] @ sides[1], -1.0, 1.0))


def _spearman(given_B: Floats, right_B: Floats) -> float:
    return _pearson(_ranks(given_B), _ranks(right_B))


def _ranks(values_B: Floats) -> Floats:
    """Return ranks, ties sharing their mean rank."""
    _, place_B, counts = np.unique(values_B, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[place_B]
    return ranks


FROM_NUMBERS: dict[str, Callable[[Floats, Floats], float]] = {"pearson": _pearson, "spearmanr": _spearman}
FROM_COUNTS: dict[str, Callable[[Floats, Sequence[int] | None], float]] = {
    "accuracy": _accuracy,
    "f1": _f1_macro,
    "f1_macro": _f1_macro,
    "f1_over_labels": _f1_macro,
    "f1_weighted": _f1_weighted,
    "matthews_correlation": _matthews,
    "recall_macro": _recall_macro,
}
"""Each equal to the metric of its name (tests/comparing/test_bootstrap.py), hundreds of times faster."""
