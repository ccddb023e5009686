"""RegMean: the linear layer that comes nearest to all models' layers, each on its own inputs.

    W = (sum_t W_t G_t) (sum_t G_t)^-1        W_t (outputs, inputs),   G_t = sum over tokens of x x^T (inputs, inputs)

the minimum over W of sum_t |W x - W_t x|^2 over the inputs that model t's layer saw. Before that G_t's entries off the diagonal are
multiplied by `alpha`. Jin et al. 2023 (arXiv 2212.09849), alpha 0.9. Tensors without a Gram matrix (biases, norms, embeddings, and
GPT-2's transposed layers) are averaged. The base cancels out.
"""

from __future__ import annotations

from collections.abc import Sequence

import pydantic
import torch

from alter.config import Settings
from alter.errors import ConfigError
from alter.merging._vectors import Merged, TaskVector, stacked

NEEDS_BASE = False
STATISTICS = "Gram matrices (inputs, inputs) of the linear layers, by the names of their weights"


class RegMeanSettings(Settings):
    """Settings of `regmean`."""

    alpha: float = pydantic.Field(default=0.9, ge=0, le=1)
    """What Gram matrices are multiplied by off their diagonal; below 1 they can be inverted more safely."""


def merge(vectors: Sequence[TaskVector], settings: RegMeanSettings, statistics: Sequence[TaskVector]) -> Merged:
    """Yield each linear layer's solution, and the mean of everything else.

    Args:
        vectors: what the models changed.
        settings: alpha.
        statistics: for each vector name of a weight -> its Gram matrix; the same names in all of them.

    Raises:
        ConfigError: the vectors do not fit together, or the statistics do not fit them.
    """
    for position, grams in enumerate(statistics):
        if odd := sorted(set(grams) ^ set(statistics[0])):
            raise ConfigError(
                f"regmean: '{odd[0]}' is in statistics 1 or in statistics {position + 1} only; compute both with gram_matrices"
            )
    if statistics and not set(statistics[0]) & set(vectors[0]):
        raise ConfigError(
            f"regmean: no name in the statistics is one of the models' tensors, e.g. '{next(iter(statistics[0]), None)}' and "
            f"'{next(iter(vectors[0]))}'; compute them on these models with gram_matrices"
        )
    for name, stack_TOI in stacked(vectors):
        if any(name not in grams for grams in statistics):
            yield name, stack_TOI.mean(0)
            continue
        grams_TII = torch.stack([_checked(grams[name], name, stack_TOI, settings.alpha) for grams in statistics])
        # Solved for the deviation from the mean, which is 0 where no row showed an input: there the mean stays, whatever the base is.
        mean_OI = stack_TOI.mean(0)
        gram_II = grams_TII.sum(0)
        wanted_OI = torch.einsum("toi,tij->oj", stack_TOI, grams_TII) - mean_OI @ gram_II
        yield name, mean_OI + _solve(gram_II, wanted_OI, is_safe=settings.alpha < 1)


def _solve(gram_II: torch.Tensor, wanted_OI: torch.Tensor, *, is_safe: bool) -> torch.Tensor:
    """Return W with W G = wanted, the shortest where inputs that no row showed leave it open.

    Args:
        gram_II: G, symmetric.
        wanted_OI: the right-hand side.
        is_safe: whether a diagonal above 0 is enough for G to be invertible, as below alpha 1.
    """
    if is_safe and bool((gram_II.diagonal() > 0).all()):
        factor_II, failed = torch.linalg.cholesky_ex(gram_II)
        if not failed:
            return torch.cholesky_solve(wanted_OI.T, factor_II).T.contiguous()
    found_IO: torch.Tensor = torch.linalg.lstsq(gram_II, wanted_OI.T, driver="gelsd").solution
    return found_IO.T.contiguous()


def _checked(gram_II: torch.Tensor, name: str, stack_TOI: torch.Tensor, alpha: float) -> torch.Tensor:
    width = stack_TOI.shape[-1]
    if stack_TOI.dim() != 3 or gram_II.shape != (width, width):
        raise ConfigError(
            f"regmean: the Gram matrix of '{name}' has the shape {tuple(gram_II.shape)}, and the tensor has "
            f"{tuple(stack_TOI.shape[1:])}; it must be (inputs, inputs) of a linear layer's weight (outputs, inputs)"
        )
    gram_II = gram_II.double()
    return alpha * gram_II + (1 - alpha) * torch.diag(gram_II.diagonal())


SETTINGS = RegMeanSettings
