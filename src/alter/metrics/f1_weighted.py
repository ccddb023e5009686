"""Mean of the labels' F1, each label counting by its number of references.

    f1_weighted = sum over labels c of n_c / n * 2 TP_c / (2 TP_c + FP_c + FN_c), n_c references of label c, n = sum of n_c

Over `labels` where they are given; 0 where none of them has a reference.
"""

from __future__ import annotations

from alter.metrics._checks import Values, encode

KIND = "classification"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the weighted F1, 0 to 1.

    Raises:
        TaskError: the rows or `labels` do not fit together.
    """
    from sklearn.metrics import f1_score

    codes = encode("f1_weighted", predictions, references, labels)
    return float(f1_score(codes.references, codes.predictions, labels=codes.labels, average="weighted", zero_division=0))
