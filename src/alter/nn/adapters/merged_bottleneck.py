"""Bottleneck adapters, parameters mixed instead of outputs: y = FFN(x) + U gelu(D x + b) + c with D = sum_i w_i D_i; U, b, c alike.

One bottleneck is computed, made of all by the row's weights. Under free weights by task (gate `table`) and one shared adapter this is what
HyperFormer's hypernetwork writes: linear in the task's embedding, D_t = sum_i w_ti D_i + D_0, and T tasks' embeddings span no more than
T adapters. U_i and c_i start at zero, and of shared adapters D too, so an adapter starts as nothing; with one-hot weights the kind is
`bottleneck`.

Mahabadi et al. 2021 (arXiv 2106.04489): theirs adapts after attention too, in series, makes layer norms as well, and gets embeddings out of
a small network. Muqeeth et al. 2023 (arXiv 2306.03745) mix whole experts' parameters so.

Shapes: B rows, S tokens, D width, R inner width, O output width, E adapters, K weighed adapters.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from alter.nn.adapters.bottleneck import BottleneckBank
from alter.nn.mixing import Bank, Weights


class MergedBottleneckBank(BottleneckBank):
    """The bottleneck adapters of one site, mixed before they are applied."""

    equal_start = True
    """Shared adapters start equal (`start_shared`), so gates must not weigh them alike."""

    def start_shared(self, num_adapters: int) -> None:
        """Start all adapters from `num_adapters` on as nothing: a random D would change what the task adapters' U makes of x."""
        for adapter in self._members()[num_adapters:]:
            nn.init.zeros_(adapter.down_weight)

    def change(self, position: int, *, x: torch.Tensor, site_x: torch.Tensor, y: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the FFN's output with the mixed adapter's part added; the other projections stay as they are."""
        return y if position != self.last else y + apply_merged(self.dropout(site_x), self._bank(), weights)

    def outputs(self, x: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the mixed adapter's output, (B, S, D)."""
        return apply_merged(x, self._bank(), weights)


def apply_merged(x_BSD: torch.Tensor, bank: Bank, weights: Weights) -> torch.Tensor:
    """Return one bottleneck's output, whose matrices and biases are sum_k w_k times those of adapter i_k, (B, S, O)."""
    weights = weights.rows(x_BSD.shape[0])
    return _by_token(x_BSD, bank, weights) if weights.values.dim() == 3 else _by_row(x_BSD, bank, weights)


def _by_row(x_BSD: torch.Tensor, bank: Bank, weights: Weights) -> torch.Tensor:
    """Mix each row's matrices first: the arithmetic on tokens is that of one adapter."""
    assert bank.read_biases_ER is not None
    assert bank.write_biases_EO is not None
    values_BK = weights.values

    def mixed(tensor: torch.Tensor) -> torch.Tensor:
        if weights.index is None:
            return torch.einsum("bk,k...->b...", values_BK, tensor[: values_BK.shape[1]])
        return torch.einsum("bk,bk...->b...", values_BK, tensor[weights.index])

    inner_BSR = bank.combine([torch.baddbmm(mixed(bank.read_biases_ER)[:, None], x_BSD, mixed(bank.reads_ERD).mT)])
    return torch.baddbmm(mixed(bank.write_biases_EO)[:, None], inner_BSR, mixed(bank.writes_EOH).mT)


def _by_token(x_BSD: torch.Tensor, bank: Bank, weights: Weights) -> torch.Tensor:
    """Weigh every adapter's reading and writing: the same sums, for D x = sum_i w_i (D_i x), without a matrix for each token.

    Arithmetic grows with the number of adapters, whatever their weights.
    """
    assert bank.read_biases_ER is not None
    assert bank.write_biases_EO is not None
    num_adapters = bank.reads_ERD.shape[0]
    weights_BSE = weights.dense(num_adapters)
    reads_BSER = functional.linear(x_BSD, bank.reads_ERD.flatten(0, 1), bank.read_biases_ER.flatten()).unflatten(
        -1, (num_adapters, -1)
    )
    inner_BSR = bank.combine([torch.einsum("bse,bser->bsr", weights_BSE, reads_BSER)])
    spread_BSER = weights_BSE.unsqueeze(-1) * inner_BSR.unsqueeze(-2)
    return spread_BSER.flatten(-2) @ bank.writes_EOH.transpose(1, 2).flatten(0, 1) + weights_BSE @ bank.write_biases_EO


ADAPTER = MergedBottleneckBank
