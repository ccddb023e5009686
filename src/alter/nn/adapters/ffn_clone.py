"""FFN copies: y = FFN(x) + sum_i w_i (A_i(x) - FFN(x)), where each A_i starts as a copy of the site's pretrained FFN.

Where the weights sum to one (selectors, the paper's gate network) this is y = sum_i w_i A_i(x), the mixture that replaces the FFN in
the authors' reference (arXiv 2309.11042; EasyNLP, examples/mta). Written as a change to the FFN it also holds for weights that do
not sum to one: a shared adapter that is still a copy then changes nothing, whatever its weight, so stage 2 can start at stage 1.

Sparse upcycling: Komatsuzaki et al. 2022 (arXiv 2212.05055). The site's own FFN is never trained: the
copies stand in its place.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from alter.mta_settings import AdapterSettings
from alter.nn.ffn import FFN
from alter.nn.mixing import Bank, Weights, mix
from alter.nn.site import projection_weight


class FFNClone(nn.Module):
    """One adapter: a copy of each projection, as (outputs, inputs) weights and biases where the FFN has them."""

    def __init__(self, ffn: FFN) -> None:
        super().__init__()
        self.weights = nn.ParameterList(projection_weight(p).detach().clone() for p in ffn.projections)
        biases = [getattr(projection, "bias", None) for projection in ffn.projections]
        self.biases = nn.ParameterList(bias.detach().clone() for bias in biases if isinstance(bias, torch.Tensor))


class FFNCloneBank(nn.Module):
    """The FFN copies of one site."""

    equal_start = True

    def __init__(self, ffn: FFN, settings: AdapterSettings, *, num_adapters: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(FFNClone(ffn) for _ in range(num_adapters))
        self.dropout = nn.Dropout(settings.dropout)
        self.inner_dropout = ffn.site.dropout
        self.last = len(ffn.projections) - 1
        self.output_dim = ffn.output_dim
        self._activation = ffn.combine()
        # biases[k] belongs to projection bias_positions[k]
        self.bias_positions = [k for k, p in enumerate(ffn.projections) if isinstance(getattr(p, "bias", None), torch.Tensor)]
        self.replaced = ffn.paths

    def _members(self) -> list[FFNClone]:
        return cast("list[FFNClone]", list(self.adapters))

    def change(self, position: int, *, x: torch.Tensor, site_x: torch.Tensor, y: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the FFN's output with the copies' mixture in its place."""
        if position != self.last:
            return y
        values = weights.rows(y.shape[0]).values.sum(-1)
        total = values[:, None, None] if values.dim() == 1 else values[..., None]
        return y * (1 - total) + mix(self.dropout(site_x), self._bank(), weights)

    def outputs(self, x: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the weighed copies' output, (B, S, D)."""
        return mix(x, self._bank(), weights)

    def _combine(self, readings: list[torch.Tensor]) -> torch.Tensor:
        return functional.dropout(self._activation(readings), self.inner_dropout, self.training)

    def _stack(self, position: int) -> torch.Tensor:
        return torch.stack([adapter.weights[position] for adapter in self._members()])

    def _stack_bias(self, position: int) -> torch.Tensor | None:
        if position not in self.bias_positions:
            return None
        return torch.stack([adapter.biases[self.bias_positions.index(position)] for adapter in self._members()])

    def _bank(self) -> Bank:
        gated = self.last == 2
        return Bank(
            reads_ERD=self._stack(0),
            read_biases_ER=self._stack_bias(0),
            gates_EHD=self._stack(1) if gated else None,
            gate_biases_EH=self._stack_bias(1) if gated else None,
            writes_EOH=self._stack(self.last),
            write_biases_EO=self._stack_bias(self.last),
            combine=self._combine,
        )


ADAPTER = FFNCloneBank
