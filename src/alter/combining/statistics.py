"""Numbers of a model's own rows that some merge methods need: diagonal Fisher information, Gram matrices of linear layers.

    rows = [{"input_ids": ids_1S, "attention_mask": mask_1S, "task_ids": task_1, "label_ids": label_1}, ...]   one row each
    save_file(diagonal_fisher(model, rows), "a.safetensors")

`model` is an MTAModel, or a stock transformers model (with `labels` in its rows). Of an MTAModel only the backbone is looked at.

Shapes: P positions of a row, I inputs of a linear layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from alter.errors import DataError

Row = Mapping[str, Any]


def diagonal_fisher(model: nn.Module, rows: Iterable[Row]) -> dict[str, torch.Tensor]:
    """Return the mean over rows of the squared gradient of the row's loss, by parameter: the empirical Fisher information.

    Args:
        model: it is put into evaluation mode; its weights and `requires_grad` are left as they were.
        rows: what the model is called with, one row at a time, its label included.

    Raises:
        DataError: there are no rows, a batch holds several rows, or a row gives no loss.
    """
    parameters = _backbone(model)
    required = {name: parameter.requires_grad for name, parameter in parameters.items()}
    total = {name: torch.zeros_like(parameter, dtype=torch.float64, device="cpu") for name, parameter in parameters.items()}
    num_rows = 0
    model.eval()
    try:
        for parameter in parameters.values():
            parameter.requires_grad_(True)
        for row in rows:
            loss = model(**_one(row, num_rows)).loss
            if loss is None:
                raise DataError(
                    f"row {num_rows + 1} gives no loss; add its label (label_ids or targets; labels where text is written)"
                )
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    total[name] += gradient.double().square().cpu()
            num_rows += 1
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])
    return _mean(total, num_rows)


@torch.no_grad()
def gram_matrices(model: nn.Module, rows: Iterable[Row]) -> dict[str, torch.Tensor]:
    """Return the mean over rows of x^T x at the input of every `nn.Linear`, (I, I) by the name of its weight.

    Args:
        model: it is put into evaluation mode.
        rows: what the model is called with, one row at a time and without padding; labels are not needed.

    Raises:
        DataError: there are no rows, or a batch holds several rows.
    """
    wanted = set(_backbone(model))
    total: dict[str, torch.Tensor] = {}

    def add(name: str, x: torch.Tensor) -> None:
        x_PI = x.detach().double().flatten(0, -2).cpu()
        total[name] = total.get(name, 0) + x_PI.T @ x_PI

    handles = [
        module.register_forward_pre_hook(lambda _, given, name=f"{path}.weight": add(name, given[0]))
        for path, module in model.named_modules()
        if isinstance(module, nn.Linear) and f"{path}.weight" in wanted
    ]
    num_rows = 0
    model.eval()
    try:
        for row in rows:
            model(**_one(row, num_rows))
            num_rows += 1
    finally:
        for handle in handles:
            handle.remove()
    return _mean(total, num_rows)


def _backbone(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that a merge is about; adapters, gates and heads stay with their tasks."""
    groups = getattr(model, "parameter_groups", None)
    return dict(groups()["backbone"]) if groups is not None else dict(model.named_parameters())


def _one(row: Row, position: int) -> Row:
    sizes = {name: value.shape[0] for name, value in row.items() if isinstance(value, torch.Tensor) and value.dim()}
    if any(size != 1 for size in sizes.values()):
        raise DataError(f"batch {position + 1} holds several rows ({sizes}); give one row at a time, without padding")
    return row


def _mean(total: dict[str, torch.Tensor], num_rows: int) -> dict[str, torch.Tensor]:
    if num_rows == 0:
        raise DataError("there are no rows to compute statistics from; give at least one")
    return {name: value.div(num_rows).float() for name, value in total.items()}
