"""ROUGE as the package rouge-score computes it, which agrees with the original Perl script (ROUGE-1.5.5 -m)."""

from __future__ import annotations

from alter.metrics._checks import References, Values, check_texts


def mean_f_measure(metric: str, predictions: Values, references: References) -> float:
    """Return the mean over rows of the F-measure with the row's best reference; `metric` is a name that rouge-score knows.

    Raises:
        TaskError: see `check_texts`.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    texts, several = check_texts(metric, predictions, references)
    # Left to make its own tokenizer the scorer logs through absl, which sets up the logging of the whole process.
    scorer = RougeScorer([metric], tokenizer=DefaultTokenizer(use_stemmer=True))
    rows = zip(texts, several, strict=True)
    return sum(float(scorer.score_multi(right, text)[metric].fmeasure) for text, right in rows) / len(texts)
