"""Metrics by their usual names, one file each; scikit-learn and scipy underneath.

A metric file defines `compute(predictions, references, *, labels) -> float`: `predictions` and `references` are equally long
lists of label names (or numbers, for regression), `labels` the labels that the metric should look at (None: all). The score is a
fraction (or a correlation); results show it in percent.
"""

from alter.registry import Registry

METRICS = Registry("metric", package="alter.metrics", attribute="compute")
