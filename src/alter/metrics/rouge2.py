"""ROUGE-2: F-measure of the word pairs that a text shares with its reference.

    P = shared / word pairs of the prediction,  R = shared / word pairs of the reference,  rouge2 = 2 P R / (P + R)

A text of one word has no pair and scores 0.

The best reference of a row counts, then the mean over rows (Lin 2004, as the package rouge-score computes it). Texts are
lower-cased, split at whatever is no Latin letter or digit, and words of four letters or more are stemmed (Porter): the
`use_stemmer=True` of the summarisation examples of transformers and the `-m` of summarisation papers; `evaluate` leaves
stemming off unless asked. Text without Latin letters or digits scores 0: use rougeL_characters. `labels` does not change it.
"""

from __future__ import annotations

from alter.metrics._checks import References, Values
from alter.metrics._rouge import mean_f_measure

KIND = "generation"


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the mean ROUGE-2 F-measure, 0 to 1.

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    return mean_f_measure("rouge2", predictions, references)
