"""Everything that `alter validate` checks before a run is worth its time: every row of every file, then the base model.

Recipe -> rows (`alter.tasks.validate`) -> base model without its weights -> do they fit each other? -> ValidationReport
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from alter.backbones._codec import codec_for
from alter.backbones._look import Look, is_out_of_reach, look_at
from alter.data.codec import Codec
from alter.errors import AlterError, DataError, ModelError
from alter.nn.routing import RoutingState
from alter.nn.site import choose_sites
from alter.peers.injected import inject
from alter.recipe import Recipe, load_recipe
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec
from alter.tasks.validate import BaseSummary, ValidationReport, validate_recipe
from alter.training.prepare import check_lengths, check_packing, check_targets, check_tasks


def validate(recipe: Recipe | str | Path) -> ValidationReport:
    """Read every file of a recipe fully, look at its base model, and report all problems, all warnings and summaries.

    Of the base model config and tokenizer are read, no weights: it is found, its kind can be trained and fits the tasks. That the
    weights are whole only training tells. A model on the hub that is out of reach is a warning, since nothing is known to be wrong.

    Args:
        recipe: a YAML file, or a resolved recipe.

    Raises:
        ConfigError: the recipe itself cannot be read; what is wrong with its rows or its base model is in the report.
    """
    resolved = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    report = validate_recipe(resolved)
    try:
        look = look_at(resolved.model_name_or_path, revision=resolved.revision)
    except ModelError as error:
        if is_out_of_reach(error):
            told = f"the base model was not looked at, and training needs it: {error}"
            return replace(report, warnings=[*report.warnings, told])
        return replace(report, problems=[*report.problems, str(error)])
    base = BaseSummary(
        name=resolved.model_name_or_path,
        kind=look.kind,
        model_type=look.model_type,
        family=look.family,
        writes=look.kind != "encoder",
    )
    return replace(report, base=base, problems=[*report.problems, *_misfits(resolved, look, report)])


def _misfits(recipe: Recipe, look: Look, report: ValidationReport) -> list[str]:
    """Return what does not fit together: recipe and base model, tasks and base model."""
    problems: list[str] = []

    def check(what: Callable[[], object]) -> None:
        try:
            what()
        except AlterError as error:
            problems.append(str(error))

    check(partial(_check_sites, recipe, look))
    check(partial(check_packing, recipe, look.kind))
    try:
        codec = codec_for(look.skeleton, look.tokenizer, recipe, name=recipe.model_name_or_path, revision=recipe.revision)
    except ModelError as error:
        return [*problems, str(error)]
    check(partial(check_lengths, codec, look.skeleton))
    for task in recipe.tasks:
        spec = _complete(task, report)
        before = len(problems)
        check(partial(check_tasks, [spec], look.kind))
        if len(problems) == before and look.kind != "encoder":
            check(partial(check_targets, [spec], codec))
            check(partial(_check_chat, spec, codec))
    check(partial(_check_peft, recipe, look))  # last: it changes the skeleton
    return problems


def _check_sites(recipe: Recipe, look: Look) -> None:
    if look.sites is not None:
        decoder = sum(site.stack == "decoder" for site in look.sites)
        choose_sites(recipe.mta.sites, len(look.sites) - decoder, num_decoder_layers=decoder)


def _check_peft(recipe: Recipe, look: Look) -> None:
    """Refuse a method of peft that is not to be had, or that does not take the base model."""
    if recipe.peft is not None and look.sites is not None:
        paths = [path for site in look.sites for path in (*site.inputs, site.down)]
        inject(look.skeleton, recipe.peft, paths=paths, num_tasks=len(recipe.tasks), state=RoutingState())


def _check_chat(spec: TaskSpec, codec: Codec) -> None:
    """Refuse a chat whose base model has no template for one; what a template makes of the rows is told where they are encoded."""
    if not spec.chat:
        return
    try:
        codec.inputs([Example(task=spec.name, text="a", messages=(("user", "a"),))])
    except DataError:
        return


def _complete(task: TaskSpec, report: ValidationReport) -> TaskSpec:
    """Return a task with the labels of its training rows, where it lists none."""
    summary = report.summaries.get(task.name)
    if task.kind != "classification" or task.labels is not None or summary is None:
        return task
    return task.model_copy(update={"labels": sorted(summary.labels["train"])})
