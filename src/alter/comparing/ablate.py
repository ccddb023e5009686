"""A trained model, changed before it is scored, to see what its shared adapters, its weights and its task names carry.

Only the weights of the adapters change; heads, backbone and adapters stay. Shapes: B rows, T tasks, N task adapters, M shared adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from alter.model import MTAModel
from alter.nn.gate_shape import GateInputs, kept_apart
from alter.nn.mixing import Weights
from alter.nn.mta import MTA


class Table(nn.Module):
    """Weights that are fixed for each task: rows of a table, (T, N) or (T, N + M)."""

    weights_TE: torch.Tensor

    def __init__(self, weights_TE: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("weights_TE", weights_TE, persistent=False)

    def forward(self, inputs: GateInputs) -> Weights:
        """Return the rows of the tasks at hand."""
        return Weights(values=self.weights_TE.to(inputs.x_BSD.dtype).index_select(0, inputs.task_ids_B))


class WithoutShared(nn.Module):
    """Another router's weights, those of shared adapters set to zero."""

    def __init__(self, inner: nn.Module, *, num_adapters: int, num_shared: int) -> None:
        super().__init__()
        self.inner = inner
        self.num_adapters = num_adapters
        self.num_all = num_adapters + num_shared

    def forward(self, inputs: GateInputs) -> Weights:
        """Return the weights, dense, (B, N + M) or (B, S, N + M)."""
        weights: Weights = self.inner(inputs)
        dense = weights.dense(self.num_all).clone()
        dense[..., self.num_adapters :] = 0
        return Weights(values=dense)


class Mistaken(nn.Module):
    """Another router that is told the next task's name."""

    def __init__(self, inner: nn.Module, *, num_tasks: int) -> None:
        super().__init__()
        self.inner = inner
        self.num_tasks = num_tasks

    def forward(self, inputs: GateInputs) -> Weights:
        """Return the weights of the next task."""
        weights: Weights = self.inner(replace(inputs, task_ids_B=(inputs.task_ids_B + 1) % self.num_tasks))
        return weights


class Nameless(nn.Module):
    """Another router that is told no task's name: it gives the mean of the weights that it would give for each.

    Args:
        inner: the router at work.
        selector: the selector that it begins with, where it is a gate; it is told the same name.
        num_tasks: T.
        num_weighed: the adapters that it weighs: N, or N + M.
    """

    def __init__(self, inner: nn.Module, *, selector: nn.Module | None, num_tasks: int, num_weighed: int) -> None:
        super().__init__()
        self.inner = inner
        self.selector = selector
        self.num_tasks = num_tasks
        self.num_weighed = num_weighed

    def forward(self, inputs: GateInputs) -> Weights:
        """Return the mean weights, dense, (B, E) or (B, S, E) with E = `num_weighed`."""
        found = [self._weights_for(task, inputs) for task in range(self.num_tasks)]
        return Weights(values=torch.stack(found).mean(0))

    def _weights_for(self, task: int, inputs: GateInputs) -> torch.Tensor:
        told = replace(inputs, task_ids_B=torch.full_like(inputs.task_ids_B, task))
        if self.selector is not None:
            with kept_apart(inputs.kept, f"selector, {task}:") as kept:
                told = replace(told, selected=self.selector(replace(told, selected=None, kept=kept)))
        with kept_apart(inputs.kept, f"{task}:") as kept:
            weights: Weights = self.inner(replace(told, kept=kept))
        return weights.dense(self.num_weighed)


def zeroed_shared(model: MTAModel, *, seed: int) -> None:
    """Switch shared adapters off; task adapters keep their weights."""
    for mta in model.mtas:
        mta.gate = WithoutShared(mta.gate, num_adapters=mta.num_adapters, num_shared=mta.num_shared)


def uniform_weights(model: MTAModel, *, seed: int) -> None:
    """Give every adapter at work the same weight, for all tasks."""
    for mta in model.mtas:
        number = _num_weighed(model, mta)
        _put(model, mta, Table(torch.full((mta.num_tasks, number), 1 / number)))


def random_weights(model: MTAModel, *, seed: int) -> None:
    """Draw each task's weights at each site evenly from all that sum to one (Dirichlet(1))."""
    generator = torch.Generator().manual_seed(seed)
    for mta in model.mtas:
        draws_TE = -torch.rand(mta.num_tasks, _num_weighed(model, mta), generator=generator, dtype=torch.float64).log()
        _put(model, mta, Table((draws_TE / draws_TE.sum(-1, keepdim=True)).float()))


def wrong_task(model: MTAModel, *, seed: int) -> None:
    """Tell selectors and gates the next task's name; the heads know the right one."""
    for mta in model.mtas:
        mta.selector = Mistaken(mta.selector, num_tasks=mta.num_tasks)
        mta.gate = Mistaken(mta.gate, num_tasks=mta.num_tasks)


def no_task(model: MTAModel, *, seed: int) -> None:
    """Tell selectors and gates no task's name: the mean of all tasks' weights; the heads know the right one."""
    for mta in model.mtas:
        by_gate = model.router == "gate"
        inner, selector = (mta.gate, mta.selector) if by_gate else (mta.selector, None)
        number = _num_weighed(model, mta)
        _put(model, mta, Nameless(inner, selector=selector, num_tasks=mta.num_tasks, num_weighed=number))


def _num_weighed(model: MTAModel, mta: MTA) -> int:
    return mta.num_adapters + (mta.num_shared if model.router == "gate" else 0)


def _put(model: MTAModel, mta: MTA, router: nn.Module) -> None:
    """Put a router in the place of the one at work."""
    if model.router == "gate":
        mta.gate = router
    else:
        mta.selector = router
    router.to(model.device)


ABLATIONS: dict[str, Callable[..., None]] = {
    "zeroed-shared": zeroed_shared,
    "uniform-weights": uniform_weights,
    "random-weights": random_weights,
    "no-task": no_task,
    "wrong-task": wrong_task,
}
"""Arm -> what it does to a loaded model, in place."""
