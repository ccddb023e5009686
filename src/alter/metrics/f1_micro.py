"""F1 of the counts pooled over labels.

    f1_micro = 2 TP / (2 TP + FP + FN), with TP, FP, FN summed over labels

With one label per row and all labels counted this is the accuracy; it says more over a part of the labels (`labels`), e.g. all
but a large `none`.
"""

from __future__ import annotations

from alter.metrics._checks import Values, encode

KIND = "classification"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the micro F1, 0 to 1.

    Raises:
        TaskError: the rows or `labels` do not fit together.
    """
    from sklearn.metrics import f1_score

    codes = encode("f1_micro", predictions, references, labels)
    return float(f1_score(codes.references, codes.predictions, labels=codes.labels, average="micro", zero_division=0))
