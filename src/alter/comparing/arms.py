"""The arms of a comparison: their names, what they need, which of them say anything about a recipe. Words only: nothing is trained here."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from alter.comparing.changes import Settings, alone, another_gate, informed, longer, lora, one_go, plain, preset, taps
from alter.comparing.peers import peft_lora, peft_poly, peft_xlora
from alter.comparison import Family
from alter.config import dump_yaml, merge, parse
from alter.errors import ConfigError, did_you_mean
from alter.recipe import Recipe

Kind = Literal["yardstick", "untrained", "train", "per-task", "ablation", "routed", "outside"]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One arm.

    Attributes:
        name: as the tables have it.
        title: what it is, in a line.
        family: what kind of arm; see `alter.comparison.Family`.
        kind: how it comes about: a yardstick, the base as it is, one run, one run a task, a change of a trained model, trained LoRAs
            weighed anew, or another program's run.
        settings: recipe -> what is laid over it.
        base: the arm that this one needs: an ablation's model, or whose stage 1 is taken (`stage1_from`).
        yardstick: the name of a yardstick.
        loras: the arm whose LoRAs, one a task, this one weighs.
        needs: the library that it needs.
        rank_of: whether the arm's LoRA gets the rank at which it is as large as all adapters of the recipe together.
        fits: recipe -> whether the arm says anything about such a recipe.
    """

    name: str
    title: str
    family: Family
    kind: Kind = "train"
    settings: Callable[[Recipe], Settings] = field(default=lambda recipe: {})
    base: str | None = None
    yardstick: str | None = None
    loras: str | None = None
    needs: str | None = None
    rank_of: bool = False
    fits: Callable[[Recipe], bool] = field(default=lambda recipe: True)


def has_stage2(recipe: Recipe) -> bool:
    """Whether the recipe has two stages with something to do: a second one without a first has nothing to be held against."""
    return "stage2" in recipe.stages and all(stage.num_train_epochs > 0 for stage in recipe.stages.values())


def _has_shared(recipe: Recipe) -> bool:
    return has_stage2(recipe) and recipe.mta.num_shared > 0


def _several(recipe: Recipe) -> bool:
    return len(recipe.tasks) > 1


def _apart(recipe: Recipe) -> bool:
    """Whether stage 1 gives each task an adapter that no other task has a part in."""
    mta = recipe.mta
    return (
        mta.selector.kind in ("one_hot", "taps") and mta.selector.num_owned == 1 and mta.num_adapters in (None, len(recipe.tasks))
    )


def _another_gate(kind: str, **settings: Any) -> Callable[[Recipe], bool]:
    """Whether the recipe's own gate is another one (else the arm would be the method once more)."""

    def fits(recipe: Recipe) -> bool:
        gate = recipe.mta.gate
        same = gate.kind == kind and all(getattr(gate, name) == value for name, value in settings.items())
        needs_shared = kind == "outputs" or settings.get("over") == "shared"
        return has_stage2(recipe) and _several(recipe) and not same and (recipe.mta.num_shared > 0 or not needs_shared)

    return fits


def _gate_arm(name: str, title: str, kind: str, **settings: Any) -> Arm:
    return Arm(
        name=name, title=title, family="gate", base="stage1",
        settings=another_gate(kind, **settings), fits=_another_gate(kind, **settings),
    )  # fmt: skip


