"""ROUGE-L over characters: F-measure of the longest common subsequence, white space left out.

    P = LCS / characters of the prediction,  R = LCS / characters of the reference,  F = 2 P R / (P + R)

For Chinese, Japanese and other text without spaces between words, which rouge-score drops. The best reference of a row counts,
then the mean over rows. Characters are compared as they are, without folding or stemming. An empty text scores 0. `labels` does
not change it.

The LCS is bit-parallel (Hyyro 2004): one row of the dynamic programme is one integer.
"""

from __future__ import annotations

from collections import defaultdict

from alter.metrics._checks import References, Values, check_texts

KIND = "generation"


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the mean character ROUGE-L F-measure, 0 to 1.

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("rougeL_characters", predictions, references)
    best = (max(_f_measure(_squeeze(text), _squeeze(true)) for true in right) for text, right in zip(texts, several, strict=True))
    return sum(best) / len(texts)


def _squeeze(text: str) -> str:
    return "".join(text.split())


def _f_measure(one: str, other: str) -> float:
    # 2 P R / (P + R) with P = LCS / |one| and R = LCS / |other|
    return 2 * lcs_length(one, other) / (len(one) + len(other)) if one and other else 0.0


def lcs_length(one: str, other: str) -> int:
    """Return the length of the longest common subsequence of two texts."""
    places: defaultdict[str, int] = defaultdict(int)
    for place, character in enumerate(one):
        places[character] |= 1 << place
    everywhere = (1 << len(one)) - 1
    # A zero bit at place i: the LCS of one[:i + 1] and what was read of `other` is one longer than that of one[:i].
    steps = everywhere
    for character in other:
        matched = steps & places.get(character, 0)
        steps = ((steps + matched) | (steps - matched)) & everywhere
    return len(one) - steps.bit_count()
