"""Span corruption (T5, arXiv 1910.10683) and text infilling (BART, arXiv 1910.13461) on token ids.

    block              a b c d e f g h            mask    . . x x . . . x
    span corruption    a b <0> e f g <1> </s>     target  <0> c d <1> h <2> </s>
    text infilling     a b <0> e f g <0> </s>     target  a b c d e f g h </s>

Spans are T5's `random_spans_noise_mask`: as many as fit the wished mean length, their lengths and the gaps between them drawn evenly
from all ways to divide the masked and the other tokens; a block begins unmasked and ends masked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Example:
    """What a model reads and what it must write; a decoder-only model reads what it writes."""

    input_ids: list[int]
    labels: list[int]


@dataclass(frozen=True)
class Noise:
    """How much is masked, in spans of which mean length."""

    density: float
    mean_span_length: float

    def counts(self, length: int) -> tuple[int, int]:
        """Return (masked units, spans) of a block of `length` >= 2 units."""
        masked = min(max(round(length * self.density), 1), length - 1)
        spans = max(round(masked / self.mean_span_length), 1)
        return masked, min(spans, masked, length - masked)


def noise_mask(length: int, noise: Noise, rng: np.random.Generator) -> Mask:
    """Return which of `length` units are masked; a lone one is."""
    if length < 2:
        return np.ones(length, dtype=np.bool_)
    masked, spans = noise.counts(length)
    noisy = _segments(masked, spans, rng)
    plain = _segments(length - masked, spans, rng)
    lengths = np.stack([plain, noisy], axis=1).reshape(-1)
    return np.repeat(np.tile([False, True], spans), lengths)


def _segments(total: int, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Divide `total` into `count` positive lengths, all divisions equally likely."""
    inner = np.sort(rng.permutation(total - 1)[: count - 1]) + 1
    return np.diff(np.concatenate([[0], inner, [total]]))


def spans_of(mask: Mask) -> list[tuple[int, int]]:
    """Return (start, end) of each masked span."""
    padded = np.concatenate([[False], mask, [False]]).astype(np.int8)
    edges = np.flatnonzero(np.diff(padded))
    return [(int(start), int(end)) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def corrupt(ids: list[int], mask: Mask, *, sentinels: list[int], eos: int) -> Example:
    """Return the input with a sentinel for each masked span, and the target that says what each stood for."""
    inputs: list[int] = []
    target: list[int] = []
    done = 0
    spans = spans_of(mask)
    for sentinel, (start, end) in zip(sentinels, spans, strict=False):
        inputs += [*ids[done:start], sentinel]
        target += [sentinel, *ids[start:end]]
        done = end
    return Example(input_ids=[*inputs, *ids[done:], eos], labels=[*target, sentinels[len(spans)], eos])


def infill(ids: list[int], mask: Mask, *, mask_id: int) -> list[int]:
    """Return the input with one mask token for each masked span."""
    inputs: list[int] = []
    done = 0
    for start, end in spans_of(mask):
        inputs += [*ids[done:start], mask_id]
        done = end
    return [*inputs, *ids[done:]]


def permuted(ends: Sequence[bool], rng: np.random.Generator) -> list[int]:
    """Return an order of units in which sentences are shuffled and whole (BART's sentence permutation).

    Args:
        ends: of each unit, whether it ends a sentence; what follows the last end is a sentence too.
        rng: draws the order.
    """
    starts = [0, *(place + 1 for place, last in enumerate(ends[:-1]) if last)]
    sentences = [range(start, end) for start, end in zip(starts, [*starts[1:], len(ends)], strict=True)]
    return [unit for number in rng.permutation(len(sentences)) for unit in sentences[number]]
