"""Which adapters of a model one task keeps.

    kept    adapters whose mean weight is at least the threshold at any site; of task adapters at least the one with the largest, or the
            task's own where none has any
    left    the others, at every site; and sites at which nothing that is kept has any weight (where weights depend on the task alone)

An adapter that can never have weight for the task is left out at any threshold. Shapes: L sites, E adapters of a bank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alter.data.codec import Codec
from alter.data.encode import Features
from alter.errors import ConfigError
from alter.extracting.router import TaskRouter, fixed_weights, selected_weights
from alter.gatemap import task_map
from alter.model import MTAModel
from alter.mta_settings import TASK_LEVEL, GateSettings


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What is kept.

    Attributes:
        means_LE: the task's mean weights; None where they depend on rows and none were looked at.
        columns: the router's columns whose adapters are kept, task adapters first.
        sites: the positions of the sites that are kept, among those that carry an MTA.
    """

    means_LE: torch.Tensor | None
    columns: list[int]
    sites: list[int]


def choose(
    model: MTAModel, router: TaskRouter, *, threshold: float, rows: Sequence[Features] | None, codec: Codec, renormalise: bool
) -> Choice:
    """Choose the adapters that a task keeps.

    Args:
        model: the whole model.
        router: what weighs the task's adapters.
        threshold: least mean weight of an adapter at its best site; 0 keeps all that can have any.
        rows: the task's rows, to average weights over that depend on them; they may be missing at threshold 0.
        codec: the base model's way with text.
        renormalise: whether the weights of the kept task adapters are raised to the sum that all of them had.

    Raises:
        ConfigError: the weights that remain cannot be had with fewer adapters.
    """
    router.check_known()
    if not model.mtas:
        return Choice(means_LE=None, columns=[], sites=[])
    means_LE = None
    if router.is_fixed:
        means_LE = fixed_weights(model, router.task)
    elif threshold > 0:
        assert rows is not None
        means_LE = task_map(model, rows, codec=codec).to(model.device)
    possible = [column for column, found in enumerate(_is_possible(model, router, means_LE)) if found]
    kept = possible if threshold == 0 or means_LE is None else _above(possible, means_LE, router, threshold)
    if kept and kept[0] >= router.num_adapters:  # a module needs one task adapter; none has weight, so take the task's own
        kept = [router.own_task % router.num_adapters, *kept]
    check_left(router, [column for column in possible if column not in kept], renormalise=renormalise)
    sites = list(range(len(model.mtas)))
    if router.is_fixed and means_LE is not None:
        places = [router.places[column] for column in kept]
        sites = [site for site in sites if bool(means_LE[site, places].any())]
    return Choice(means_LE=means_LE, columns=kept, sites=sites)


def _largest(means_LE: torch.Tensor, router: TaskRouter) -> torch.Tensor:
    """Return each column's largest weight over sites; a table may have learned negative ones."""
    return means_LE[:, router.places].abs().amax(0)


def _above(possible: list[int], means_LE: torch.Tensor, router: TaskRouter, threshold: float) -> list[int]:
    largest = _largest(means_LE, router).tolist()
    kept = [column for column in possible if largest[column] >= threshold]
    task = [column for column in possible if column < router.num_adapters]
    if task and not any(column in kept for column in task):
        kept = [max(task, key=lambda column: float(largest[column])), *kept]
    return kept


def _is_possible(model: MTAModel, router: TaskRouter, means_LE: torch.Tensor | None) -> list[bool]:
    """Return for each column whether it can have weight for any row."""
    if router.is_fixed:
        assert means_LE is not None
        return [bool(value) for value in _largest(means_LE, router) > 0]
    number = len(router.places)
    found = [column < router.num_adapters or router.router == "gate" for column in range(number)]
    if router.passes_on and router.selector.kind in TASK_LEVEL:  # a gate on top of fixed weights leaves their zeros at zero
        selected = _largest(selected_weights(model, router.task), router)[: router.num_adapters].tolist()
        found[: router.num_adapters] = [value > 0 for value in selected]
    return found


def check_left(router: TaskRouter, left: Sequence[int], *, renormalise: bool) -> None:
    """Refuse to leave out adapters without which the others' weights cannot be what they should be.

    Raises:
        ConfigError: with the gate, the reason and the remedy.
    """
    if not left or router.is_fixed:
        return
    remedy = "extract with --threshold 0, or a lower one"
    if router.router == "gate" and router.gate.kind == "outputs":
        raise ConfigError(
            f"the model's gate is of kind outputs, which reads what each adapter says, so that without {len(left)} of them the weights of "
            f"the others would be others; {remedy}"
        )
    for role, settings in _softmaxes(router).items():
        if any(column < router.num_adapters for column in left):
            if settings.top_k is not None:
                raise ConfigError(
                    f"the model's {role} keeps the {settings.top_k} largest of all task adapters for each row (top_k), which cannot be "
                    f"told without them all; {remedy}"
                )
            if not renormalise:
                raise ConfigError(
                    f"the model's {role} is of kind linear, a softmax over all task adapters for each row, so that without some of them "
                    f"the weights of the others cannot stay as they were; add --renormalise, or {remedy}"
                )


def _softmaxes(router: TaskRouter) -> dict[str, GateSettings]:
    """Return the modules at work that take a softmax over task adapters for each row."""
    found = {}
    if router.passes_on and router.selector.kind == "linear":
        found["selector"] = router.selector
    if router.router == "gate" and router.gate.kind == "linear" and router.gate.over == "all":
        found["gate"] = router.gate
    return found
