"""One task's model out of a model of many: the adapters that it keeps, its head, and a selector and gate over no others.

    weights that depend on the task alone       a `table`: numbers, site by site
    linear                                      its rows and logits of the kept adapters, of this task
    outputs                                     as it is

Shapes: L sites, E adapters of a bank, N task adapters, M shared adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from alter.extracting.choose import Choice
from alter.extracting.router import TaskRouter, selected_weights
from alter.model import MTAModel
from alter.model_config import AlterConfig
from alter.mta_settings import TASK_LEVEL, GateSettings, MTASettings
from alter.version import __version__

TABLE, NONE = GateSettings(kind="table"), GateSettings(kind="uniform")
"""What weighs fixed numbers, and what stands where nothing is at work."""


def smaller_config(config: AlterConfig, model: MTAModel, router: TaskRouter, choice: Choice) -> AlterConfig:
    """Return the alter_config.json of the smaller model."""
    spec = config.tasks[router.task]
    num_shared = sum(column >= router.num_adapters for column in choice.columns)
    num_adapters = len(choice.columns) - num_shared
    selector, gate = NONE, NONE
    if router.is_fixed:
        selector, gate = (TABLE, NONE) if router.router == "selector" else (NONE, TABLE)
    else:
        if router.passes_on:
            selector = TABLE if router.selector.kind in TASK_LEVEL else router.selector
        if router.router == "gate":
            gate = router.gate
    sites = config.mta.sites
    if not choice.sites or not choice.columns:
        sites = "none"
    elif len(choice.sites) < len(model.mtas):
        sites = [model.site_positions[site] for site in choice.sites]
    settings = MTASettings(
        adapter=config.mta.adapter,
        num_adapters=None if num_adapters <= 1 else num_adapters,
        num_shared=num_shared,
        sites=sites,
        selector=selector,
        gate=gate,
    )
    return config.model_copy(
        update={
            "alter_version": __version__,
            "name": f"{config.name}-{spec.name}",
            "router": router.router,
            "mta": settings,
            "tasks": [spec],
            "scales": {task: scale for task, scale in config.scales.items() if task == spec.name},
            "parts": [],
        }
    )


@torch.no_grad()
def smaller_model(
    model: MTAModel, backbone: PreTrainedModel, config: AlterConfig, router: TaskRouter, choice: Choice, *, renormalise: bool
) -> MTAModel:
    """Return the smaller model.

    Args:
        model: the whole model.
        backbone: its base, loaded afresh; it is equipped in place.
        config: what `smaller_config` returned.
        router: what weighs the task's adapters.
        choice: what is kept.
        renormalise: whether fixed weights of the kept task adapters are raised to the sum that all of them had.
    """
    [spec] = config.tasks
    small = MTAModel(
        backbone,
        task_names=[spec.name],
        settings=config.mta,
        num_outputs=[1 if spec.kind == "regression" else len(spec.labels or [])],
        heads=config.heads,
    )
    old, new = model.parameter_groups()["backbone"], small.parameter_groups()["backbone"]
    for name in old.keys() & new.keys():
        new[name].copy_(old[name])
    if model.heads is not None and small.heads is not None:
        small.heads.heads[0].load_state_dict(model.heads.heads[router.task].state_dict())
    if small.mtas:
        _fill_sites(model, small, router, choice, renormalise=renormalise)
    small.router = config.router
    return small.to(model.device).train(mode=False)


def _fill_sites(model: MTAModel, small: MTAModel, router: TaskRouter, choice: Choice, *, renormalise: bool) -> None:
    places = [router.places[column] for column in choice.columns]
    fixed_LE = choice.means_LE
    if not router.is_fixed and router.passes_on and router.selector.kind in TASK_LEVEL:
        fixed_LE = selected_weights(model, router.task)
    for number, site in enumerate(choice.sites):
        mta, mine = model.mtas[site], small.mtas[number]
        for adapter, place in zip(cast(Any, mine.bank.adapters), places, strict=True):
            adapter.load_state_dict(cast(Any, mta.bank.adapters)[place].state_dict())
        for role in ("selector", "gate"):
            kind = getattr(small.settings, role).kind
            if kind == "table":
                assert fixed_LE is not None
                weights_K = _raised(fixed_LE[site], router, choice.columns) if renormalise else fixed_LE[site, places]
                table = cast(Any, getattr(mine, role)).weights_TE
                table[0] = weights_K[: table.shape[1]]
            elif kind != NONE.kind:
                _cut(cast(nn.Module, getattr(mine, role)), router.module(mta, cast(Any, role)), router, choice.columns)


def _raised(weights_E: torch.Tensor, router: TaskRouter, columns: Sequence[int]) -> torch.Tensor:
    """Return the kept adapters' weights, those of task adapters scaled to the sum that all task adapters had."""
    own = weights_E[router.places[: router.num_adapters]]
    kept = torch.tensor([column for column in columns if column < router.num_adapters], device=own.device)
    shared = [router.places[column] for column in columns if column >= router.num_adapters]
    total = own[kept].sum()
    return torch.cat([own[kept] * (own.sum() / total if total else 1.0), weights_E[shared]])


def _cut(small: nn.Module, whole: nn.Module, router: TaskRouter, columns: Sequence[int]) -> None:
    """Copy what a learned gate has of this task and the kept adapters."""
    task = [column for column in columns if column < router.num_adapters]
    shared = [column - router.num_adapters for column in columns if column >= router.num_adapters]
    of_adapters = {"weight_ND": task, "logits_TN": task, "shared_weight_MD": shared, "shared_logits_TM": shared}
    for name, parameter in small.named_parameters():
        value: torch.Tensor = whole.get_parameter(name)
        if name in of_adapters:
            adapters = torch.tensor(of_adapters[name], device=value.device)
            value = value[router.own_task][adapters].unsqueeze(0) if "_T" in name else value[adapters]
        parameter.copy_(value)
