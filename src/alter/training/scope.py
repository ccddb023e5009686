"""Which parameters belong to single tasks, so that a step without a task's rows leaves them alone.

Heads always do. A task adapter does where the router gives it to its owners only (one_hot, and gates that keep one_hot's weights).
"""

from __future__ import annotations

from alter.model import MTAModel
from alter.nn.gate_shape import owned_adapters
from alter.nn.routing import Router


def parameter_scopes(model: MTAModel, router: Router) -> dict[str, frozenset[int]]:
    """Return parameter name -> ids of the only tasks whose rows give it a gradient; parameters of all tasks are left out."""
    scopes: dict[str, frozenset[int]] = {}
    groups = model.parameter_groups()
    for name in groups["heads"]:
        scopes[name] = frozenset({int(name.removeprefix("heads.heads.").split(".")[0])})
    settings = model.settings
    strict = settings.selector.kind == "one_hot"
    if router == "gate":
        strict = strict and settings.gate.kind in ("task", "linear", "outputs", "one_hot")
        strict = strict and (settings.gate.kind in ("outputs", "one_hot") or settings.gate.over == "shared")
    if strict:
        num_owned = (settings.gate if router == "gate" and settings.gate.kind == "one_hot" else settings.selector).num_owned
        owned_TK = owned_adapters(len(model.task_names), model.num_adapters, num_owned).tolist()
        for name in groups["task_adapters"]:
            adapter = int(name.split(".adapters.")[1].split(".")[0])
            scopes[name] = frozenset(task for task, owned in enumerate(owned_TK) if adapter in owned)
    return scopes
