"""SQuAD's F1: words that the answer shares with the reference, its best reference counting.

    P = shared / words of the prediction,  R = shared / words of the reference,  F1 = 2 P R / (P + R),  then the mean over rows

Lower case, without punctuation and articles (Rajpurkar et al. 2016); a word counts as often as both sides have it. Where one side
has no words the row scores 1 if the other has none either, else 0 (the rule of SQuAD 2.0). `labels` does not change it.
"""

from __future__ import annotations

from collections import Counter

from alter.metrics._checks import References, Values, check_texts
from alter.metrics._squad import answer_words

KIND = "generation"


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the mean token F1, 0 to 1.

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("token_f1", predictions, references)
    best = (
        max(_f1(answer_words(text), answer_words(true)) for true in right) for text, right in zip(texts, several, strict=True)
    )
    return sum(best) / len(texts)


def _f1(predicted: list[str], true: list[str]) -> float:
    if not predicted or not true:
        return float(predicted == true)
    # 2 P R / (P + R) with P = shared / |predicted| and R = shared / |true|
    return 2 * (Counter(predicted) & Counter(true)).total() / (len(predicted) + len(true))