ARMS: tuple[Arm, ...] = (
    Arm(name="majority", title="the most frequent answer", family="yardstick", kind="yardstick", yardstick="majority"),
    Arm(name="tfidf", title="TF-IDF and a linear model", family="yardstick", kind="yardstick", yardstick="tfidf"),
    Arm(name="untrained", title="the base as it is, heads untrained", family="yardstick", kind="untrained", settings=plain),
    Arm(
        name="single-full", title="one fine-tuned model a task", family="per-task", kind="per-task", settings=plain,
    ),
    Arm(
        name="single-lora", title="one LoRA a task, each trained alone", family="per-task", kind="per-task",
        settings=lambda recipe: lora(recipe, num_adapters=None),
    ),
    Arm(name="multi-full", title="one fine-tuned model for all tasks", family="one-model", settings=plain),
    Arm(
        name="shared-lora", title="one LoRA for all tasks, as large as the whole MTA", family="one-model", rank_of=True,
        settings=lambda recipe: lora(recipe, num_adapters=1),
    ),
    Arm(
        name="stage1", title="stage 1 only", family="stage2",
        settings=lambda recipe: {"stages": {"stage2": None}}, fits=has_stage2,
    ),
    Arm(
        name="stage1-longer", title="stage 1 with the epochs of both stages", family="stage2", settings=longer, fits=has_stage2,
    ),
    Arm(
        name="stage2-alone", title="stage 2 in which task adapters train on, nothing shared", family="stage2", base="stage1",
        settings=alone, fits=lambda recipe: has_stage2(recipe) and _apart(recipe),
    ),
    Arm(name="one-go", title="what both stages train, under the gate, in one stage", family="stage2", settings=one_go, fits=has_stage2),
    Arm(name="alter", title="preset alter: FFN copies in the last block, all trains", family="alter", settings=preset("alter")),
    Arm(name="alter-lite", title="preset alter-lite: LoRA, frozen backbone", family="alter", settings=preset("alter-lite")),
    _gate_arm("gate-task", "stage 2 with weights by task, of all adapters", "task", over="all"),
    _gate_arm("gate-task-shared", "stage 2 with weights by task, of shared adapters only", "task", over="shared"),
    _gate_arm("gate-linear-sequence", "stage 2 with weights by row", "linear", over="all", granularity="sequence"),
    _gate_arm("gate-linear-token", "stage 2 with weights by token", "linear", over="all", granularity="token"),
    _gate_arm("gate-outputs", "stage 2 with the paper's gate network", "outputs"),
    _gate_arm("gate-selector", "stage 2 with the selector learned on, no shared adapters", "selector"),
    _gate_arm("gate-uniform", "stage 2 with equal weights of all adapters", "uniform"),
    Arm(
        name="mutual-information", title="stage 2 with weights by row, rewarded for telling tasks apart", family="gate", base="stage1",
        settings=informed, fits=lambda recipe: has_stage2(recipe) and _several(recipe),
    ),
    Arm(
        name="taps", title="each task learns where it has adapters of its own, in one stage", family="stage2",
        settings=taps, fits=lambda recipe: _several(recipe) and recipe.mta.sites != "none",
    ),
    Arm(
        name="zeroed-shared", title="the method without its shared adapters", family="ablation", kind="ablation", fits=_has_shared,
    ),
    Arm(
        name="uniform-weights", title="the method with equal weights on all adapters", family="ablation", kind="ablation", fits=_several,
    ),
    Arm(
        name="random-weights", title="the method with random weights on all adapters", family="ablation", kind="ablation", fits=_several,
    ),
    Arm(
        name="no-task", title="the method told no task's name: the mean of all tasks' weights", family="ablation", kind="ablation",
        fits=_several,
    ),
    Arm(name="wrong-task", title="the method told another task's name", family="ablation", kind="ablation", fits=_several),
    Arm(name="peft-lora", title="peft's LoRA for all tasks, as large as the whole MTA", family="peer", needs="peft", settings=peft_lora),
    Arm(
        name="peft-poly", title="peft's Poly: LoRA skills weighed by task, as large as the MTA", family="peer", needs="peft",
        settings=peft_poly, fits=_several,
    ),
    Arm(
        name="peft-arrow", title="peft's Arrow over the LoRAs of single-lora, without training", family="peer", needs="peft",
        kind="routed", loras="single-lora", fits=_several,
    ),
    Arm(
        name="peft-xlora", title="peft's X-LoRA: a trained gate over the LoRAs of single-lora", family="peer", needs="peft",
        loras="single-lora", settings=peft_xlora, fits=_several,
    ),
)  # fmt: skip
"""In the order of the tables."""

OUTSIDE: tuple[Arm, ...] = tuple(
    Arm(name=name, title=title, family="peer", kind="outside")
    for name, title in (
        ("adapters-fusion", "AdapterFusion of the library adapters: an adapter a task, then their fusion a task"),
        ("adapters-mtl-lora", "MTL-LoRA of the library adapters: one LoRA with a matrix and weights a task"),
    )
)
"""Arms that another program runs and leaves in a comparison's folder (benchmarks/adapters_peer); they are shown where they are there."""


def main_arm(recipe: Recipe) -> str:
    """Return the arm that is the recipe as it stands: the method."""
    return recipe.preset


def choose(recipe: Recipe, names: Sequence[str] | None, own: Sequence[Arm] = ()) -> list[Arm]:
    """Return the arms to run, with those that they need, in the order of the tables.

    Args:
        recipe: the recipe that is compared.
        names: arms by name; None: all that say anything about this recipe.
        own: the user's own arms.

    Raises:
        ConfigError: a name is unknown, the arm says nothing about this recipe, or the library that it needs is not installed.
    """
    if recipe.peft is not None:
        raise ConfigError(
            "the recipe has the block peft, and arms are laid over a recipe of the method; drop peft (and mta.sites: none), and give the "
            "block to an arm of your own (--arms-file)"
        )
    if recipe.mta.sites == "none":
        raise ConfigError(
            "mta.sites is none, so this recipe is plain fine-tuning, and most arms would change nothing in it; name sites (all), and "
            "take the arms single-full and multi-full for plain fine-tuning"
        )
    known = {arm.name: arm for arm in (*ARMS, *own)}
    if names is None:
        wanted = {arm.name for arm in known.values() if arm.fits(recipe) and _is_there(arm.needs)}
    else:
        for name in names:
            _check_named(recipe, name, known)
        wanted = set(names)
    for name in list(wanted):
        needed = main_arm(recipe) if known[name].kind == "ablation" else known[name].base
        wanted |= {one for one in (needed, known[name].loras) if one is not None}
    if main_arm(recipe) in wanted and has_stage2(recipe):
        wanted.add("stage1")  # the method goes on from it
    return [arm for arm in known.values() if arm.name in wanted]


