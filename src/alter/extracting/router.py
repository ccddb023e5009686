"""What weighs one task's adapters in a model, as if the model had never been merged with others.

    columns that weigh      | task adapters 0..N-1 | shared ones N..N+M-1 |      of the task's own part
    places in the bank      | where `alter merge` put them               |      equal to the columns in a model that was not merged

Shapes: L sites, E adapters of a bank, N task adapters, M shared adapters of the part.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import torch

from alter.errors import ConfigError
from alter.model import MTAModel
from alter.model_config import AlterConfig
from alter.mta_settings import TASK_LEVEL, GateSettings, reads_selector
from alter.nn.mta import MTA
from alter.nn.routing import Route, Router

READERS = ("linear", "outputs")
"""Kinds whose weights depend on the row: those that a smaller model can be made of."""


@dataclass(frozen=True, kw_only=True)
class TaskRouter:
    """The selector and gate of one task.

    Attributes:
        task: the task's id in the model.
        own_task: its id in its part.
        part: its part's number among selectors and gates; None: the model was not merged.
        router: which of the two weighs.
        selector: the selector's settings.
        gate: the gate's settings.
        places: column -> place in the bank.
        num_adapters: columns that are task adapters.
    """

    task: int
    own_task: int
    part: int | None
    router: Router
    selector: GateSettings
    gate: GateSettings
    places: list[int]
    num_adapters: int

    def module(self, mta: MTA, role: Literal["selector", "gate"]) -> Any:
        """Return the task's own selector or gate at a site."""
        module = cast(Any, getattr(mta, role))
        return module if self.part is None else module.members[self.part]

    @property
    def passes_on(self) -> bool:
        """Whether the selector's weights are in what weighs."""
        return self.router == "selector" or reads_selector(self.gate)

    @property
    def is_fixed(self) -> bool:
        """Whether the weights depend on the task alone."""
        known = self.router == "selector" or self.gate.kind in TASK_LEVEL
        return known and (not self.passes_on or self.selector.kind in TASK_LEVEL)

    def check_known(self) -> None:
        """Refuse kinds of which nothing is known.

        Raises:
            ConfigError: the selector or the gate at work is one.
        """
        roles = [role for role, works in (("selector", self.passes_on), ("gate", self.router == "gate")) if works]
        for role in roles:
            kind = getattr(self, role).kind
            if kind not in (*TASK_LEVEL, *READERS):
                raise ConfigError(
                    f"the model's {role} is of kind {kind}, and it is not known how one with fewer adapters is made of it; allowed: "
                    f"{', '.join(sorted((*TASK_LEVEL, *READERS)))}"
                )


def router_of(config: AlterConfig, task: int) -> TaskRouter:
    """Return what weighs a task's adapters in a model.

    Args:
        config: the model directory's.
        task: the task's id.
    """
    mta = config.mta
    num_adapters = mta.num_adapters or len(config.tasks)
    if not config.parts:
        return TaskRouter(
            task=task,
            own_task=task,
            part=None,
            router=config.router,
            selector=mta.selector,
            gate=mta.gate,
            places=list(range(num_adapters + mta.num_shared)),
            num_adapters=num_adapters,
        )
    owners = [number for number, part in enumerate(config.parts) for _ in range(part.num_tasks)]
    part, before = config.parts[owners[task]], config.parts[: owners[task]]
    first_task = sum(other.num_tasks for other in before)
    first_adapter = sum(other.num_adapters for other in before)
    first_shared = num_adapters + sum(other.num_shared for other in before)
    shared = range(first_shared, first_shared + part.num_shared)
    return TaskRouter(
        task=task,
        own_task=task - first_task,
        part=owners[task],
        router=part.router,
        selector=part.selector,
        gate=part.gate,
        places=[*range(first_adapter, first_adapter + part.num_adapters), *shared],
        num_adapters=part.num_adapters,
    )


@torch.no_grad()
def fixed_weights(model: MTAModel, task: int) -> torch.Tensor:
    """Return the weights of a task whose weights depend on the task alone, (L, E); zeros stand in for the row."""
    found = []
    for mta, ffn in zip(model.mtas, model.ffns, strict=True):
        x_11D = torch.zeros(1, 1, ffn.dim, device=model.device, dtype=_dtype(mta))
        with model.routed(Route(task_ids_B=torch.tensor([task], device=model.device))):
            if mta.encoder_dim is not None:
                model.state.encoder_BD = x_11D.new_zeros(1, mta.encoder_dim)
            found.append(mta.weigh(x_11D).dense(mta.num_adapters + mta.num_shared)[0])
    return torch.stack(found)


def selected_weights(model: MTAModel, task: int) -> torch.Tensor:
    """Return the selector's weights of a task, (L, E), where they depend on the task alone; shared adapters get none."""
    selected_LN = torch.stack([mta.selector_weights()[task] for mta in model.mtas])
    return torch.nn.functional.pad(selected_LN, (0, model.settings.num_shared))


def _dtype(mta: MTA) -> torch.dtype:
    return next(iter(mta.parameters())).dtype
