"""AdamW over named groups, each with its own learning rate, and the schedule of a stage."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from alter.recipe import LearningRates, StageSettings, Trained

_RATE_OF: dict[Trained, str] = {
    "task_adapters": "adapters",
    "shared_adapters": "adapters",
    "selector": "selector",
    "gate": "gate",
    "heads": "heads",
    "backbone": "backbone",
}


def build_optimizer(
    groups: Mapping[Trained, Mapping[str, nn.Parameter]], rates: LearningRates, *, weight_decay: float
) -> torch.optim.AdamW:
    """Return AdamW over the trainable parameters of `groups`.

    Biases, norms (all one-dimensional parameters), selectors and gates are exempt from weight decay: decaying a selector's logits
    would pull a task's weights towards uniform, which is a choice of method and not of regularisation.
    """
    members: list[dict[str, object]] = []
    for group, parameters in groups.items():
        trainable = [parameter for parameter in parameters.values() if parameter.requires_grad]
        exempt = group in ("selector", "gate")
        for decayed in (True, False):
            chosen = [parameter for parameter in trainable if (parameter.dim() > 1 and not exempt) == decayed]
            if chosen:
                rate = getattr(rates, _RATE_OF[group])
                decay = weight_decay if decayed else 0.0
                members.append({"params": chosen, "lr": rate, "weight_decay": decay, "name": group})
    return torch.optim.AdamW(members)


def build_schedule(optimizer: torch.optim.Optimizer, stage: StageSettings, *, num_steps: int) -> LambdaLR:
    """Return the stage's schedule: linear warm-up, then linear or cosine decay to 0, or constant."""
    warmup = math.ceil(stage.warmup_ratio * num_steps)
    shape = stage.lr_scheduler_type

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        done = (step - warmup) / max(1, num_steps - warmup)
        return {"linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * min(1.0, done))), "constant": 1.0}[shape]

    return LambdaLR(optimizer, factor)
