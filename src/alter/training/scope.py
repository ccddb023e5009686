"""Which parameters belong to single tasks, so that a step without a task's rows leaves them alone.

Heads always do, and so do the scores of taps. A task adapter does where the router gives it to its owners only (one_hot, taps, and gates
that keep the weights of either).
"""

from __future__ import annotations

from alter.model import MTAModel
from alter.mta_settings import reads_selector
from alter.nn.gate_shape import owned_adapters
from alter.nn.routing import Router

STRICT = ("one_hot", "taps")
"""Kinds that give a task adapter to its owners only."""


def parameter_scopes(model: MTAModel, router: Router) -> dict[str, frozenset[int]]:
    """Return parameter name -> ids of the only tasks whose rows give it a gradient; parameters of all tasks are left out."""
    scopes: dict[str, frozenset[int]] = {}
    groups = model.parameter_groups()
    for name in groups["heads"]:
        scopes[name] = frozenset({int(name.removeprefix("heads.heads.").split(".")[0])})
    if not model.mtas:  # plain fine-tuning, or a method of peft
        return scopes
    settings = model.settings
    for role, kind in (("selector", settings.selector.kind), ("gate", settings.gate.kind)):
        if kind == "taps":
            members = groups["selector" if role == "selector" else "gate"]
            scopes.update({name: frozenset({int(name.rsplit(".", 1)[1])}) for name in members})
    strict = settings.selector.kind in STRICT
    if router == "gate":
        strict = (strict and reads_selector(settings.gate)) or settings.gate.kind in STRICT
    if strict:
        num_owned = (settings.gate if router == "gate" and settings.gate.kind in STRICT else settings.selector).num_owned
        owned_TK = owned_adapters(len(model.task_names), model.num_adapters, num_owned).tolist()
        for name in groups["task_adapters"]:
            adapter = int(name.split(".adapters.")[1].split(".")[0])
            scopes[name] = frozenset(task for task, owned in enumerate(owned_TK) if adapter in owned)
    return scopes
