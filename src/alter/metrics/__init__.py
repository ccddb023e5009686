"""Metrics by their usual names, one file each; scikit-learn, scipy, rouge-score and sacrebleu underneath.

A metric file defines `compute(predictions, references, *, labels) -> float`: `predictions` and `references` are equally long
lists of label names (numbers for regression, texts for generation, where each reference may also be a list of several texts),
`labels` the labels that the metric should look at (None: all). The score is a fraction (or a correlation); results show it in
percent.

A file may say more about its metric, by constants that are read before any row is:

    KIND = "classification"     the kind of task that it scores: classification, regression or generation; by default any
    METRIC_LABELS = "one"       the `labels` that it needs: `metric_labels` of the task, exactly "one" or "some" of them, or
                                "task": all labels that the task allows; by default none
    HIGHER_IS_BETTER = False    an error (mse): it cannot be a task's primary metric, which chooses the best checkpoint
    IN_PERCENT = False          results show it as it is; by default so where HIGHER_IS_BETTER is False

A file may also define `signature(references) -> str`: the exact variant of the metric, as papers quote it beside the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alter.errors import PluginError
from alter.registry import Registry

METRICS = Registry("metric", package="alter.metrics", attribute="compute")


@dataclass(frozen=True, kw_only=True)
class MetricTraits:
    """What a metric's file says about it.

    Attributes:
        kind: the kind of task that it scores; None: any.
        metric_labels: how many labels the task must name in `metric_labels`, or "task": it is given all labels that the task
            allows; None: it is given none.
        higher_is_better: whether it may choose the best checkpoint.
        in_percent: whether results show it times 100.
    """

    kind: Literal["classification", "regression", "generation"] | None
    metric_labels: Literal["one", "some", "task"] | None
    higher_is_better: bool
    in_percent: bool

    def choose_labels(self, *, labels: Sequence[str] | None, metric_labels: Sequence[str] | None) -> Sequence[str] | None:
        """Return what `compute` gets as `labels`, of a task that allows `labels` and names `metric_labels`."""
        if self.metric_labels is None:
            return None
        return labels if self.metric_labels == "task" else metric_labels


def metric_traits(name: str) -> MetricTraits:
    """Return what the metric `name` says about itself; imports its file, and not scikit-learn.

    Raises:
        PluginError: the name is unknown, or its file cannot be imported or says something impossible.
    """
    module = METRICS.module(name)

    def said(constant: str, default: Any, allowed: tuple[Any, ...]) -> Any:
        value = getattr(module, constant, default)
        if value not in allowed:
            raise PluginError(f"{module.__name__}: {constant} is {value!r}; allowed: {', '.join(map(repr, allowed))}")
        return value

    higher_is_better = said("HIGHER_IS_BETTER", True, (True, False))
    return MetricTraits(
        kind=said("KIND", None, (None, "classification", "regression", "generation")),
        metric_labels=said("METRIC_LABELS", None, (None, "one", "some", "task")),
        higher_is_better=higher_is_better,
        in_percent=said("IN_PERCENT", higher_is_better, (True, False)),
    )


def metric_signature(name: str, references: Sequence[Any]) -> str | None:
    """Return the exact variant of the metric `name` on these references, or None where its name says it all.

    Raises:
        PluginError: the name is unknown, or its file cannot be imported.
    """
    signature = getattr(METRICS.module(name), "signature", None)
    return None if signature is None else str(signature(references))
