"""chrF2 of all rows together: F-score of character n-grams, recall weighing twice as much.

    chrf = (1 + 2^2) P R / (2^2 P + R),  P and R averaged over n-grams of 1 to 6 characters

Counts are summed over all rows, of each row with its best reference (Popovic 2015). sacrebleu with its defaults: case kept, white
space left out, no word n-grams. Needs no tokenizer, so it is fit for any language. Rows may have unequally many references.
`labels` does not change it. `signature` says the variant and the version; quote it with the score.
"""

from __future__ import annotations

from typing import Any

from alter.metrics._checks import References, Values, check_texts
from alter.metrics._sacrebleu import streams

KIND = "generation"


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the corpus chrF2, 0 to 1 (sacrebleu's figure divided by 100).

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("chrf", predictions, references)
    return min(1.0, float(_chrf().corpus_score(texts, streams(several)).score) / 100)


def signature(references: References) -> str:
    """Return sacrebleu's signature, such as nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:2.6.0.

    Raises:
        TaskError: the references do not fit together, or are not text.
    """
    _, several = check_texts("chrf", [""] * len(references), references)
    return str(_chrf(references=streams(several)).get_signature())


def _chrf(**settings: Any) -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF(**settings)
