"""How the learning rate goes up and down, as a function of how much of the run is over: by steps, or by the clock."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

from alter.pretraining.recipe import PretrainSettings

LEAST_SIZE = 1e-3
"""A tensor that starts at nothing must still move."""


def share_done(settings: PretrainSettings, *, step: int, seconds: float) -> float:
    """Return how much of the run is over, from 0 to 1: the larger of its share of steps and of time."""
    by_steps = step / settings.max_steps if settings.max_steps else 0.0
    by_clock = seconds / settings.max_seconds if settings.max_seconds else 0.0
    return min(1.0, max(by_steps, by_clock))


def rate_at(settings: PretrainSettings, *, step: int, share: float) -> float:
    """Return the learning rate of the step after `step` steps; both decays end near 0 when the run does, however it ends."""
    warmup = settings.warmup_steps
    rising = min(1.0, (step + 1) / (warmup + 1))
    shape = {
        "linear": 1 - share,
        "cosine": 0.5 * (1 + math.cos(math.pi * share)),
        "constant": 1.0,
        "inverse_sqrt": math.sqrt((warmup + 1) / max(step + 1, warmup + 1)),
    }[settings.lr_scheduler_type]
    return settings.learning_rate * rising * shape


def build_adamw(parameters: Iterable[nn.Parameter], settings: PretrainSettings) -> torch.optim.AdamW:
    """Return AdamW; biases and norms, which have one dimension, do not decay."""
    scaled = settings.optimizer == "adamw_scaled"
    groups: dict[tuple[bool, int], list[nn.Parameter]] = {}
    for number, parameter in enumerate(parameters):
        groups.setdefault((parameter.dim() > 1, number if scaled else 0), []).append(parameter)
    decays = [
        {"params": members, "weight_decay": settings.weight_decay if decayed else 0.0} for (decayed, _), members in groups.items()
    ]
    return torch.optim.AdamW(decays, lr=settings.learning_rate, betas=(0.9, settings.adam_beta2))


def set_rates(optimizer: torch.optim.Optimizer, rate: float, settings: PretrainSettings) -> None:
    """Set the learning rate of the next step; a scaled one is as large as the tensor's values (Adafactor, arXiv 1804.04235)."""
    for group in optimizer.param_groups:
        group["lr"] = rate
        if settings.optimizer == "adamw_scaled":
            [parameter] = group["params"]
            size = float(parameter.detach().norm()) / math.sqrt(parameter.numel())
            group["lr"] = rate * max(LEAST_SIZE, size)
