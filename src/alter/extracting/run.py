"""From a model of many tasks to a model of one: what `alter extract` does.

model directory -> the task's weights -> adapters chosen -> a smaller model directory, written whole -> both scored, where rows are at hand
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from alter.backbones._load import load_base
from alter.checkpoint import Loaded, load_model, save_model
from alter.errors import AlterError, CheckpointError, ConfigError, DataError, TaskError, did_you_mean
from alter.evaluation import EvalSet, evaluate
from alter.extracting.choose import Choice, choose
from alter.extracting.report import ExtractReport, Scores, card
from alter.extracting.router import TaskRouter, router_of
from alter.extracting.smaller import smaller_config, smaller_model
from alter.model import MTAModel
from alter.predict import adapter_names
from alter.recipe import Recipe
from alter.results import TaskScore
from alter.score import find_recipe, rows_for
from alter.training.prepare import eval_sets

SPLITS = ("validation", "test")


def extract(
    model: str | Path,
    *,
    task: str,
    output_dir: str | Path,
    threshold: float = 0.05,
    renormalise: bool = False,
    recipe: str | Path | Recipe | None = None,
    split: str = "validation",
    device: torch.device | str | None = None,
) -> ExtractReport:
    """Write one task of a model, with the adapters that it uses, as a model directory of its own.

    Args:
        model: a run directory, or a model directory.
        task: the task.
        output_dir: where the result goes; it must not be there yet.
        threshold: keep the adapters whose mean gate weight is at least this at any site; 0 keeps all that can have any.
        renormalise: raise the weights of the kept task adapters to the sum that all task adapters had, instead of leaving them as they
            were.
        recipe: where rows are; by default the run's own recipe.yaml, if there is one.
        split: score the model before and after on validation rows, or on `test` rows as well.
        device: where to compute; by default a CUDA device where there is one, otherwise the CPU.

    Raises:
        ConfigError: an argument is wrong, or the model's gate cannot do with fewer adapters.
        CheckpointError: the model cannot be loaded, the output is there already, or no recipe tells rows that are needed.
        TaskError: the model has no such task.
        DataError: rows are wrong.
        TrainingError: the output cannot be written.
    """
    output = Path(output_dir)
    if not 0 <= threshold <= 1:
        raise ConfigError(f"--threshold is {threshold}; it must be at least 0 and at most 1")
    if split not in SPLITS:
        raise DataError(f"unknown split '{split}'; {did_you_mean(split, SPLITS)}")
    if output.exists():
        raise CheckpointError(f"{output}: is there already; choose another --output-dir, or remove it first")
    loaded = load_model(model, device=device)
    names = [spec.name for spec in loaded.config.tasks]
    if task not in names:
        raise TaskError(f"this model has no task '{task}'; {did_you_mean(task, names)}")
    if loaded.config.peft is not None:
        raise ConfigError(f"{model}: its adapters are of the library peft, which extracts none; give a model with an MTA")
    router = router_of(loaded.config, names.index(task))
    router.check_known()
    rows = _Rows(model, recipe, task)
    needed = rows.of(loaded, "validation").features if threshold > 0 and not router.is_fixed and loaded.model.mtas else None
    choice = choose(loaded.model, router, threshold=threshold, rows=needed, codec=loaded.codec, renormalise=renormalise)
    config = smaller_config(loaded.config, loaded.model, router, choice)
    base, _ = load_base(config.base.name, revision=config.base.revision)
    small = smaller_model(loaded.model, base, config, router, choice, renormalise=renormalise)
    before = rows.scores(loaded, SPLITS[: SPLITS.index(split) + 1])
    report = _report(
        loaded.model, small, router, choice, model=str(model), folder=output, threshold=threshold, raised=renormalise
    )
    save_model(small, config, output, card=card(report, base=config.base.name, name=config.name), resumable=False)
    after = rows.scores(load_model(output, device=device), tuple(before))
    scores = {
        split: Scores(metric=score.metric, before=score.score, after=after[split].score, num_examples=score.num_examples)
        for split, score in before.items()
    }
    return replace(report, scores=scores, remark=rows.remark)


class _Rows:
    """The task's rows, where a recipe tells them.

    Args:
        model: the whole model's directory, beside which a recipe may lie.
        recipe: the recipe given, if any.
        task: the task.
    """

    def __init__(self, model: str | Path, recipe: str | Path | Recipe | None, task: str) -> None:
        self.task = task
        self.was_given = recipe is not None
        self.missing: AlterError | None = None
        self.remark = ""
        self.recipe: Recipe | None = None
        try:
            self.recipe = find_recipe(model, recipe)
        except AlterError as error:
            if self.was_given:
                raise
            self.missing = error

    def of(self, loaded: Loaded, split: str) -> EvalSet:
        """Return the task's rows of a split.

        Raises:
            CheckpointError: no recipe is given, and none lies beside the model.
            DataError: the rows are wrong, or there are none.
        """
        if self.recipe is None:
            assert self.missing is not None
            raise CheckpointError(
                f"{self.missing}. The task's weights depend on its rows; without any, extract with --threshold 0"
            ) from None
        rows = rows_for(loaded.config.tasks, split, recipe=self.recipe, tasks=[self.task], scales=loaded.scales)
        found = eval_sets(rows, split, codec=loaded.codec)[self.task]
        if not found.features:
            raise DataError(f"the recipe names no {split} rows for {self.task}; add source.{split} to it")
        return found

    def scores(self, loaded: Loaded, splits: Sequence[str]) -> dict[str, TaskScore]:
        """Return the task's score on each split; none where no recipe was given and none does, and `remark` then says why."""
        try:
            sets = {split: self.of(loaded, split) for split in splits}
        except AlterError as error:
            if self.was_given:
                raise
            self.remark = f"not scored: {self.missing or error}"
            return {}
        return {
            split: evaluate(loaded.model, {self.task: found}, codec=loaded.codec, batch_size=64)[0].tasks[self.task]
            for split, found in sets.items()
        }


def _report(
    whole: MTAModel,
    small: MTAModel,
    router: TaskRouter,
    choice: Choice,
    *,
    model: str,
    folder: Path,
    threshold: float,
    raised: bool,
) -> ExtractReport:
    names = adapter_names(whole) if whole.mtas else []
    kept = [names[router.places[column]] for column in choice.columns]
    counts = [each.count_parameters() for each in (whole, small)]
    added = [sum(number for group, number in each.items() if group not in ("backbone", "total")) for each in counts]
    largest = {} if choice.means_LE is None else dict(zip(names, choice.means_LE.abs().amax(0).tolist(), strict=True))
    return ExtractReport(
        folder=folder,
        source=model,
        task=small.task_names[0],
        threshold=threshold,
        renormalised=raised,
        kept=dict(zip(kept, adapter_names(small) if small.mtas else [], strict=True)) if small.mtas else {},
        dropped=[name for name in names if not small.mtas or name not in kept],
        largest=largest,
        sites=(len(whole.mtas), len(small.mtas)),
        added_parameters=(added[0], added[1]),
        total_parameters=(counts[0]["total"], counts[1]["total"]),
    )
