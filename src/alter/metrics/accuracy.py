"""Share of rows whose prediction equals the reference.

    accuracy = |{i : prediction_i = reference_i}| / n

`labels` does not change it: a share over all rows has no labels to choose.
"""

from __future__ import annotations

from alter.metrics._checks import Values, encode

KIND = "classification"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the accuracy, 0 to 1.

    Raises:
        TaskError: the rows do not fit together.
    """
    from sklearn.metrics import accuracy_score

    codes = encode("accuracy", predictions, references)
    return float(accuracy_score(codes.references, codes.predictions))
