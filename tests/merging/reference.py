"""Every merge method again, entry by entry in plain Python floats: slow, and as the papers write it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from alter.merging._trim import drop_at_random
from alter.merging._vectors import TaskVector

Lists = list[dict[str, list[float]]]
"""One mapping a vector: name -> its entries, one after the other."""


def lists_of(vectors: Sequence[TaskVector]) -> Lists:
    return [{name: vector[name].double().flatten().tolist() for name in vector} for vector in vectors]


def entrywise(vectors: Lists, combine: Callable[[list[float]], float]) -> dict[str, list[float]]:
    return {name: [combine(list(entries)) for entries in zip(*(v[name] for v in vectors), strict=True)] for name in vectors[0]}


def trimmed(vectors: Lists, density: float) -> Lists:
    found = []
    for vector in vectors:
        sizes = sorted((abs(entry) for entries in vector.values() for entry in entries), reverse=True)
        smallest = sizes[max(1, int(density * len(sizes) + 0.5)) - 1]
        found.append({name: [entry if abs(entry) >= smallest else 0.0 for entry in entries] for name, entries in vector.items()})
    return found


def elected(entries: list[float]) -> float:
    total = sum(entries)
    agreeing = [entry for entry in entries if entry * total > 0]
    return sum(agreeing) / len(agreeing) if agreeing else 0.0


def shares(vectors: Lists) -> list[float]:
    squares = [sum(entry**2 for entries in vector.values() for entry in entries) for vector in vectors]
    return [square / sum(squares) for square in squares]


def weighed(vectors: Lists) -> dict[str, list[float]]:
    weights = shares(vectors)
    return entrywise(vectors, lambda entries: sum(w * entry for w, entry in zip(weights, entries, strict=True)))


def average(vectors: Sequence[TaskVector], *, weights: list[float] | None = None) -> dict[str, list[float]]:
    given = weights or [1.0] * len(vectors)
    return entrywise(lists_of(vectors), lambda entries: sum(w * e for w, e in zip(given, entries, strict=True)) / sum(given))


def task_arithmetic(vectors: Sequence[TaskVector], *, scale: float = 0.3) -> dict[str, list[float]]:
    return entrywise(lists_of(vectors), lambda entries: scale * sum(entries))


def ties(vectors: Sequence[TaskVector], *, density: float = 0.2, scale: float = 1.0) -> dict[str, list[float]]:
    return entrywise(trimmed(lists_of(vectors), density), lambda entries: scale * elected(entries))


def dropped(vectors: Sequence[TaskVector], density: float, seed: int) -> Lists:
    """Return what is left of the vectors: which entries, the method says; what they become, this does."""
    left = lists_of(drop_at_random(vectors, density, seed))
    return [
        {name: [entry / density if kept else 0.0 for entry, kept in zip(whole[name], rest[name], strict=True)] for name in whole}
        for whole, rest in zip(lists_of(vectors), left, strict=True)
    ]


def dare(vectors: Sequence[TaskVector], *, density: float = 0.5, scale: float = 0.3, seed: int = 0) -> dict[str, list[float]]:
    return entrywise(dropped(vectors, density, seed), lambda entries: scale * sum(entries))


def dare_ties(
    vectors: Sequence[TaskVector], *, density: float = 0.5, scale: float = 1.0, seed: int = 0
) -> dict[str, list[float]]:
    return entrywise(dropped(vectors, density, seed), lambda entries: scale * elected(entries))


def metagpt(vectors: Sequence[TaskVector], *, trim: str = "none", density: float = 0.55, seed: int = 0) -> dict[str, list[float]]:
    if trim == "ties":
        return weighed(trimmed(lists_of(vectors), density))
    return weighed(dropped(vectors, density, seed) if trim == "dare" else lists_of(vectors))


def fisher(vectors: Sequence[TaskVector], statistics: Sequence[TaskVector]) -> dict[str, list[float]]:
    merged = {}
    given = lists_of(statistics)
    for name, columns in {name: [v[name] for v in lists_of(vectors)] for name in vectors[0]}.items():
        merged[name] = []
        for position, entries in enumerate(zip(*columns, strict=True)):
            weights = [f[name][position] for f in given]
            total = sum(weights)
            mean = sum(entries) / len(entries)
            found = sum(w * e for w, e in zip(weights, entries, strict=True)) / total if total else mean
            merged[name].append(found)
    return merged


def regmean(vectors: Sequence[TaskVector], statistics: Sequence[TaskVector], *, alpha: float = 0.9) -> dict[str, list[float]]:
    merged = {}
    for name in vectors[0]:
        weights = [vector[name].double() for vector in vectors]
        if name not in statistics[0]:
            merged[name] = (sum(weights[1:], weights[0]) / len(weights)).flatten().tolist()
            continue
        grams: list[Any] = []
        for gram in (given[name].double() for given in statistics):
            off = ~torch.eye(len(gram), dtype=torch.bool)
            grams.append(torch.where(off, alpha * gram, gram))
        right = sum(w @ g for w, g in zip(weights, grams, strict=True))
        merged[name] = (right @ torch.linalg.inv(sum(grams))).flatten().tolist()
    return merged
