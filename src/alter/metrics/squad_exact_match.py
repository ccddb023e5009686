"""SQuAD's exact match: share of answers that equal a reference, case, punctuation and articles aside.

    squad_exact_match = |{i : words(prediction_i) = words(some reference of i)}| / n

Lower case, without punctuation and articles (Rajpurkar et al. 2016). For other texts than answers to questions see exact_match,
which folds case and white space only. `labels` does not change it.
"""

from __future__ import annotations

from alter.metrics._checks import References, Values, check_texts
from alter.metrics._squad import answer_words

KIND = "generation"


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the share of exact matches, 0 to 1.

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("squad_exact_match", predictions, references)
    return sum(answer_words(text) in map(answer_words, right) for text, right in zip(texts, several, strict=True)) / len(texts)
