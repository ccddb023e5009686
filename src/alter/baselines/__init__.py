"""Honest yardsticks, one file each: what a model must beat to be worth its weights. scikit-learn underneath, no torch.

A yardstick file defines `fit_predict(spec, train, validation, inputs, *, seed) -> list[str] | list[float]`: it learns from
`train`, may choose its settings on `validation`, never reads the labels of `inputs`, and returns one prediction per row of
`inputs`: label names for a classification task, numbers for a regression task, texts for a generation task.
"""

from alter.registry import Registry

BASELINES = Registry("baseline", package="alter.baselines", attribute="fit_predict")
