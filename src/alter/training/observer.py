"""What training tells whoever watches: the terminal, a tracker, a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from alter.errors import ConfigError
from alter.results import SplitScores


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """One log step: mean losses since the last one."""

    stage: str
    step: int
    num_steps: int
    epoch: float
    loss: float
    losses: Mapping[str, float]
    learning_rates: Mapping[str, float]
    grad_norm: float
    rows_per_second: float
    penalties: Mapping[str, float] = field(default_factory=dict)


class Observer(Protocol):
    """Watches a training run; all methods return at once."""

    def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
        """Hear that a stage begins, or goes on at `first_step`."""

    def stepped(self, stage: str, step: int) -> None:
        """Hear that an optimizer step is done."""

    def logged(self, report: StepReport) -> None:
        """Hear the losses since the last report."""

    def validated(self, stage: str, step: int, scores: SplitScores, *, best: bool, loss: float) -> None:
        """Hear the scores of a validation, and the mean training loss since the last report, or of the report at this step."""

    def warned(self, message: str) -> None:
        """Hear of something a user should look at."""

    def closed(self) -> None:
        """Hear that training is over."""


class Silent:
    """An observer that shows nothing."""

    def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
        """Show nothing."""

    def stepped(self, stage: str, step: int) -> None:
        """Show nothing."""

    def logged(self, report: StepReport) -> None:
        """Show nothing."""

    def validated(self, stage: str, step: int, scores: SplitScores, *, best: bool, loss: float) -> None:
        """Show nothing."""

    def warned(self, message: str) -> None:
        """Show nothing."""

    def closed(self) -> None:
        """Show nothing."""


class Many:
    """Hands every event to several observers."""

    def __init__(self, *observers: Observer) -> None:
        self.observers = observers

    def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.stage_started(stage, num_steps=num_steps, first_step=first_step, trainable=trainable)

    def stepped(self, stage: str, step: int) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.stepped(stage, step)

    def logged(self, report: StepReport) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.logged(report)

    def validated(self, stage: str, step: int, scores: SplitScores, *, best: bool, loss: float) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.validated(stage, step, scores, best=best, loss=loss)

    def warned(self, message: str) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.warned(message)

    def closed(self) -> None:
        """Pass it on."""
        for observer in self.observers:
            observer.closed()


class TensorBoard(Silent):
    """Writes losses, rates and scores for TensorBoard, beside metrics.jsonl."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise ConfigError(
                "train.report_to names tensorboard, which is not installed; pip install 'alter-mta[track]'"
            ) from None
        self.writer = SummaryWriter(log_dir=str(folder))

    def logged(self, report: StepReport) -> None:
        """Write losses and learning rates."""
        values = {"loss": report.loss, "grad_norm": report.grad_norm}
        values |= {f"loss/{task}": loss for task, loss in report.losses.items()}
        values |= {f"penalty/{name}": value for name, value in report.penalties.items()}
        values |= {f"learning_rate/{group}": rate for group, rate in report.learning_rates.items()}
        self._write(report.stage, report.step, values)

    def validated(self, stage: str, step: int, scores: SplitScores, *, best: bool, loss: float) -> None:
        """Write the average and each task's score."""
        values = {"validation/average": scores.average}
        values |= {f"validation/{task}": score.score for task, score in scores.tasks.items()}
        self._write(stage, step, values)

    def closed(self) -> None:
        """Close the file."""
        self.writer.close()

    def _write(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(f"{stage}/{name}", value, step)
