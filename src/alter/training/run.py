"""One run, from recipe to model directory: what `alter train` does.

recipe -> rows checked -> base equipped -> stages trained -> the better stage kept -> test scored once -> model/, results.json
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import transformers
from accelerate import PartialState

from alter.checkpoint import Loaded, save_model
from alter.errors import ConfigError
from alter.evaluation import EvalSet, evaluate
from alter.model import MTAModel
from alter.predict import Predictor, load
from alter.recipe import Recipe, load_recipe
from alter.results import Results, SplitScores, StageResult, read_results, write_results
from alter.tensors import write_error
from alter.training.adopt import check_fits
from alter.training.card import model_card
from alter.training.equip import equip_base
from alter.training.observer import Many, Observer, Silent, TensorBoard
from alter.training.precision import resolve_precision
from alter.training.prepare import (
    Rows,
    encode_split,
    eval_sets,
    read_rows,
)
from alter.training.records import score_and_record, stage_gates, write_gates
from alter.training.remarks import about_rows, about_shared
from alter.training.rundir import RESULTS, RunDirectory
from alter.training.trainer import Trainer
from alter.training.validation import better
from alter.version import __version__


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        folder: the run directory.
        results: what results.json holds.
    """

    folder: Path
    results: Results

    def load(self) -> Predictor:
        """Load the released model."""
        return load(self.folder)


def train(
    recipe: str | Path | Recipe,
    *,
    output_dir: str | Path,
    overrides: Sequence[str] = (),
    resume: bool = False,
    observer: Observer | None = None,
) -> Run:
    """Train a recipe.

    Args:
        recipe: a YAML file, or a resolved recipe.
        output_dir: the run directory.
        overrides: `key.path=value` settings over the recipe's file.
        resume: go on with the run in `output_dir`; a finished one is returned as it is.
        observer: is told what happens; by default nobody.

    Raises:
        AlterError: anything a user can mend; see `alter.errors`.
    """
    if isinstance(recipe, Recipe) and overrides:
        raise ConfigError("train got a resolved Recipe and overrides; hand the overrides to load_recipe(path, overrides)")
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe, list(overrides))
    # Processes without an accelerator find each other (gloo) only where accelerate is told that there is none.
    cpu = os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes") or not torch.accelerator.is_available()
    # The main process validates alone, and writing takes long: the others must wait for it longer than the usual half hour.
    state = PartialState(cpu=cpu, **({"timeout": timedelta(hours=6)} if int(os.environ.get("WORLD_SIZE", "1")) > 1 else {}))
    if resolved.train.mixed_precision == "fp16" and state.device.type == "cpu":
        raise ConfigError(
            "train.mixed_precision is fp16, but this run has no accelerator and fp16 needs one; set train.mixed_precision to auto, "
            "bf16 or no"
        )
    folder = Path(output_dir)
    with RunDirectory(folder, resolved, resume=resume, writes=state.is_main_process) as directory:
        state.wait_for_everyone()
        if directory.finished:
            return Run(folder=folder, results=read_results(folder / RESULTS))
        results = _train(resolved, folder, resume=resume, observer=observer or Silent(), state=state)
    return Run(folder=folder, results=results)


