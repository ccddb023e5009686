"""What a mixture of adapters is, written as the loop that it means: the yardstick for the fused forms.

Shapes: B batch, S tokens, D input width, H inner width, R width of a read, O output width, E adapters, K weighed adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from alter.nn.mixing import Bank, Weights

FORMS = ("plain", "bias", "gated", "fused")
"""How readings become the inner state: see `make_bank`."""


@dataclass(frozen=True)
class Sizes:
    rows: int = 4
    tokens: int = 3
    dim: int = 8
    inner: int = 4
    output: int = 16
    adapters: int = 5
    weighed: int = 2


def make_bank(form: str, sizes: Sizes, *, dtype: torch.dtype = torch.float64, seed: int = 0) -> Bank:
    """Return a random bank: `plain` (no biases), `bias`, `gated` (two readings) or `fused` (one reading of twice the width)."""
    random = torch.Generator().manual_seed(seed)

    def matrix(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, generator=random, dtype=torch.float64) / shape[-1] ** 0.5).to(dtype).requires_grad_()

    adapters, inner = sizes.adapters, sizes.inner
    width = 2 * inner if form == "fused" else inner
    combines: dict[str, Callable[[list[torch.Tensor]], torch.Tensor]] = {
        "plain": lambda readings: readings[0] * 0.5,
        "bias": lambda readings: functional.gelu(readings[0]),
        "gated": lambda readings: functional.silu(readings[0]) * readings[1],
        "fused": lambda readings: functional.gelu(readings[0].chunk(2, dim=-1)[0]) * readings[0].chunk(2, dim=-1)[1],
    }
    return Bank(
        reads_ERD=matrix(adapters, width, sizes.dim),
        read_biases_ER=None if form == "plain" else matrix(adapters, width),
        gates_EHD=matrix(adapters, inner, sizes.dim) if form == "gated" else None,
        gate_biases_EH=matrix(adapters, inner) if form == "gated" else None,
        writes_EOH=matrix(adapters, sizes.output, inner),
        write_biases_EO=None if form == "plain" else matrix(adapters, sizes.output),
        combine=combines[form],
    )


def make_weights(
    sizes: Sizes, *, by_token: bool, index: int | None, dtype: torch.dtype = torch.float64, seed: int = 1
) -> Weights:
    """Return random weights by row or by token; `index` is the number of dimensions of their index, or None.

    The last adapter is never chosen, so there is always an empty group, and no adapter comes twice for a token.
    """
    random = torch.Generator().manual_seed(seed)
    lead = (sizes.rows, sizes.tokens) if by_token else (sizes.rows,)
    values = torch.rand(*lead, sizes.weighed, generator=random, dtype=torch.float64).to(dtype).requires_grad_()
    if index is None:
        return Weights(values=values)
    of = (sizes.rows, sizes.tokens) if index == 3 else (sizes.rows,)
    order = torch.rand(*of, max(sizes.adapters - 1, 1), generator=random).argsort(dim=-1)
    return Weights(values=values, index=order[..., : sizes.weighed])


def one_adapter(x_D: torch.Tensor, bank: Bank, adapter: int) -> torch.Tensor:
    """Return A_i(x) for one token, (O,)."""
    readings = []
    for matrix_ERD, bias_ER in bank.readings():
        reading = matrix_ERD[adapter] @ x_D
        readings.append(reading if bias_ER is None else reading + bias_ER[adapter])
    y_O = bank.writes_EOH[adapter] @ bank.combine(readings)
    return y_O if bank.write_biases_EO is None else y_O + bank.write_biases_EO[adapter]


def mix_by_loop(x_BSD: torch.Tensor, bank: Bank, weights: Weights) -> torch.Tensor:
    """Return sum_k w_k A_{i_k}(x), a row, a token and an adapter at a time."""
    rows = []
    for row in range(x_BSD.shape[0]):
        tokens = []
        for token in range(x_BSD.shape[1]):
            values = weights.values[row] if weights.values.dim() == 2 else weights.values[row, token]
            index = weights.index
            chosen = range(len(values)) if index is None else (index[row] if index.dim() == 2 else index[row, token]).tolist()
            parts = [value * one_adapter(x_BSD[row, token], bank, i) for value, i in zip(values, chosen, strict=True)]
            tokens.append(torch.stack(parts).sum(0))
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


def leaves(bank: Bank, weights: Weights) -> dict[str, torch.Tensor]:
    """Return every tensor that a mixture has a gradient for, by name."""
    found = {name: value for name, value in vars(bank).items() if isinstance(value, torch.Tensor)}
    return {**found, "values": weights.values}
