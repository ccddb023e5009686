"""Mean of the labels' recall, each label counting alike.

    recall_macro = mean over labels c of TP_c / (TP_c + FN_c)

The score of TweetEval sentiment (SemEval-2017 task 4). The mean goes over the labels that occur in references or predictions, or
over `labels` where they are given; a label without references has recall 0, as in scikit-learn with zero_division=0 (balanced
accuracy would leave it out).
"""

from __future__ import annotations

from alter.metrics._checks import Values, encode

KIND = "classification"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the macro recall, 0 to 1.

    Raises:
        TaskError: the rows or `labels` do not fit together.
    """
    from sklearn.metrics import recall_score

    codes = encode("recall_macro", predictions, references, labels)
    return float(recall_score(codes.references, codes.predictions, labels=codes.labels, average="macro", zero_division=0))