def _train(recipe: Recipe, folder: Path, *, resume: bool, observer: Observer, state: PartialState) -> Results:
    rows = read_rows(recipe)
    equipped = equip_base(recipe, rows)
    model, codec, fingerprint = equipped.model, equipped.codec, equipped.fingerprint
    validation = eval_sets(rows, "validation", codec=codec)
    batch_size = recipe.train.per_device_eval_batch_size

    def validate(current: MTAModel) -> SplitScores:
        return evaluate(current, validation, codec=codec, batch_size=batch_size)[0]

    trainer = Trainer(
        model,
        recipe=recipe,
        rows=encode_split(rows, "train", codec=codec),
        codec=codec,
        validate=validate,
        fingerprint=fingerprint,
        folder=folder,
        observer=_observers(recipe, folder, observer, state),
        resume=resume,
    )
    if trainer.kept.resumed is None:
        if recipe.stage1_from is not None:
            check_fits(recipe, rows, fingerprint=fingerprint)
        for warning in about_rows(recipe, rows):
            trainer.observer.warned(warning)
    stages = trainer.fit()
    released = better_stage(stages)
    if recipe.train.test_stages == "all":
        stages = _with_test_scores(stages, released, trainer, eval_sets(rows, "test", codec=codec))
    gates = {}
    for stage in stages:
        trainer.restore(stage)
        gates[stage] = stage_gates(trainer.model, validation, codec=codec)
        for warning in about_shared(recipe, stage, gates[stage]):
            trainer.observer.warned(warning)
    trainer.restore(released)
    model = trainer.model
    config = equipped.config(model, recipe, rows)
    loaded = Loaded(config=config, model=model, codec=codec, scales=rows.scales)
    results = _results(recipe, rows, loaded, stages, released, folder=folder if state.is_main_process else None)
    if state.is_main_process:
        write_gates(model, gates, folder)
        save_model(model, config, folder / "model", card=model_card(config, results))
        try:
            write_results(results, folder / RESULTS)
        except OSError as error:
            raise write_error(error, folder / RESULTS) from error
    state.wait_for_everyone()
    return results


def _with_test_scores(
    stages: dict[str, StageResult], released: str, trainer: Trainer, sets: Mapping[str, EvalSet]
) -> dict[str, StageResult]:
    """Return the stages with the test scores of each one's best step but the released one's, where there are test rows."""
    if not any(found.features for found in sets.values()):
        return stages
    scored = {}
    for stage, result in stages.items():
        if stage == released or result.taken_from:  # the released one's are taken once, below; the run that trained it has them
            scored[stage] = result
            continue
        trainer.restore(stage)
        batch_size = trainer.recipe.train.per_device_eval_batch_size
        scores = evaluate(trainer.model, sets, codec=trainer.codec, batch_size=batch_size)[0]
        scored[stage] = result.model_copy(update={"test": scores})
    return scored


def _observers(recipe: Recipe, folder: Path, observer: Observer, state: PartialState) -> Observer:
    if not state.is_main_process:
        return Silent()
    return Many(observer, TensorBoard(folder / "tensorboard")) if "tensorboard" in recipe.train.report_to else observer


def better_stage(stages: dict[str, StageResult]) -> str:
    """Return the stage to release: stage 2, unless its best validation average is below stage 1's."""
    if len(stages) == 1:
        return next(iter(stages))
    return "stage1" if better(stages["stage1"].average, than=stages["stage2"].average) else "stage2"


def _results(
    recipe: Recipe, rows: Rows, loaded: Loaded, stages: dict[str, StageResult], released: str, *, folder: Path | None
) -> Results:
    """Score the released model on validation and test rows and say what the run was; `folder`: where predictions go, if anywhere."""
    splits = {}
    for split in ("validation", "test"):
        sets = eval_sets(rows, split, codec=loaded.codec)
        if any(found.features for found in sets.values()):
            batch_size = recipe.train.per_device_eval_batch_size
            splits[split] = score_and_record(loaded, rows, split, sets, folder=folder, batch_size=batch_size)
    if recipe.train.test_stages == "all":
        stages = {**stages, released: stages[released].model_copy(update={"test": splits.get("test")})}
    return Results(
        recipe=recipe.name,
        model=recipe.model_name_or_path,
        preset=recipe.preset,
        seed=recipe.seed,
        stages=stages,
        released=released,
        splits=splits,
        rows={spec.name: {split: len(rows.splits[split][spec.name]) for split in rows.splits} for spec in rows.specs},
        parameters=loaded.model.count_parameters(),
        environment={**environment(), "precision": resolve_precision(recipe.train.mixed_precision)},
    )


def environment() -> dict[str, str]:
    """Return the versions and the machine that numbers came from."""
    found = {
        "alter": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "processors": str(os.cpu_count()),
        "threads": str(torch.get_num_threads()),
    }
    return {**found, "device": torch.cuda.get_device_name(0)} if torch.cuda.is_available() else found
