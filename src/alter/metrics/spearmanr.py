"""Spearman correlation: Pearson's r of the ranks, ties sharing their mean rank.

    rho = pearson(rank(predictions), rank(references))

From -1 to 1; looks at order only, so any rising function of the predictions scores alike. Where predictions or references are
constant the correlation is not defined and the score is 0. `labels` does not change it.
"""

from __future__ import annotations

from alter.metrics._checks import Values, as_numbers

KIND = "regression"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return Spearman's rho, -1 to 1; 0 where either side is constant.

    Raises:
        TaskError: the rows do not fit together, or are not finite numbers.
    """
    from scipy.stats import spearmanr

    predicted, true = as_numbers("spearmanr", predictions, references)
    if len(set(predicted)) == 1 or len(set(true)) == 1:
        return 0.0
    return float(spearmanr(predicted, true).statistic)
