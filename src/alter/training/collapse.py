"""Tasks on which a model gives one answer to every row: how to say it, and what to do about it.

A task of labels or numbers collapses where rates are too high or rows too few. A model that writes gives one text to every row
also where all is well but young: before it has seen enough steps, or because its base has never learned to write.
"""

from __future__ import annotations

from alter.errors import counted
from alter.recipe import Recipe
from alter.results import SplitScores, TaskScore
from alter.tasks.spec import TaskSpec

LONGEST = 60
THAT_WRITE = ("google/flan-t5-small", "package:alter_mini")


def collapsed(scores: SplitScores, recipe: Recipe) -> tuple[dict[str, str], dict[str, str]]:
    """Return task -> its one answer, shortened: of tasks whose answers are chosen, and of tasks whose answers are written."""
    chosen: dict[str, str] = {}
    written: dict[str, str] = {}
    specs = {spec.name: spec for spec in recipe.tasks}
    for task, score in scores.tasks.items():
        if score.constant_prediction is not None:
            answer = score.constant_prediction
            shown = answer if len(answer) <= LONGEST else f"{answer[: LONGEST - 3]}..."
            (written if _is_written(specs[task], score) else chosen)[task] = shown
    return chosen, written


def _is_written(spec: TaskSpec, score: TaskScore) -> bool:
    # An answer that is no label or no number can only have been written.
    return spec.kind == "generation" or spec.decoding == "generate" or score.num_invalid > 0


def _longer(recipe: Recipe) -> str:
    """Return the settings that give stage 1 more steps: it is where a model learns to write."""
    also = "" if recipe.stages["stage1"].max_steps is None else " and stages.stage1.max_steps"
    return f"stages.stage1.num_train_epochs{also}"


def while_training(scores: SplitScores, recipe: Recipe, *, stage: str, step: int, before: SplitScores | None = None) -> list[str]:
    """Return the warnings of one validation, of tasks that the one before it (`before`) has not warned of."""
    chosen, written = collapsed(scores, recipe)
    known = {} if before is None else before.tasks
    for answers in (chosen, written):
        for task in [task for task in answers if task in known and known[task].constant_prediction is not None]:
            del answers[task]
    warnings = []
    if chosen:
        named = ", ".join(f"{task} (always '{answer}')" for task, answer in chosen.items())
        warnings.append(
            f"{stage}, step {step}: one answer for every row on {named}. Early in training this may pass; if it stays, lower "
            f"stages.{stage}.learning_rates.adapters or raise train.per_device_train_batch_size"
        )
    if written:
        named = ", ".join(f"{task} (always '{answer}')" for task, answer in written.items())
        warnings.append(
            f"{stage}, step {step}: one text for every row on {named}. After few steps, or with a base that does not write yet, this "
            f"is usual; if it stays, raise {_longer(recipe)}, or choose a base model that writes already"
        )
    return warnings


def at_the_end(scores: SplitScores, recipe: Recipe, *, steps: int) -> list[str]:
    """Return the warnings of a finished run of so many steps."""
    chosen, written = collapsed(scores, recipe)
    longer = _longer(recipe)
    others = ", ".join(name for name in THAT_WRITE if name != recipe.model_name_or_path)
    warnings = [
        f"task '{task}' answers '{answer}' to every row: it learned nothing. Lower stages.stage1.learning_rates.adapters, give it more "
        f"rows, or, where {counted(steps, 'step is', 'steps are')} few for them, raise {longer}"
        for task, answer in chosen.items()
    ]
    return warnings + [
        f"task '{task}' writes '{answer}' for every row: {counted(steps, 'step was', 'steps were')} too few, or the base model does not "
        f"write yet. Raise {longer}, or choose a base model that writes already (e.g. {others})"
        for task, answer in written.items()
    ]
