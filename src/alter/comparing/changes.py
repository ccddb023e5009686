"""What each arm lays over a recipe. Words only: nothing is trained here.

Every trained arm gets the recipe's rows, batch size, base and the epochs of both stages together, unless its function says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from alter.config import merge, parse
from alter.mta_settings import OWNERS, GateSettings, MTASettings, reads_selector
from alter.presets import PRESETS
from alter.recipe import Recipe, StageSettings, penalty_problem

Settings = dict[str, Any]

FINE_TUNING: Settings = {"backbone": 1e-4, "heads": 5e-3}
"""Rates of plain fine-tuning: those at which the preset `alter` trains the same parameters (docs/results.md has the sweep)."""

FIXED = ("adamix", "one_hot", "uniform")
"""Gates that learn nothing."""
SPARSITY = 0.1
"""Factor of the penalty on scores of `taps`: the smaller of the two in its authors' code."""
INFORMATION = 0.005
"""Factor of mutual information in Mod-Squad's base configuration."""

_ONE_HOT: Settings = GateSettings(kind="one_hot").model_dump()


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
    """No MTA at all: the backbone and its heads, at the recipe's rates where it trains the backbone too."""
    first = recipe.stages["stage1"]
    own = {group: getattr(first.learning_rates, group) for group in FINE_TUNING}
    rates = own if "backbone" in first.trains else FINE_TUNING
    return {
        "mta": {"sites": "none", "num_adapters": None, "num_shared": 0, "selector": _ONE_HOT, "gate": _ONE_HOT},
        "stages": {"stage1": _stage(recipe, ["backbone", "heads"], rates=rates), "stage2": None},
    }


def _stage(recipe: Recipe, trains: Sequence[str], *, rates: Settings) -> Settings:
    """One stage for all of the epochs, without penalties on weights that it has none of; models that write have no heads."""
    off = {"adapter_dropout": 0.0, "penalties": _without(recipe.stages["stage1"].penalties)}
    return {"router": "selector", "trains": list(trains), "learning_rates": rates, **off, **budget(recipe)}


def _without(penalties: Iterable[str]) -> dict[str, float]:
    """Return penalties switched off: where settings are laid over others, what is left out stays."""
    return dict.fromkeys(penalties, 0.0)


def _unfit(stage: StageSettings, mta: MTASettings) -> dict[str, float]:
    """Return a stage's penalties that have nothing to act on, switched off."""
    return _without(name for name in stage.penalties if penalty_problem(name, stage, mta))


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


def alone(recipe: Recipe) -> Settings:
    """Stage 2 in which nothing is shared: each task's adapters and head train on by themselves, at stage 2's rates."""
    second = recipe.stages["stage2"]
    stage = {"router": "selector", "trains": ["task_adapters", "heads"], "penalties": _without(second.penalties)}
    return {"mta": {"num_shared": 0, "gate": _ONE_HOT}, "stages": {"stage2": stage}}


def one_go(recipe: Recipe) -> Settings:
    """Everything that either stage trains, under the gate, from the beginning; at stage 1's rates, but for the gate's own."""
    first, second = recipe.stages["stage1"], recipe.stages["stage2"]
    both = list(dict.fromkeys([*first.trains, *second.trains]))
    trains = [group for group in both if group != "selector" or reads_selector(recipe.mta.gate)]
    changed = {"router": "gate", "trains": trains, **budget(recipe)}
    off = _unfit(first.model_copy(update=changed), recipe.mta)
    rates = {"gate": second.learning_rates.gate}
    return {"stages": {"stage1": {**changed, "learning_rates": rates, "penalties": off}, "stage2": None}}


def another_gate(kind: str, **settings: Any) -> Callable[[Recipe], Settings]:
    """Return settings of another gate in stage 2, on the same stage 1."""
    gate = parse(GateSettings, {"kind": kind, **settings}, where=f"gate {kind}")

    def settings_of(recipe: Recipe) -> Settings:
        num_shared = 0 if kind in OWNERS else recipe.mta.num_shared  # owners' weights leave shared adapters out
        gone = {"gate"} | ({"shared_adapters"} if num_shared == 0 else set()) | (set() if reads_selector(gate) else {"selector"})
        kept = [group for group in recipe.stages["stage2"].trains if group not in gone]
        trains = [*kept, *([] if kind in FIXED else ["gate"])] or ["heads"]
        mta = recipe.mta.model_copy(update={"gate": gate, "num_shared": num_shared})
        off = _unfit(recipe.stages["stage2"].model_copy(update={"trains": trains}), mta)
        return {
            "mta": {"gate": gate.model_dump(), "num_shared": num_shared},
            "stages": {"stage2": {"trains": trains, "penalties": off}},
        }

    return settings_of


