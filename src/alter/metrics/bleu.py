"""BLEU of all rows together: n-grams of 1 to 4 words that occur in a reference, short texts penalised.

    bleu = BP * (p1 p2 p3 p4)^(1/4),  BP = min(1, e^(1 - reference words / predicted words))

p_n counts over all rows together, each n-gram at most as often as in one reference of its row; the reference length is that of
the row's nearest one (Papineni et al. 2002). sacrebleu with its defaults: case kept, tokenizer 13a (not for Chinese, Japanese or
Korean), exponential smoothing. Rows may have unequally many references. Where no prediction has four words the score is 0.
`labels` does not change it. `signature` says the variant and the version; quote it with the score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alter.metrics._checks import References, Values, check_texts
from alter.metrics._sacrebleu import streams

KIND = "generation"


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the corpus BLEU, 0 to 1 (sacrebleu's figure divided by 100).

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("bleu", predictions, references)
    # exp(mean of logs) can come out a rounding above 100.
    return min(1.0, float(_bleu().corpus_score(texts, streams(several)).score) / 100)


def row_counts(predictions: Values, references: References) -> list[list[int]]:
    """Return of each row the n-grams that match (1 to 4 words), the n-grams, the words and the nearest reference's words: 10 numbers.

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("bleu", predictions, references)
    bleu = _bleu()
    rows = [bleu.corpus_score([text], [[one] for one in right]) for text, right in zip(texts, several, strict=True)]
    return [[*row.counts, *row.totals, row.sys_len, row.ref_len] for row in rows]


def from_counts(counts: Sequence[int]) -> float:
    """Return the corpus BLEU, 0 to 1, of rows whose `row_counts` sum to these."""
    matches, ngrams, (words, reference_words) = list(counts[:4]), list(counts[4:8]), counts[8:]
    bleu = _bleu()
    score = bleu.compute_bleu(matches, ngrams, words, reference_words, smooth_method=bleu.smooth_method).score
    return min(1.0, float(score) / 100)


def signature(references: References) -> str:
    """Return sacrebleu's signature, such as nrefs:var|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0.

    Raises:
        TaskError: the references do not fit together, or are not text.
    """
    _, several = check_texts("bleu", [""] * len(references), references)
    return str(_bleu(references=streams(several)).get_signature())


def _bleu(**settings: Any) -> Any:
    from sacrebleu.metrics.bleu import BLEU

    # force: no log lines about predictions that look tokenized; some data sets are.
    return BLEU(force=True, **settings)
