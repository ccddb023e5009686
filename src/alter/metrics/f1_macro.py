"""Mean of the labels' F1, each label counting alike.

    f1_macro = mean over labels c of 2 TP_c / (2 TP_c + FP_c + FN_c)

The mean goes over the labels that occur in references or predictions, or over `labels` where they are given; a label that occurs
in neither has F1 0, as in scikit-learn with zero_division=0.
"""

from __future__ import annotations

from alter.metrics._checks import Values, encode

KIND = "classification"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the macro F1, 0 to 1.

    Raises:
        TaskError: the rows or `labels` do not fit together.
    """
    from sklearn.metrics import f1_score

    codes = encode("f1_macro", predictions, references, labels)
    return float(f1_score(codes.references, codes.predictions, labels=codes.labels, average="macro", zero_division=0))
