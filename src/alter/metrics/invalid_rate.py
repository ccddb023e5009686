"""Share of predictions that are none of the task's labels: what a model that writes got out of form.

    invalid_rate = |{i : prediction_i is not among labels}| / n

Lower is better, 0 means that every answer was an allowed label, right or wrong: report it beside accuracy. `labels` are all labels
that the task allows.
"""

from __future__ import annotations

from alter.errors import TaskError
from alter.metrics._checks import Values, check_labels, check_rows

KIND = "classification"
METRIC_LABELS = "task"
HIGHER_IS_BETTER = False
IN_PERCENT = True


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the share of predictions outside `labels`, 0 to 1.

    Raises:
        TaskError: no labels are given, or they or the rows do not fit together.
    """
    check_rows("invalid_rate", predictions, references)
    if labels is None or not len(labels):
        seen = "none" if labels is None else str(list(labels))
        raise TaskError(
            f"invalid_rate: needs the labels that the task allows, seen: {seen}; set labels: [<label>, ...] in the task"
        )
    check_labels("invalid_rate", labels, is_text=isinstance(references[0], str))
    allowed = set(labels)
    return sum(predicted not in allowed for predicted in predictions) / len(predictions)