def _check_named(recipe: Recipe, name: str, known: Mapping[str, Arm]) -> None:
    """Refuse an arm that was asked for and cannot be had.

    Raises:
        ConfigError: it is unknown, another program's, says nothing about the recipe, or needs a library that is not installed.
    """
    if name in {arm.name for arm in OUTSIDE}:
        raise ConfigError(
            f"the arm '{name}' is another program's: run benchmarks/adapters_peer (see its README.md) into this folder; any call of "
            f"alter compare --resume then shows it"
        )
    if name not in known:
        raise ConfigError(f"unknown arm '{name}'; {did_you_mean(name, known)}")
    arm = known[name]
    if not arm.fits(recipe):
        raise ConfigError(
            f"the arm '{name}' ({arm.title}) says nothing about this recipe, which has {_lacks(recipe, arm)}; leave it out"
        )
    if not _is_there(arm.needs):
        raise ConfigError(
            f"the arm '{name}' needs the library {arm.needs}, which is not installed; pip install 'alter-mta[{arm.needs}]'"
        )


def _is_there(library: str | None) -> bool:
    return library is None or importlib.util.find_spec(library) is not None


def _lacks(recipe: Recipe, arm: Arm) -> str:
    if not has_stage2(recipe):
        return "no stage 1" if recipe.stages["stage1"].num_train_epochs == 0 else "no stage 2"
    if not _several(recipe):
        return "one task"
    if arm.family == "ablation" or (recipe.mta.num_shared == 0 and arm.name in ("gate-outputs", "gate-task-shared")):
        return "no shared adapters"
    if arm.name == "stage2-alone":
        return "adapters that tasks have in common from stage 1 on"
    return f"the gate {recipe.mta.gate.kind} anyway"


def own_arms(settings: Any, *, where: str) -> list[Arm]:
    """Return a user's own arms: a mapping of arm -> settings over the recipe, e.g. `{r8: {mta: {adapter: {r: 8}}}}`.

    Raises:
        ConfigError: it is no such mapping, or a name is taken.
    """
    if not isinstance(settings, dict) or not all(isinstance(value, dict) for value in settings.values()):
        raise ConfigError(
            f"{where}: must be a mapping of arm names to settings over the recipe, e.g. r8: {{mta: {{adapter: {{r: 8}}}}}}"
        )
    taken = sorted({arm.name for arm in (*ARMS, *OUTSIDE)} & settings.keys())
    if taken:
        raise ConfigError(f"{where}: the names {taken} are taken by arms of our own; choose others")
    return [
        Arm(name=str(name), title=_title(value), family="own", settings=partial(_given, value))
        for name, value in settings.items()
    ]


def _given(settings: Settings, recipe: Recipe) -> Settings:
    return settings


def _title(settings: Settings) -> str:
    return " ".join(dump_yaml(settings).split())


def arm_recipe(
    recipe: Recipe, arm: Arm, *, seed: int, rank: int | None = None, task: str | None = None, peft: Settings | None = None
) -> Recipe:
    """Return an arm's recipe.

    Args:
        recipe: what is compared.
        arm: the arm.
        seed: the seed.
        rank: LoRA's rank, where the arm's is matched; its scale lora_alpha / r stays.
        task: this task alone.
        peft: what the base adds to the block peft of a peer.

    Raises:
        ConfigError: the arm's settings do not fit the recipe.
    """
    # A stage 1 from elsewhere would be one seed's, and one arm's: in a comparison every arm's stage 1 comes from within.
    whole = {**recipe.model_dump(mode="json"), "stage1_from": None}
    content = merge(whole, {**arm.settings(recipe), "seed": seed, "name": f"{recipe.name}-{arm.name}"})
    if content["stages"].get("stage2") is not None:
        content["train"]["test_stages"] = "all"  # no choice is made by it: what stage 2 did is seen even where stage 1 is kept
    if task is not None:
        content["tasks"] = [one for one in content["tasks"] if one["name"] == task]
        content["mta"]["num_adapters"] = None
        content["mixture"] = {}  # of one task there is nothing to mix
    if peft is not None:
        content["peft"] = {**content["peft"], **peft}
    if rank is not None:
        adapter = content["mta"]["adapter"]
        content["mta"]["adapter"] = {**adapter, "r": rank, "lora_alpha": adapter["lora_alpha"] / adapter["r"] * rank}
    return parse(Recipe, content, where=f"arm {arm.name}")
