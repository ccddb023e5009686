"""Methods of other libraries as arms: what each lays over a recipe, and the arms that another program runs. Words only.

A peer gets what the arm `shared-lora` gets (`alter.comparing.changes.lora`): its sites, its rates, the epochs of both stages together. Its
size, and where on the base it sits, are filled in once the base is there (`alter.comparing.borrowed`).
"""

from __future__ import annotations

from typing import Any

from alter.comparing.changes import Settings, lora
from alter.presets import PRESETS
from alter.recipe import Recipe

POLY_ROUTER_RATE = 0.1
"""Rate of Poly's weights by task: as in its authors' code, far above that of the skills (1e-3 there too)."""


def peft_lora(recipe: Recipe) -> Settings:
    """One LoRA of peft for all tasks."""
    adapter = lora(recipe, num_adapters=1)["mta"]["adapter"]
    block = {"peft_type": "LORA", "r": adapter["r"], "lora_alpha": adapter["lora_alpha"], "lora_dropout": adapter["dropout"]}
    return _instead(recipe, block, trains=["task_adapters", "heads"])


def peft_poly(recipe: Recipe) -> Settings:
    """About as many skills as there are adapters, weighed by task; peft scales them by 1 / r, as their authors do."""
    return _instead(
        recipe, {"peft_type": "POLY"}, trains=["task_adapters", "selector", "heads"], rates={"selector": POLY_ROUTER_RATE}
    )


def peft_xlora(recipe: Recipe) -> Settings:
    """Train a gate over the frozen LoRAs of single tasks, and new heads."""
    rates = {"gate": PRESETS["alter-lite"]["stages"]["stage2"]["learning_rates"]["gate"]}
    return _instead(recipe, {"peft_type": "XLORA"}, trains=["gate", "heads"], rates=rates, router="gate")


def _instead(
    recipe: Recipe, block: Settings, *, trains: list[str], rates: Settings | None = None, router: str = "selector"
) -> Settings:
    """Return `lora`'s settings with a method of peft in the place of its adapters."""
    like: dict[str, Any] = lora(recipe, num_adapters=1)
    stage = like["stages"]["stage1"]
    stage = {**stage, "router": router, "trains": trains, "learning_rates": {**stage["learning_rates"], **(rates or {})}}
    mta = {**like["mta"], "sites": "none", "num_adapters": None}
    return {"mta": mta, "peft": block, "stages": {"stage1": stage, "stage2": None}}
