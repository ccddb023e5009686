"""How the learning rate goes up and down, as a function of how much of the run is over: by steps, or by the clock."""

from __future__ import annotations

import math

import torch
from torch import nn

from alter.pretraining.recipe import PretrainSettings


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


def build_adamw(parameters: dict[str, nn.Parameter], settings: PretrainSettings) -> torch.optim.AdamW:
    """Return AdamW; biases and norms, which have one dimension, do not decay."""
    groups = []
    for decayed in (True, False):
        chosen = [parameter for parameter in parameters.values() if (parameter.dim() > 1) == decayed]
        if chosen:
            groups.append({"params": chosen, "weight_decay": settings.weight_decay if decayed else 0.0})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(0.9, settings.adam_beta2))
