"""NaN and infinity in what is merged: told with the model and the tensor, before a method makes more of them or fails on them."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from alter.errors import CheckpointError, ConfigError

LEAVE_OUT = "leave this model out, copy it again, or take one that was saved before its training went wrong"
COMPUTE_AGAIN = "compute them again, on a model whose outputs are finite"


def finite(name: str, tensor: torch.Tensor, *, of: str, remedy: str = LEAVE_OUT) -> torch.Tensor:
    """Return a tensor of a model, or of a model's statistics, as it is.

    Args:
        name: the tensor's name.
        tensor: the tensor.
        of: the model or the file, as the caller named it.
        remedy: what to do where it is not finite.

    Raises:
        CheckpointError: it holds NaN or infinity.
    """
    if bool(tensor.isfinite().all()):
        return tensor
    raise CheckpointError(
        f"{of}: '{name}' holds numbers that are not finite (NaN or infinity), and nothing can be merged with them; {remedy}"
    )


def all_finite(tensors: Mapping[str, torch.Tensor], *, of: str) -> Mapping[str, torch.Tensor]:
    """Return tensors of a model as they are; raises as `finite` does."""
    for name, tensor in tensors.items():
        finite(name, tensor, of=of)
    return tensors


def finite_result(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a merged tensor as it is.

    Raises:
        ConfigError: it holds NaN or infinity, which the method made or the number type.
    """
    if bool(tensor.isfinite().all()):
        return tensor
    kind = str(tensor.dtype).removeprefix("torch.")
    wider = "" if tensor.dtype in (torch.float32, torch.float64) else ", or store the models in float32"
    raise ConfigError(
        f"the merged '{name}' holds numbers that are not finite in {kind}, though those of the models are; lower the method's scale or "
        f"its weights{wider}"
    )