def taps(recipe: Recipe, *, sparsity: float = SPARSITY) -> Settings:
    """Return settings of TAPS: each task learns at which sites it has an adapter of its own, in one stage of all epochs."""
    first = recipe.stages["stage1"]
    trains = [group for group in first.trains if group not in ("shared_adapters", "gate", "selector")]
    stage = {"router": "selector", "trains": [*dict.fromkeys(["task_adapters", "selector", *trains])], **budget(recipe)}
    return {
        "mta": {"num_shared": 0, "selector": GateSettings(kind="taps").model_dump(), "gate": _ONE_HOT},
        "stages": {"stage1": {**stage, "penalties": {**_without(first.penalties), "sparsity": sparsity}}, "stage2": None},
    }


def adamix(recipe: Recipe) -> Settings:
    """Return settings of AdaMix: the recipe's task adapters, of which a batch meets a random one at each site, whatever its tasks."""
    first = recipe.stages["stage1"]
    trains = [group for group in first.trains if group not in ("shared_adapters", "gate", "selector")]
    stage = {"router": "selector", "trains": [*dict.fromkeys(["task_adapters", *trains])], **budget(recipe)}
    return {
        "mta": {"num_shared": 0, "selector": GateSettings(kind="adamix").model_dump(), "gate": _ONE_HOT},
        "stages": {"stage1": {**stage, "penalties": _without(first.penalties)}, "stage2": None},
    }


def hyperformer(recipe: Recipe) -> Settings:
    """Return settings of HyperFormer: bottlenecks whose parameters a task's embedding makes, where `lora` sits and at its rates.

    A linear hypernetwork writes W z_t + b: a sum of T adapters' parameters by free weights (W z_t), and one that all tasks have (b).
    """
    like = lora(recipe, num_adapters=None)
    stage = like["stages"]["stage1"]
    rates = {**stage["learning_rates"], "gate": PRESETS["alter-lite"]["stages"]["stage2"]["learning_rates"]["gate"]}
    trains = ["task_adapters", "shared_adapters", "gate", "heads"]
    adapter = {**like["mta"]["adapter"], "kind": "merged_bottleneck"}
    return {
        "mta": {**like["mta"], "adapter": adapter, "num_shared": 1, "gate": GateSettings(kind="table").model_dump()},
        "stages": {**like["stages"], "stage1": {**stage, "router": "gate", "trains": trains, "learning_rates": rates}},
    }


def informed(recipe: Recipe) -> Settings:
    """Return settings of a gate by row in stage 2 that is rewarded for telling tasks apart (Mod-Squad's loss)."""
    by_row = another_gate("linear", over="all", granularity="sequence")(recipe)
    return merge(by_row, {"stages": {"stage2": {"penalties": {"mutual_information": INFORMATION}}}})


def preset(name: str) -> Callable[[Recipe], Settings]:
    """Return settings that make a recipe one of this preset, with the preset's settings throughout but for epochs and limits on steps.

    Its stage 1 gets what the preset's stage 2 leaves of the recipe's epochs, so that neither preset is trained for longer.
    """

    def settings_of(recipe: Recipe) -> Settings:
        if recipe.preset == name:
            return {}
        content = PRESETS[name]
        stages = {
            stage: {
                **parse(StageSettings, settings, where=f"preset {name}").model_dump(),
                "max_steps": recipe.stages[stage].max_steps if stage in recipe.stages else None,
                "penalties": _without(recipe.stages[stage].penalties if stage in recipe.stages else ()),
            }
            for stage, settings in content["stages"].items()
        }
        left = budget(recipe)["num_train_epochs"] - stages["stage2"]["num_train_epochs"]
        if left > 0:
            stages["stage1"]["num_train_epochs"] = left
        return {"preset": name, "mta": parse(MTASettings, content["mta"], where=f"preset {name}").model_dump(), "stages": stages}

    return settings_of
