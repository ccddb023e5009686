"""The loss of a mixed-task batch: cross-entropy for classification rows, squared error for regression rows, a number per row.

Shapes: B rows, C outputs of the largest task (padded with -inf), T tokens of the longest text, V vocabulary.
"""

from __future__ import annotations

import torch
from torch.nn import functional

NOT_A_CLASS = -100
"""Label id of a row without a class: a regression row, or a row of a classification that does not count."""


def row_losses(
    logits_BC: torch.Tensor,
    label_ids_B: torch.Tensor,
    targets_B: torch.Tensor,
    *,
    is_regression_B: torch.Tensor,
    label_smoothing: float = 0.0,
) -> torch.Tensor:
    """Return each row's loss, (B,); 0 for a classification row without a class.

    Args:
        logits_BC: outputs under each row's own head, -inf where its task has no such output.
        label_ids_B: class of each classification row, NOT_A_CLASS where it has none; ignored for regression rows.
        targets_B: standardised target of each regression row; ignored elsewhere.
        is_regression_B: which rows belong to regression tasks.
        label_smoothing: share of the target spread evenly over the task's own classes.
    """
    # What a row ignores is replaced beforehand: a NaN there would reach the gradient through the branch that is not taken.
    has_class_B = (label_ids_B != NOT_A_CLASS) & ~is_regression_B
    losses_B = functional.cross_entropy(logits_BC, torch.where(has_class_B, label_ids_B, 0), reduction="none")
    if label_smoothing > 0:
        real_BC = torch.isfinite(logits_BC)
        # log_softmax is -inf on padding; 0 there keeps the sum (and its gradient) free of NaN.
        log_p_BC = torch.where(real_BC, torch.log_softmax(logits_BC, dim=-1), 0.0)
        spread_B = -log_p_BC.sum(-1) / real_BC.sum(-1)
        losses_B = (1 - label_smoothing) * losses_B + label_smoothing * spread_B
    errors_B = (logits_BC[:, 0] - torch.where(is_regression_B, targets_B, 0.0)) ** 2
    return torch.where(is_regression_B, errors_B, torch.where(has_class_B, losses_B, 0.0))


def token_losses(logits_BTV: torch.Tensor, labels_BT: torch.Tensor, *, label_smoothing: float = 0.0) -> torch.Tensor:
    """Return the loss of each token to write, (B, T), in nats; 0 where a label is NOT_A_CLASS."""
    if logits_BTV.dtype in (torch.float16, torch.bfloat16):  # softmax needs the digits
        logits_BTV = logits_BTV.float()
    flat = functional.cross_entropy(
        logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=NOT_A_CLASS, reduction="none", label_smoothing=label_smoothing
    )
    return flat.view_as(labels_BT)


def mean_over_targets(losses_BT: torch.Tensor, labels_BT: torch.Tensor) -> torch.Tensor:
    """Return each row's mean loss over its tokens to write, (B,); 0 for a row without any."""
    return losses_BT.sum(-1) / (labels_BT != NOT_A_CLASS).sum(-1).clamp_min(1)
