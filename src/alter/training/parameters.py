"""The parameters that a run changes, by name: copied as the best so far, put back, read from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from alter.errors import CheckpointError, counted
from alter.tensors import load_tensors


def copies(parameters: Mapping[str, nn.Parameter]) -> dict[str, torch.Tensor]:
    """Return the parameters as they are now; training on leaves the copies alone."""
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def put_back(tensors: Mapping[str, torch.Tensor], parameters: Mapping[str, nn.Parameter]) -> None:
    """Copy tensors into the parameters of their names."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            parameters[name].copy_(tensor)


def load_parameters(path: Path, parameters: Mapping[str, nn.Parameter], *, advice: str) -> None:
    """Read the parameters from a checkpoint's file.

    Args:
        path: the safetensors file; it may hold more than these.
        parameters: what is read into.
        advice: what may be wrong where they do not fit, and the remedy.

    Raises:
        CheckpointError: the file is damaged, or a parameter is missing or of another shape.
    """
    tensors = load_tensors(path)
    unfit = [name for name, p in parameters.items() if name not in tensors or tensors[name].shape != p.shape]
    if unfit:
        raise CheckpointError(
            f"{path}: does not fit this model ({counted(len(unfit), 'parameter')} missing or of another shape, first {unfit[0]}); {advice}"
        )
    put_back({name: tensors[name] for name in parameters}, parameters)
