"""Metrics by their usual names, one file each; scikit-learn and scipy underneath.

A metric file defines `compute(predictions, references, *, labels) -> float`: `predictions` and `references` are equally long
lists of label names (or numbers, for regression), `labels` the labels that the metric should look at (None: all). The score is a
fraction (or a correlation); results show it in percent.

A file may say more about its metric, by constants that are read before any row is:

    KIND = "classification"     the kind of task that it scores: classification or regression; by default either
    METRIC_LABELS = "one"       it needs `metric_labels` in the task: exactly "one" label, or "some"; by default none
    HIGHER_IS_BETTER = False    an error (mse): it cannot be a task's primary metric, which chooses the best checkpoint
    IN_PERCENT = False          results show it as it is; by default so where HIGHER_IS_BETTER is False
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from alter.errors import PluginError
from alter.registry import Registry

METRICS = Registry("metric", package="alter.metrics", attribute="compute")


@dataclass(frozen=True, kw_only=True)
class MetricTraits:
    """What a metric's file says about it.

    Attributes:
        kind: the kind of task that it scores; None: either.
        metric_labels: how many labels the task must name in `metric_labels`; None: it is not given them.
        higher_is_better: whether it may choose the best checkpoint.
        in_percent: whether results show it times 100.
    """

    kind: Literal["classification", "regression"] | None
    metric_labels: Literal["one", "some"] | None
    higher_is_better: bool
    in_percent: bool


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
        kind=said("KIND", None, (None, "classification", "regression")),
        metric_labels=said("METRIC_LABELS", None, (None, "one", "some")),
        higher_is_better=higher_is_better,
        in_percent=said("IN_PERCENT", higher_is_better, (True, False)),
    )
