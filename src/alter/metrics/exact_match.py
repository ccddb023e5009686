"""Share of rows whose text equals the reference, letter case and white space aside.

    exact_match = |{i : fold(prediction_i) = fold(reference_i)}| / n,  fold = lower case, white space to single spaces, ends cut

Where rows have several references a row matches if any of them does. Numbers are compared as they are. `labels` does not change
it.
"""

from __future__ import annotations

from alter.metrics._checks import References, Values, check_rows, check_texts, has_lists


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the share of exact matches, 0 to 1.

    Raises:
        TaskError: the rows do not fit together.
    """
    if has_lists(references):
        texts, several = check_texts("exact_match", predictions, references)
        return sum(_fold(text) in map(_fold, right) for text, right in zip(texts, several, strict=True)) / len(several)
    check_rows("exact_match", predictions, references)  # type: ignore[arg-type]  # no row has a list: seen above
    matches = sum(_fold(predicted) == _fold(true) for predicted, true in zip(predictions, references, strict=True))
    return matches / len(references)


def _fold(value: object) -> object:
    return " ".join(value.lower().split()) if isinstance(value, str) else value
