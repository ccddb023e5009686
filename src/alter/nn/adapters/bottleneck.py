"""Bottleneck adapter parallel to the FFN: y = FFN(x) + sum_i w_i (U_i gelu(D_i x + b_i) + c_i).

U and c start at zero, so an adapter starts as nothing. It has an activation, so a mixture does not fold into the base's weights.

Houlsby et al. 2019 (arXiv 1902.00751) for the form, He et al. 2022 (arXiv 2110.04366) for putting it parallel to the FFN.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn
from torch.nn import functional

from alter.mta_settings import AdapterSettings
from alter.nn.ffn import FFN
from alter.nn.mixing import Bank, Weights, mix


class BottleneckAdapter(nn.Module):
    """One adapter: down-projection (r, D) with bias, up-projection (D, r) with bias."""

    def __init__(self, ffn: FFN, settings: AdapterSettings) -> None:
        super().__init__()
        down = torch.empty(settings.r, ffn.dim)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5))
        self.down_weight = nn.Parameter(down)
        self.down_bias = nn.Parameter(torch.zeros(settings.r))
        self.up_weight = nn.Parameter(torch.zeros(ffn.output_dim, settings.r))
        self.up_bias = nn.Parameter(torch.zeros(ffn.output_dim))


class BottleneckBank(nn.Module):
    """The bottleneck adapters of one site."""

    def __init__(self, ffn: FFN, settings: AdapterSettings, *, num_adapters: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(BottleneckAdapter(ffn, settings) for _ in range(num_adapters))
        self.dropout = nn.Dropout(settings.dropout)
        self.replaced: tuple[str, ...] = ()
        self.last = len(ffn.projections) - 1
        self.output_dim = ffn.output_dim

    def _members(self) -> list[BottleneckAdapter]:
        return cast("list[BottleneckAdapter]", list(self.adapters))

    def change(self, position: int, *, x: torch.Tensor, site_x: torch.Tensor, y: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the FFN's output with the adapters' part added; the other projections stay as they are."""
        return y if position != self.last else y + mix(self.dropout(site_x), self._bank(), weights)

    def outputs(self, x: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the weighed adapters' output, (B, S, D)."""
        return mix(x, self._bank(), weights)

    def _bank(self) -> Bank:
        return Bank(
            reads_ERD=torch.stack([adapter.down_weight for adapter in self._members()]),
            read_biases_ER=torch.stack([adapter.down_bias for adapter in self._members()]),
            writes_EOH=torch.stack([adapter.up_weight for adapter in self._members()]),
            write_biases_EO=torch.stack([adapter.up_bias for adapter in self._members()]),
            combine=lambda readings: functional.gelu(readings[0]),
        )


ADAPTER = BottleneckBank
