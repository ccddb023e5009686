"""Mean squared error of predicted numbers: lower is better, 0 is perfect.

    mse = mean of (prediction_i - reference_i)^2

In the squared unit of the references, so neither a fraction nor bounded: report it beside a correlation. `labels` does not
change it.
"""

from __future__ import annotations

from alter.metrics._checks import Values, as_numbers

HIGHER_IS_BETTER = False  # Metrics are read as scores unless they say so; who picks a best model must ask.

KIND = "regression"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the mean squared error, 0 or more.

    Raises:
        TaskError: the rows do not fit together, or are not finite numbers.
    """
    from sklearn.metrics import mean_squared_error

    predicted, true = as_numbers("mse", predictions, references)
    return float(mean_squared_error(true, predicted))
