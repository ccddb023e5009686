"""Mean F1 over chosen labels, the others counting only through their errors.

    f1_over_labels = mean over c in labels of 2 TP_c / (2 TP_c + FP_c + FN_c)

The score of stance detection in SemEval-2016 task 6 and TweetEval (Barbieri et al., 2020, arXiv 2010.12421): the mean F1 of
`favor` and `against`; `none` is no goal, but a row wrongly called `favor` still costs precision. The same formula as `f1_macro`
with `labels`, under a name that insists on them.
"""

from __future__ import annotations

from alter.errors import TaskError
from alter.metrics._checks import Values, encode

KIND = "classification"
METRIC_LABELS = "some"


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the mean F1 over `labels`, 0 to 1.

    Raises:
        TaskError: `labels` is missing or empty, or the rows do not fit together.
    """
    from sklearn.metrics import f1_score

    if labels is None:
        raise TaskError("f1_over_labels: needs labels, seen: none; set metric_labels: [<label>, ...], or use f1_macro")
    codes = encode("f1_over_labels", predictions, references, labels)
    return float(f1_score(codes.references, codes.predictions, labels=codes.labels, average="macro", zero_division=0))
