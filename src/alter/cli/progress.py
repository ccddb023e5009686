"""Training as seen in the terminal: a bar with the time left, and a line per validation."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alter.errors import counted
from alter.results import SplitScores
from alter.training.observer import StepReport

LEGEND = "  (loss: of training rows of late; average and tasks: of validation rows, in percent; *: the stage's best so far)"


class TerminalProgress:
    """An observer that draws on a console; where that is no terminal, only the lines of validations are printed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.bar: TaskID | None = None
        self.explained = False
        self.warnings: set[str] = set()

    def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
        """Draw a new bar."""
        went_on = f", going on at step {first_step}" if first_step else ""
        steps, parameters = counted(num_steps, "step"), counted(trainable, "trainable parameter")
        self.console.print(f"[bold]{stage}[/bold]: {steps}, {parameters}{went_on}")
        if self.bar is None:
            self.progress.start()
        else:
            self.progress.remove_task(self.bar)
        self.bar = self.progress.add_task(stage, total=num_steps, completed=first_step, loss="-")

    def stepped(self, stage: str, step: int) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.progress.update(self.bar, completed=step)

    def logged(self, report: StepReport) -> None:
        """Show the loss."""
        if self.bar is not None:
            self.progress.update(self.bar, loss=f"{report.loss:.3f}")

    def validated(self, stage: str, step: int, scores: SplitScores, *, best: bool, loss: float) -> None:
        """Print the loss and the scores; the first time also what they are."""
        if not self.explained:
            self.explained = True
            self.console.print(LEGEND, markup=False, soft_wrap=True)
        tasks = "  ".join(f"{task} {score.score:.1f}" for task, score in scores.tasks.items())
        mark = "*" if best else " "
        line = f"  step {step:>5}  loss {loss:.3f}  average [bold]{scores.average:.2f}[/bold] {mark}  {tasks}"
        self.console.print(line, soft_wrap=True)

    def warned(self, message: str) -> None:
        """Print a warning, once: the arms of a comparison read the same rows, and would all say the same of them."""
        if message in self.warnings:
            return
        self.warnings.add(message)
        self.console.print(f"[yellow]warning:[/yellow] {escape(message)}", soft_wrap=True)

    def closed(self) -> None:
        """Take the bar away; another run may draw its own after it."""
        self.progress.stop()
        if self.bar is not None:
            self.progress.remove_task(self.bar)
            self.bar = None
