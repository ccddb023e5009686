"""Fisher information and Gram matrices, against gradients and inputs computed one by one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers.utils.generic import ModelOutput

from alter.combining.statistics import diagonal_fisher, gram_matrices
from alter.errors import DataError


class Line(nn.Module):
    """y = w x + b with a squared error, and a layer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.idle = nn.Linear(2, 2)
        with torch.no_grad():
            self.layer.weight.copy_(torch.tensor([[1.0, -1.0]]))
            self.layer.bias.zero_()

    def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> Any:
        predicted = self.layer(x)
        return ModelOutput(predicted=predicted, loss=None if y is None else (predicted - y).square().mean())


ROWS = [
    {"x": torch.tensor([[1.0, 2.0]]), "y": torch.tensor([[1.0]])},
    {"x": torch.tensor([[3.0, 1.0]]), "y": torch.tensor([[0.0]])},
]


def test_fisher_by_hand() -> None:
    # errors -1 - 1 = -2 and 2 - 0 = 2; gradients 2 * error * x: [-4, -8] and [12, 4], of b -4 and 4
    model = Line().train()
    model.layer.bias.requires_grad_(False)
    found = diagonal_fisher(model, ROWS)
    assert found["layer.weight"].tolist() == [[(16 + 144) / 2, (64 + 16) / 2]]
    assert found["layer.bias"].tolist() == [16.0]
    assert found["idle.weight"].tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert found.keys() == dict(model.named_parameters()).keys()
    assert not model.layer.bias.requires_grad
    assert model.layer.weight.grad is None
    assert not model.training


def test_gram_matrices_by_hand() -> None:
    model = Line()
    found = gram_matrices(model, [{"x": row["x"]} for row in ROWS])
    # ([1 2]^T [1 2] + [3 1]^T [3 1]) / 2; the idle layer saw nothing
    assert set(found) == {"layer.weight"}
    assert found["layer.weight"].tolist() == [[5.0, 2.5], [2.5, 2.5]]
    assert not model.layer._forward_pre_hooks


@pytest.mark.parametrize("compute", [diagonal_fisher, gram_matrices])
def test_rows_come_one_at_a_time(compute: Any) -> None:
    both = {name: torch.cat([row[name] for row in ROWS]) for name in ("x", "y")}
    model = Line()
    with pytest.raises(DataError, match=r"batch 2 holds several rows \(\{'x': 2, 'y': 2\}\); give one row at a time"):
        compute(model, [ROWS[0], both])
    assert not model.layer._forward_pre_hooks
    with pytest.raises(DataError, match="there are no rows to compute statistics from"):
        compute(model, [])


def test_a_row_without_a_label_gives_no_fisher() -> None:
    with pytest.raises(DataError, match="row 2 gives no loss; add its label"):
        diagonal_fisher(Line(), [ROWS[0], {"x": ROWS[1]["x"]}])
