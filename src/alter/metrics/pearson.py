"""Pearson correlation of predicted and true numbers.

    r = sum (p_i - mean p) (y_i - mean y) / sqrt(sum (p_i - mean p)^2 * sum (y_i - mean y)^2)

From -1 to 1. Where predictions or references are constant (a collapsed model), or vary only by rounding, the correlation is not
defined and the score is 0. `labels` does not change it.
"""

from __future__ import annotations

import warnings

from alter.metrics._checks import Values, as_numbers

KIND = "regression"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return Pearson's r, -1 to 1; 0 where either side is constant.

    Raises:
        TaskError: the rows do not fit together, or are not finite numbers.
    """
    from scipy.stats import NearConstantInputWarning, pearsonr

    predicted, true = as_numbers("pearson", predictions, references)
    if len(set(predicted)) == 1 or len(set(true)) == 1:
        return 0.0
    with warnings.catch_warnings():
        # scipy warns where the spread is below the rounding of the mean: what it returns then is noise, not a correlation.
        warnings.simplefilter("error", NearConstantInputWarning)
        try:
            return float(pearsonr(predicted, true).statistic)
        except NearConstantInputWarning:
            return 0.0
