"""F1 of one positive label: the harmonic mean of its precision and recall.

    f1 = 2 TP / (2 TP + FP + FN), counted for the positive label; every other label counts as negative

The positive label is the one entry of `labels` (`metric_labels` in a task). There is no default: which of two labels is the
positive one is a decision, and sorting them would make it by their spelling. Where the label occurs nowhere the score is 0.
"""

from __future__ import annotations

from alter.errors import TaskError
from alter.metrics._checks import Values, encode

KIND = "classification"
METRIC_LABELS = "one"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the F1 of the one label in `labels`, 0 to 1.

    Raises:
        TaskError: `labels` does not hold exactly one label, or the rows do not fit together.
    """
    from sklearn.metrics import f1_score

    if labels is None or len(labels) != 1:
        seen = "none" if labels is None else str(list(labels))
        raise TaskError(f"f1: needs exactly one positive label, seen: {seen}; set metric_labels: [<label>], or use f1_macro")
    codes = encode("f1", predictions, references, labels)
    # The macro mean over one label is that label's F1, however many other labels there are.
    return float(f1_score(codes.references, codes.predictions, labels=codes.labels, average="macro", zero_division=0))
