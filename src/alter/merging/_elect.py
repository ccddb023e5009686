"""TIES' way to one tensor from several: elect each entry's sign by the sum of the vectors, average those that agree.

Shapes: T task vectors; X stands for the dimensions of a tensor.
"""

from __future__ import annotations

import torch


def mean_of_agreeing(stack_TX: torch.Tensor) -> torch.Tensor:
    """Return for each entry the mean over the vectors whose sign is that of the sum; 0 where the sum is 0.

    Entries that are 0 agree with nobody: they were trimmed, and count in no mean.
    """
    sign_X = stack_TX.sum(0).sign()
    agrees_TX = (stack_TX.sign() == sign_X) & (sign_X != 0)
    return torch.where(agrees_TX, stack_TX, 0.0).sum(0) / agrees_TX.sum(0).clamp_min(1)
