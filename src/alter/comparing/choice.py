"""Which arms a comparison runs, and each arm's recipe. Words only: nothing is trained here."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from alter.comparing.arms import ARMS, OUTSIDE, Arm, equal_for_ever, has_stage2, several
from alter.comparing.changes import Settings
from alter.config import merge, parse
from alter.errors import ConfigError, did_you_mean
from alter.recipe import Recipe


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
    needs_two = arm.family == "gate" or arm.name in ("stage1", "stage1-longer", "stage2-alone", "one-go", "zeroed-shared")
    if needs_two and not has_stage2(recipe):
        return "no stage 1" if recipe.stages["stage1"].num_train_epochs == 0 else "no stage 2"
    if not several(recipe):
        return "one task"
    if arm.family == "ablation" or (recipe.mta.num_shared == 0 and arm.name in ("gate-outputs", "gate-task-shared")):
        return "no shared adapters"
    if arm.name == "stage2-alone":
        return "adapters that tasks have in common from stage 1 on"
    if arm.name == "gate-uniform" and equal_for_ever(recipe):
        return f"several shared adapters of kind {recipe.mta.adapter.kind}, which equal weights would keep equal"
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
    """Return what an own arm changes: keys with dots and their values, as overrides have them."""
    return "; ".join(f"{key}={_brief(value)}" for key, value in _leaves(settings))


def _leaves(settings: Settings, *before: str) -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, *before, str(key))
        else:
            yield ".".join((*before, str(key))), value


def _brief(value: Any) -> str:
    """Return a value in one line; text that stands alone has no quotes, and what JSON does not know (a date) is told as text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str).replace('"', "")


def arm_recipe(
    recipe: Recipe, arm: Arm, *, seed: int, rank: int | None = None, task: str | None = None, peft: Settings | None = None
) -> Recipe:
    """Return an arm's recipe.

    Args:
        recipe: what is compared.
        arm: the arm.
        seed: the seed.
        rank: its adapters' rank or inner width, where it is matched; LoRA's scale lora_alpha / r stays.
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
