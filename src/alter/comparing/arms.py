"""The arms of a comparison: their names, what they need, which of them say anything about a recipe. Words only: nothing is trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from alter.comparing.changes import (
    Settings,
    adamix,
    alone,
    another_gate,
    hyperformer,
    informed,
    longer,
    lora,
    one_go,
    plain,
    preset,
    taps,
)
from alter.comparing.peers import peft_lora, peft_poly, peft_xlora
from alter.comparison import Family
from alter.mta_settings import MERGED
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
        as_large: what is chosen such that the arm's adapters are together as large as all of the recipe's: the rank of one LoRA, or the
            inner width of bottlenecks, one a task and one for all.
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
    as_large: Literal["rank", "width"] | None = None
    fits: Callable[[Recipe], bool] = field(default=lambda recipe: True)


def has_stage2(recipe: Recipe) -> bool:
    """Whether the recipe has two stages with something to do: a second one without a first has nothing to be held against."""
    return "stage2" in recipe.stages and all(stage.num_train_epochs > 0 for stage in recipe.stages.values())


def _has_shared(recipe: Recipe) -> bool:
    return has_stage2(recipe) and recipe.mta.num_shared > 0


def several(recipe: Recipe) -> bool:
    """Whether the recipe has more than one task."""
    return len(recipe.tasks) > 1


def _apart(recipe: Recipe) -> bool:
    """Whether stage 1 gives each task an adapter that no other task has a part in."""
    mta = recipe.mta
    return (
        mta.selector.kind in ("one_hot", "taps") and mta.selector.num_owned == 1 and mta.num_adapters in (None, len(recipe.tasks))
    )


def equal_for_ever(recipe: Recipe) -> bool:
    """Whether the recipe's shared adapters would stay equal under equal weights: they start as nothing, and parameters are mixed."""
    return recipe.mta.adapter.kind in MERGED and recipe.mta.num_shared > 1


def _another_gate(kind: str, **settings: Any) -> Callable[[Recipe], bool]:
    """Whether the recipe's own gate is another one (else the arm would be the method once more)."""

    def fits(recipe: Recipe) -> bool:
        gate = recipe.mta.gate
        same = gate.kind == kind and all(getattr(gate, name) == value for name, value in settings.items())
        needs_shared = kind == "outputs" or settings.get("over") == "shared"
        if kind == "uniform" and equal_for_ever(recipe):
            return False
        return has_stage2(recipe) and several(recipe) and not same and (recipe.mta.num_shared > 0 or not needs_shared)

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
        name="shared-lora", title="one LoRA for all tasks, as large as the whole MTA", family="one-model", as_large="rank",
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
    _gate_arm("gate-table", "stage 2 with weights by task as plain numbers, of all adapters", "table"),
    _gate_arm("gate-linear-sequence", "stage 2 with weights by row", "linear", over="all", granularity="sequence"),
    _gate_arm("gate-linear-token", "stage 2 with weights by token", "linear", over="all", granularity="token"),
    _gate_arm("gate-outputs", "stage 2 with the paper's gate network", "outputs"),
    _gate_arm("gate-selector", "stage 2 with the selector learned on, no shared adapters", "selector"),
    _gate_arm("gate-uniform", "stage 2 with equal weights of all adapters", "uniform"),
    Arm(
        name="mutual-information", title="stage 2 with weights by row, rewarded for telling tasks apart", family="gate", base="stage1",
        settings=informed, fits=lambda recipe: has_stage2(recipe) and several(recipe),
    ),
    Arm(
        name="taps", title="each task learns where it has adapters of its own, in one stage", family="stage2",
        settings=taps, fits=lambda recipe: several(recipe) and recipe.mta.sites != "none",
    ),
    Arm(
        name="adamix", title="a random one of the task adapters at each step, their mean afterwards, in one stage", family="stage2",
        settings=adamix, fits=lambda recipe: several(recipe) and recipe.mta.sites != "none",
    ),
    Arm(
        name="hyperformer", title="bottlenecks made of a task's embedding by a linear hypernetwork, in one stage", family="stage2",
        settings=hyperformer, fits=several, as_large="width",
    ),
    Arm(
        name="zeroed-shared", title="the method without its shared adapters", family="ablation", kind="ablation", fits=_has_shared,
    ),
    Arm(
        name="uniform-weights", title="the method with equal weights on all adapters", family="ablation", kind="ablation", fits=several,
    ),
    Arm(
        name="random-weights", title="the method with random weights on all adapters", family="ablation", kind="ablation", fits=several,
    ),
    Arm(
        name="no-task", title="the method told no task's name: the mean of all tasks' weights", family="ablation", kind="ablation",
        fits=several,
    ),
    Arm(name="wrong-task", title="the method told another task's name", family="ablation", kind="ablation", fits=several),
    Arm(name="peft-lora", title="peft's LoRA for all tasks, as large as the whole MTA", family="peer", needs="peft", settings=peft_lora),
    Arm(
        name="peft-poly", title="peft's Poly: LoRA skills weighed by task, as large as the MTA", family="peer", needs="peft",
        settings=peft_poly, fits=several,
    ),
    Arm(
        name="peft-arrow", title="peft's Arrow over the LoRAs of single-lora, without training", family="peer", needs="peft",
        kind="routed", loras="single-lora", fits=several,
    ),
    Arm(
        name="peft-xlora", title="peft's X-LoRA: a trained gate over the LoRAs of single-lora", family="peer", needs="peft",
        loras="single-lora", settings=peft_xlora, fits=several,
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
