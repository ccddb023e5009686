"""Which number format a device computes in natively."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["no", "bf16", "fp16"]


def resolve_precision(setting: Literal["no", "bf16", "fp16", "auto"]) -> Precision:
    """Return the autocast type for a setting: `auto` is bf16 where the processor or GPU multiplies it natively, else none."""
    if setting != "auto":
        return setting
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "no"
    # Emulated bf16 is slower than float32, so capability alone is not enough: ask for the instructions.
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if native else "no"
