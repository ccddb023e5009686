"""Share of rows whose text equals the reference, letter case and white space aside.

    exact_match = |{i : fold(prediction_i) = fold(reference_i)}| / n,  fold = lower case, white space to single spaces, ends cut

Numbers are compared as they are. `labels` does not change it.
"""

from __future__ import annotations

from alter.metrics._checks import Values, check_rows


def compute(predictions: Values, references: Values, *, labels: Values | None = None) -> float:
    """Return the share of exact matches, 0 to 1.

    Raises:
        TaskError: the rows do not fit together.
    """
    check_rows("exact_match", predictions, references)
    matches = sum(_fold(predicted) == _fold(true) for predicted, true in zip(predictions, references, strict=True))
    return matches / len(references)


def _fold(value: object) -> object:
    return " ".join(value.lower().split()) if isinstance(value, str) else value
