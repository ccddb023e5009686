"""Two ways to make a task vector sparse: keep its largest entries (TIES), or drop entries at random and rescale (DARE)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial

import torch

from alter.errors import ConfigError
from alter.merging._vectors import Changed, TaskVector


def keep_largest(vectors: Sequence[TaskVector], density: float) -> list[TaskVector]:
    """Keep the share `density` of each vector's entries that is largest in magnitude, counted over the whole model; the rest are 0.

    Entries as large as the smallest one kept are kept too. Magnitudes are compared in float32.
    """
    if density == 1:
        return list(vectors)
    return [Changed(vector, partial(_keep_from, threshold(vector, density))) for vector in vectors]


def threshold(vector: TaskVector, density: float) -> float:
    """Return the smallest magnitude that is kept; the magnitudes of one vector at a time are in memory, 4 bytes each."""
    magnitudes = torch.cat([_finite(name, vector[name]).double().abs().float().flatten() for name in vector]).numpy()
    kept = min(len(magnitudes), max(1, int(density * len(magnitudes) + 0.5)))
    magnitudes.partition(len(magnitudes) - kept)  # in place, which a billion entries need
    return float(magnitudes[-kept])


def _finite(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return the tensor; NaN is larger than nothing, and would quietly be trimmed to 0."""
    if not tensor.isfinite().all():
        raise ConfigError(f"'{name}' holds NaN or infinite numbers in one of the models; nothing can be merged with it")
    return tensor


def _keep_from(smallest: float, name: str, tensor: torch.Tensor) -> torch.Tensor:
    return torch.where(tensor.abs().float() >= smallest, tensor, 0.0)


def drop_at_random(vectors: Sequence[TaskVector], density: float, seed: int) -> list[TaskVector]:
    """Keep each entry with probability `density`, divided by `density`, so that its expectation stays; the rest are 0."""
    return [Changed(vector, partial(_drop, position, density, seed)) for position, vector in enumerate(vectors)]


def _drop(position: int, density: float, seed: int, name: str, tensor: torch.Tensor) -> torch.Tensor:
    # One generator a tensor: what is dropped depends on no order of names, and is the same when a tensor is read again.
    digest = hashlib.sha256(f"{seed}:{position}:{name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    kept = torch.rand(tensor.shape, generator=generator, dtype=torch.float64) < density
    return torch.where(kept, tensor / density, 0.0)
