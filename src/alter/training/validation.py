"""What is measured of a model in training: whether it is made of numbers still, its scores, and whether they are the best so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from accelerate.utils import broadcast_object_list

from alter.errors import TrainingError
from alter.model import MTAModel
from alter.results import SplitScores
from alter.training.collapse import while_training
from alter.training.kept import Kept
from alter.training.observer import Observer

Validate = Callable[[MTAModel], SplitScores]


def better(average: float, *, than: float | None) -> bool:
    """Return whether a validation average beats the best one so far; any number beats none, and NaN beats nothing but none."""
    return than is None or average > than or (math.isnan(than) and not math.isnan(average))


def check_losses(kept: Kept, loss: float, losses: Mapping[str, float], norm: torch.Tensor) -> None:
    """Refuse a loss or a gradient that is no number.

    Raises:
        TrainingError: it is one.
    """
    # fp16 meets infinite gradients now and then: the scaler skips such a step.
    if math.isfinite(loss) and (kept.recipe.train.mixed_precision == "fp16" or math.isfinite(float(norm))):
        return
    bad = [task for task, value in losses.items() if not math.isfinite(value)]
    raise _no_number(kept, f"the loss is {loss}, the gradient's norm {float(norm)} (tasks: {', '.join(bad) or 'all'})")


def check_parameters(kept: Kept) -> None:
    """Refuse a model that the last update broke: the loss is from before it.

    Raises:
        TrainingError: a parameter is no number.
    """
    broken = [key for key, parameter in kept.changing.items() if not torch.isfinite(parameter).all()]
    if broken:
        raise _no_number(
            kept, f"the update made {len(broken)} of {len(kept.changing)} parameters NaN or infinite, first {broken[0]}"
        )


def _no_number(kept: Kept, what: str) -> TrainingError:
    name, step = kept.progress.stage, kept.progress.step
    return TrainingError(
        f"{name}, step {step}: {what}. Nothing saved is lost: the last checkpoint in {kept.checkpoints} is from before. "
        f"Lower stages.{name}.learning_rates, or train.max_grad_norm"
        + (", or use mixed_precision: bf16 instead of fp16" if kept.recipe.train.mixed_precision == "fp16" else "")
    )


def validate_step(
    kept: Kept, model: MTAModel, validate: Validate, *, observer: Observer, patience: int | None, loss: float
) -> None:
    """Score the model at the step in progress; the best one is kept, and too many without gain finish the stage.

    Args:
        kept: where the run is, and the best so far.
        model: the model as it is now.
        validate: scores it.
        observer: is told the scores, and of tasks whose every row got the same answer.
        patience: validations in a row that may bring no gain; None: any number.
        loss: the mean training loss of late, which the observer is told.

    Raises:
        TrainingError: the model's outputs are no numbers.
    """
    scores = _score(kept, model, validate)
    best = better(scores.average, than=kept.progress.best_average)
    if best:
        kept.keep_best()
        kept.advance(
            best_average=scores.average,
            best_step=kept.progress.step,
            best_scores={task: score.score for task, score in scores.tasks.items()},
            validations_without_gain=0,
        )
    else:
        kept.advance(validations_without_gain=kept.progress.validations_without_gain + 1)
    name, step = kept.progress.stage, kept.progress.step
    tasks = {task: {"score": score.score, "metric": score.metric} for task, score in scores.tasks.items()}
    kept.write({"event": "validation", "stage": name, "step": step, "average": scores.average, "tasks": tasks, "best": best})
    observer.validated(name, step, scores, best=best, loss=loss)
    for warning in while_training(scores, kept.recipe, stage=name, step=step, before=kept.latest_scores):
        observer.warned(warning)
    kept.latest_scores = scores
    if patience is not None and kept.progress.validations_without_gain >= patience:
        kept.advance(finished=True)


def _score(kept: Kept, model: MTAModel, validate: Validate) -> SplitScores:
    """Score on the main process and tell the others, so that all of them choose the same best step and stop together."""
    accelerator = kept.accelerator
    told: list[SplitScores | str | None] = [None]
    if accelerator.is_main_process:
        try:
            with accelerator.autocast():  # generation too computes as training does
                told = [validate(model)]
        except TrainingError as error:  # finite parameters, and outputs beyond all numbers
            told = [str(error)]
    if accelerator.num_processes > 1:
        broadcast_object_list(told)
    [scores] = told
    if isinstance(scores, SplitScores):
        return scores
    raise _no_number(kept, str(scores))
