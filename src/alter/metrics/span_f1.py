"""Micro F1 of the spans that a tagger writes as text, such as `city: las vegas; date: june`.

    P = correct / predicted spans,  R = correct / true spans,  F1 = 2 P R / (P + R), counted over all rows together

A span is `type: value`, spans are separated by `; `, and `none` or an empty text has none. A span is correct where the reference
has one of the same type and value, case and white space aside, in any order; two equal spans count twice (a multiset). A value may
hold `: `, and `; ` too where no `: ` follows before the next separator. What a prediction begins with that is no `type: value` is
one wrong span. With several references the one with the row's highest F1 counts. `labels` does not change it.

Against seqeval (CoNLL's span F1 on BIO tags, micro average): equal where no two spans of one type in a row have the same words.
Text has no positions, so where a row repeats a value this counts how often, and seqeval also where. It folds case, and where
neither side has any span the score is 1, not 0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from alter.errors import TaskError
from alter.metrics._checks import References, Values, check_texts

KIND = "generation"

Spans = Counter[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Spans of some rows: how many are correct, predicted and true."""

    correct: int
    predicted: int
    true: int

    @property
    def f1(self) -> float:
        """2 P R / (P + R) = 2 correct / (predicted + true)."""
        spans = self.predicted + self.true
        return 2 * self.correct / spans if spans else 1.0


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the micro span F1, 0 to 1.

    Raises:
        TaskError: the rows do not fit together, are not text, or a reference is not written as spans.
    """
    texts, several = check_texts("span_f1", predictions, references)
    rows = [
        _count(parse_spans(text), _true_spans(row, right)) for row, (text, right) in enumerate(zip(texts, several, strict=True))
    ]
    correct, predicted, true = (sum(getattr(row, what) for row in rows) for what in ("correct", "predicted", "true"))
    return Counts(correct=correct, predicted=predicted, true=true).f1


def parse_spans(text: str) -> Spans:
    """Return (type, value) -> how often; the type is empty where the text begins with something that is no span."""
    folded = " ".join(text.lower().split()).rstrip("; ")
    items: list[list[str]] = []
    for piece in folded.split("; ") if folded not in ("", "none") else []:
        kind, colon, value = piece.partition(": ")
        if colon:
            items.append([kind, value])
        elif not items:
            items.append(["", piece])
        elif piece:  # the last value goes on: it holds a `; ` itself
            items[-1][1] += f"; {piece}"
    return Counter((kind.strip(), value.strip()) for kind, value in items)


def _true_spans(row: int, references: list[str]) -> list[Spans]:
    spans = [parse_spans(text) for text in references]
    for text, found in zip(references, spans, strict=True):
        if any(not kind for kind, _ in found):
            raise TaskError(
                f"span_f1: a reference of row {row} is {text!r}; it must be `type: value` items separated by `; `, or none; "
                f"for other texts use e.g. exact_match or rougeL"
            )
    return spans


def _count(predicted: Spans, references: list[Spans]) -> Counts:
    counts = [Counts(correct=(predicted & true).total(), predicted=predicted.total(), true=true.total()) for true in references]
    # Of equally good references the shorter one: their order must not matter.
    return max(counts, key=lambda found: (found.f1, -found.true))
