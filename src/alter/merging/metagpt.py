"""MetaGPT: each task vector weighs by its own squared length; no data, no search.

    theta = theta_0 + sum_t lambda_t tau_t,        lambda_t = |tau_t|^2 / sum_k |tau_k|^2,   summed over the whole model

Zhou et al. 2024 (arXiv 2406.11385). The formula follows from a quadratic loss near each fine-tuned model and task vectors that are
orthogonal to each other. The coefficients sum to one, so that equally long vectors are averaged, and a task that trained for longer
counts more: look at the lengths that the command prints. With `trim` the vectors are first trimmed as in TIES or dropped as in DARE, and
the lengths are those of what is left (the paper combines them without saying which lengths it takes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import pydantic
import torch

from alter.config import Settings
from alter.merging._trim import drop_at_random, keep_largest
from alter.merging._vectors import Merged, TaskVector, check_vectors, squared_norms, stacked, weighted_sum


class MetaGPTSettings(Settings):
    """Settings of `metagpt`."""

    trim: Literal["none", "ties", "dare"] = "none"
    """Make the vectors sparse first: `ties` keeps the largest entries, `dare` drops at random and rescales."""
    density: float = pydantic.Field(default=0.55, gt=0, le=1)
    """Share of the entries that is kept (trim ties and dare)."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Seed of what is dropped (trim dare)."""

    @pydantic.field_validator("density", "seed")
    @classmethod
    def _is_read(cls, value: float, info: pydantic.ValidationInfo) -> float:
        """Refuse what the chosen trimming does not read; defaults do not come by here."""
        readers = {"density": ("ties", "dare"), "seed": ("dare",)}[info.field_name or ""]
        trim = info.data.get("trim")
        if trim is not None and trim not in readers:
            raise ValueError(f"trim {trim} does not read it; leave it out, or set trim to {' or '.join(readers)}")
        return value


def coefficients(vectors: Sequence[TaskVector]) -> torch.Tensor:
    """Return each vector's coefficient, (T,): its share of the squared lengths; all alike where no vector has any length."""
    norms_T = squared_norms(vectors)
    total = norms_T.sum()
    return norms_T / total if total > 0 else torch.full_like(norms_T, 1 / len(norms_T))


def merge(vectors: Sequence[TaskVector], settings: MetaGPTSettings) -> Merged:
    """Yield each tensor's weighted sum; the vectors are read twice, for the lengths and for the sum.

    Raises:
        ConfigError: the vectors do not fit together.
    """
    check_vectors(vectors)
    if settings.trim == "ties":
        vectors = keep_largest(vectors, settings.density)
    elif settings.trim == "dare":
        vectors = drop_at_random(vectors, settings.density, settings.seed)
    weights_T = coefficients(vectors)
    for name, stack_TX in stacked(vectors):
        yield name, weighted_sum(stack_TX, weights_T)


SETTINGS = MetaGPTSettings
