"""Yardsticks of text generation: say what a similar row wants, or repeat how the input begins."""

from __future__ import annotations

from typing import Any

from alter.baselines._rows import texts
from alter.metrics import METRICS
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec

LEADS = (4, 6, 8, 12, 16, 24)
"""Numbers of first words to try."""


def nearest_or_lead(
    spec: TaskSpec, train: list[Example], validation: list[Example], inputs: list[Example], *, features: Any
) -> list[str]:
    """Return the target of the most similar training row, or the input's first words, whichever is better on validation rows.

    Args:
        spec: the task.
        train: rows to take targets from.
        validation: rows that choose, by the task's primary metric.
        inputs: rows to answer.
        features: a scikit-learn transformer of texts into rows of equal length, whose products are similarities.
    """
    x_train = features.fit_transform(texts(train))
    targets = [str(row.label) for row in train]
    shared = _shared_words(texts(train))

    def nearest(rows: list[Example]) -> list[str]:
        return [targets[int(best)] for best in (features.transform(texts(rows)) @ x_train.T).argmax(axis=1).ravel().tolist()[0]]

    def lead(rows: list[Example], words: int) -> list[str]:
        return [" ".join(text.split()[shared : shared + words]) for text in texts(rows)]

    compute = METRICS.get(spec.primary_metric)
    references = [list(row.references) or [str(row.label)] for row in validation]
    tried = {0: nearest(validation), **{words: lead(validation, words) for words in LEADS}}
    best = max(tried, key=lambda words: float(compute(tried[words], references, labels=None)))
    if not inputs:
        return []
    return lead(inputs, best) if best else nearest(inputs)


def _shared_words(rows: list[str]) -> int:
    """Return how many words all rows begin with alike: those of the template, not of the text."""
    split = [row.split() for row in rows]
    shortest = min(len(words) for words in split)
    return next((place for place in range(shortest) if len({words[place] for words in split}) > 1), 0)
