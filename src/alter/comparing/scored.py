"""Arms that train nothing: yardsticks, the base as it is, trained models changed; scored on both splits, predictions written."""

from __future__ import annotations

from pathlib import Path

from alter.checkpoint import Loaded, load_model
from alter.comparing.ablate import ABLATIONS
from alter.comparing.files import write_lines
from alter.comparing.yardsticks import SPLITS, fit_and_score
from alter.errors import TrainingError
from alter.recipe import Recipe
from alter.results import SplitScores
from alter.training.equip import equip_base
from alter.training.prepare import Rows, eval_sets
from alter.training.records import PREDICTIONS, score_and_record


def yardstick(name: str, rows: Rows, *, seed: int, folder: Path) -> dict[str, SplitScores]:
    """Fit a yardstick on training rows and score it; `folder`: where its predictions go."""
    found = fit_and_score(rows, name, seed=seed)
    for split, tasks in found.records.items():
        for task, records in tasks.items():
            write_lines(folder / PREDICTIONS / split / f"{task}.jsonl", records)
    return found.splits


def untrained(recipe: Recipe, rows: Rows) -> Loaded:
    """Return a recipe's base as it is, with the heads that training would begin with."""
    equipped = equip_base(recipe, rows)
    model = equipped.model.eval()
    return Loaded(config=equipped.config(model, recipe, rows), model=model, codec=equipped.codec, scales=rows.scales)


def ablated(name: str, trained: Path, *, seed: int) -> Loaded:
    """Return the model of a finished run, changed as the ablation `name` says.

    Raises:
        TrainingError: the model has no shared adapters at work that could be switched off.
    """
    loaded = load_model(trained)
    if name == "zeroed-shared" and loaded.model.router != "gate":
        raise TrainingError("the released stage is stage 1, which has no shared adapters")
    ABLATIONS[name](loaded.model, seed=seed)
    return loaded


def score(loaded: Loaded, rows: Rows, *, folder: Path, batch_size: int) -> dict[str, SplitScores]:
    """Score a model on the splits that have rows; `folder`: where its predictions go."""
    sets = {split: eval_sets(rows, split, codec=loaded.codec) for split in SPLITS}
    return {
        split: score_and_record(loaded, rows, split, found, folder=folder, batch_size=batch_size)
        for split, found in sets.items()
        if any(one.features for one in found.values())
    }
