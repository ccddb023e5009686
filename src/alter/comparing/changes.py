"""What each arm lays over a recipe. Words only: nothing is trained here.

Every trained arm gets the recipe's rows, batch size, base and the epochs of both stages together, unless its function says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from alter.config import parse
from alter.presets import PRESETS
from alter.recipe import MTASettings, Recipe, StageSettings, reads_selector

Settings = dict[str, Any]

FINE_TUNING: Settings = {"backbone": 1e-4, "heads": 1e-3}
"""Rates of plain fine-tuning: those at which the preset `alter` trains the same parameters (docs/results.md has the sweep)."""

FIXED = ("one_hot", "uniform")
"""Gates that learn nothing."""

_ONE_HOT: Settings = {"kind": "one_hot", "num_owned": 1, "temperature": 1.0, "top_k": None}


def budget(recipe: Recipe) -> Settings:
    """Return the epochs of both stages together, and the limits on their steps; no limit where a stage has none.

    So one stage takes no fewer steps than both of the recipe's, and more only where a limit cuts one of them short.
    """
    stages = [stage for stage in recipe.stages.values() if stage.num_train_epochs > 0]
    limits = [stage.max_steps for stage in stages if stage.max_steps is not None]
    return {
        "num_train_epochs": sum(stage.num_train_epochs for stage in stages),
        "max_steps": sum(limits) if limits and len(limits) == len(stages) else None,
    }


def plain(recipe: Recipe) -> Settings:
    """No MTA at all: the backbone and its heads."""
    return {
        "mta": {"sites": "none", "num_adapters": None, "num_shared": 0, "selector": _ONE_HOT, "gate": _ONE_HOT},
        "stages": {"stage1": _stage(recipe, ["backbone", "heads"], rates=FINE_TUNING), "stage2": None},
    }


def _stage(recipe: Recipe, trains: Sequence[str], *, rates: Settings) -> Settings:
    """One stage for all of the epochs; models that write have no heads."""
    return {"router": "selector", "trains": list(trains), "learning_rates": rates, **budget(recipe)}


def lora_sites(recipe: Recipe) -> str | list[int]:
    """Return where the LoRA baselines sit: where `alter-lite` has its adapters."""
    return recipe.mta.sites if recipe.preset == "alter-lite" else str(PRESETS["alter-lite"]["mta"]["sites"])


def lora(recipe: Recipe, *, num_adapters: int | None) -> Settings:
    """LoRA on every FFN, the backbone frozen: `alter-lite`'s stage 1 for all of the epochs, with its own rates."""
    lite = PRESETS["alter-lite"]
    adapter = recipe.mta.adapter.model_dump() if recipe.mta.adapter.kind == "lora" else lite["mta"]["adapter"]
    same = recipe.preset == "alter-lite"
    rates = recipe.stages["stage1"].learning_rates.model_dump() if same else lite["stages"]["stage1"]["learning_rates"]
    mta = {"adapter": adapter, "num_adapters": num_adapters, "num_shared": 0, "sites": lora_sites(recipe)}
    return {
        "mta": {**mta, "selector": _ONE_HOT, "gate": _ONE_HOT},
        "stages": {"stage1": _stage(recipe, ["task_adapters", "heads"], rates=rates), "stage2": None},
    }


def longer(recipe: Recipe) -> Settings:
    """Stage 1 with the epochs of both stages."""
    return {"stages": {"stage1": budget(recipe), "stage2": None}}


def one_go(recipe: Recipe) -> Settings:
    """Everything that either stage trains, under the gate, from the beginning; at stage 1's rates, but for the gate's own."""
    first, second = recipe.stages["stage1"], recipe.stages["stage2"]
    both = list(dict.fromkeys([*first.trains, *second.trains]))
    trains = [group for group in both if group != "selector" or reads_selector(recipe.mta.gate)]
    rates = {"gate": second.learning_rates.gate}
    return {"stages": {"stage1": {"router": "gate", "trains": trains, "learning_rates": rates, **budget(recipe)}, "stage2": None}}


def another_gate(kind: str, **settings: Any) -> Callable[[Recipe], Settings]:
    """Return settings of another gate in stage 2, on the same stage 1."""
    alone = {"kind": kind, "temperature": 1.0, "top_k": None, "num_owned": 1}
    shared = {} if kind != "selector" else {"num_shared": 0}  # it gives shared adapters no weight

    def settings_of(recipe: Recipe) -> Settings:
        gate = recipe.mta.gate.model_copy(update={**alone, **settings})
        trains = [
            group
            for group in recipe.stages["stage2"].trains
            if group != "gate" and (group != "shared_adapters" or not shared) and (group != "selector" or reads_selector(gate))
        ]
        learned = [] if kind in FIXED else ["gate"]
        return {
            "mta": {"gate": {**alone, **settings}, **shared},
            "stages": {"stage2": {"trains": [*trains, *learned] or ["heads"]}},
        }

    return settings_of


def preset(name: str) -> Callable[[Recipe], Settings]:
    """Return settings that make a recipe one of this preset, with the preset's settings throughout but for limits on steps."""

    def settings_of(recipe: Recipe) -> Settings:
        if recipe.preset == name:
            return {}
        content = PRESETS[name]
        stages = {
            stage: {
                **parse(StageSettings, settings, where=f"preset {name}").model_dump(),
                "max_steps": recipe.stages[stage].max_steps if stage in recipe.stages else None,
            }
            for stage, settings in content["stages"].items()
        }
        return {"preset": name, "mta": parse(MTASettings, content["mta"], where=f"preset {name}").model_dump(), "stages": stages}

    return settings_of
