"""What earlier calls left in a comparison's folder: runs of a user's own arms, and what failed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from alter.comparing.arms import Arm
from alter.comparing.choice import arm_recipe
from alter.comparison import read_comparison
from alter.config import load_yaml, parse
from alter.errors import CheckpointError
from alter.recipe import Recipe
from alter.training.rundir import RECIPE, RESULTS

_SEED = re.compile(r"^seed (\d+): ", flags=re.MULTILINE)


def seeds_of(folder: Path, arm: str) -> dict[int, Path]:
    """Return seed -> folder of what an arm left, finished or not."""
    found = {path.name.removeprefix("seed"): path for path in sorted((folder / "arms" / arm).glob("seed*"))}
    return {int(number): path for number, path in found.items() if number.isdecimal()}


def check_own(recipe: Recipe, own: Sequence[Arm], folder: Path) -> None:
    """Refuse a user's own arm whose settings are not those of its finished runs: these would stand under a title that is not theirs.

    Raises:
        CheckpointError: there is one.
    """
    for arm in own:
        for seed, path in seeds_of(folder, arm.name).items():
            if not (path / RESULTS).exists():
                continue
            # Not load_recipe: it would read relative paths from this folder, and not as they were given.
            before = parse(Recipe, load_yaml(path / RECIPE), where=str(path / RECIPE))
            if before != arm_recipe(recipe, arm, seed=seed):
                raise CheckpointError(
                    f"{path}: was run with other settings than the arm '{arm.name}' has now; give the changed arm another name, or delete "
                    f"{path.parent} to run it again"
                )


def failures_before(folder: Path) -> list[tuple[str, int, str]]:
    """Return (arm, seed, message) of what failed in earlier calls, as compare.json tells it; none where it cannot be read."""
    try:
        arms = read_comparison(folder).arms
    except CheckpointError:  # it is written anew
        return []
    found = []
    for name, arm in arms.items():
        _, *parts = _SEED.split(arm.failed)
        found += [(name, int(seed), message.strip()) for seed, message in zip(parts[::2], parts[1::2], strict=True)]
    return found
