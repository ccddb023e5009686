"""LoRA on the FFN's own projections: y = W x + (alpha / r) sum_i w_i B_i A_i x, on each projection of the FFN.

One set of weights per site serves all its projections, so a mixture under task-level weights folds exactly into one LoRA of rank
sum_i r_i. B starts at zero, so an adapter starts as nothing.

Hu et al. 2021 (arXiv 2106.09685). We keep PEFT's starting values (Kaiming-uniform A) and its scale, and put it on the FFN only.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import nn

from alter.mta_settings import AdapterSettings
from alter.nn.ffn import FFN
from alter.nn.mixing import Bank, Weights, mix
from alter.nn.site import projection_shape


class LoRAAdapter(nn.Module):
    """One adapter: a pair of matrices per projection, `lora_A` (r, inputs) and `lora_B` (outputs, r)."""

    def __init__(self, ffn: FFN, settings: AdapterSettings) -> None:
        super().__init__()
        self.lora_A = nn.ParameterList()
        self.lora_B = nn.ParameterList()
        for projection in ffn.projections:
            inputs, outputs = projection_shape(projection)
            weight = torch.empty(settings.r, inputs)
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
            self.lora_A.append(nn.Parameter(weight))
            self.lora_B.append(nn.Parameter(torch.zeros(outputs, settings.r)))


class LoRABank(nn.Module):
    """The LoRA adapters of one site."""

    def __init__(self, ffn: FFN, settings: AdapterSettings, *, num_adapters: int) -> None:
        super().__init__()
        self.adapters = nn.ModuleList(LoRAAdapter(ffn, settings) for _ in range(num_adapters))
        self.scale = settings.lora_alpha / settings.r
        self.dropout = nn.Dropout(settings.dropout)
        self.replaced: tuple[str, ...] = ()
        self.output_dim = projection_shape(ffn.inputs[0])[1]

    def _members(self) -> list[LoRAAdapter]:
        return cast("list[LoRAAdapter]", list(self.adapters))

    def change(self, position: int, *, x: torch.Tensor, site_x: torch.Tensor, y: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return projection `position`'s output `y` with the adapters' part added."""
        return y + mix(self.dropout(x), self._bank(position), weights)

    def outputs(self, x: torch.Tensor, weights: Weights) -> torch.Tensor:
        """Return the weighed adapters' output on the first projection, (B, S, width of that projection)."""
        return mix(x, self._bank(0), weights)

    def _bank(self, position: int) -> Bank:
        scale = self.scale
        return Bank(
            reads_ERD=torch.stack([adapter.lora_A[position] for adapter in self._members()]),
            writes_EOH=torch.stack([adapter.lora_B[position] for adapter in self._members()]),
            combine=lambda readings: readings[0] * scale,
        )


ADAPTER = LoRABank
