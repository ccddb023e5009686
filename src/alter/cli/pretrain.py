"""`alter pretrain RECIPE [key.path=value ...] --output-dir RUN [--resume]`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from alter.cli.terminal import console, echo_json, notes, table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from alter.pretraining.observer import HeldOut, PretrainReport
    from alter.pretraining.recipe import PretrainRecipe


def pretrain(
    recipe: Path = typer.Argument(..., help="The pretraining recipe: a YAML file."),
    overrides: list[str] = typer.Argument(None, metavar="[KEY.PATH=VALUE]...", help="Settings over the recipe's."),
    output_dir: Path = typer.Option(None, "--output-dir", "-o", help="The run directory; the model is in model/ inside."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --output-dir."),
    as_json: bool = typer.Option(False, "--json", help="Print results.json instead of a table."),
) -> None:
    """Pretrain a model on plain text: from scratch, or further on the text of your domain."""
    from alter.errors import ConfigError
    from alter.pretraining.recipe import load_pretrain_recipe

    resolved = load_pretrain_recipe(recipe, list(overrides or []))
    if output_dir is None:
        raise ConfigError(f"no run directory is given; add one, e.g. --output-dir runs/{resolved.name}")
    if os.environ.get("RANK", "0") == "0":  # of several processes only the first speaks
        notes().print(f"{resolved.name}: {_start(resolved)}", markup=False, soft_wrap=True)

    from accelerate import PartialState

    from alter.pretraining.run import pretrain as pretrain_recipe

    run = pretrain_recipe(resolved, output_dir=output_dir, resume=resume, observer=PretrainProgressBar(notes()))
    if not PartialState().is_main_process:
        return
    if as_json:
        echo_json(run.results)
        return
    _show(run.results)
    lines = [
        f"\nmodel: {run.model}",
        f"next:  alter train RECIPE model_name_or_path={shlex.quote(str(run.model))} --output-dir RUN",
    ]
    console().print("\n".join(lines), markup=False, soft_wrap=True)


def _start(recipe: PretrainRecipe) -> str:
    if recipe.encoder_decoder is not None:
        return f"{recipe.encoder_decoder.encoder} and a {recipe.encoder_decoder.decoder.architecture} decoder from scratch"
    if recipe.model is not None:
        return f"{recipe.model.architecture} from scratch"
    return f"further from {recipe.model_name_or_path}"


def _show(results: dict[str, Any]) -> None:
    curve = results["curve"]
    kept = curve if len(curve) <= 12 else [*curve[:: -(-len(curve) // 11)], curve[-1]]
    rows = [[f"{step:,}", f"{seconds:,.0f}", f"{loss:.4f}", f"{bits:.4f}"] for step, seconds, loss, bits in kept]
    title = f"{results['name']}: held-out loss"
    console().print(table(title, ["step", "seconds", "nats per token", "bits per character"], rows, left=0))
    console().print(
        f"kept: step {results['best_step']:,}; {results['tokens']:,} tokens, {results['parameters']:,} parameters, "
        f"{results['trainable_parameters']:,} trained"
    )


class PretrainProgressBar:
    """An observer that draws on a console; where that is no terminal, only held-out losses are printed."""

    def __init__(self, console: Console) -> None:
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = console
        self.progress = Progress(
            TextColumn("step {task.fields[step]}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]} tokens/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self.bar: TaskID | None = None
        self.explained = False

    def started(self, *, first_step: int, max_steps: int | None, max_seconds: float | None, trainable: int, total: int) -> None:
        """Draw the bar."""
        from alter.errors import counted

        ends = [counted(max_steps, "step")] if max_steps else []
        ends += [f"{max_seconds:,.0f} seconds"] if max_seconds else []
        went_on = f", going on at step {first_step}" if first_step else ""
        line = f"{' or '.join(ends)}, {counted(total, 'parameter')}, {trainable:,} of them trained{went_on}"
        self.console.print(line, markup=False, soft_wrap=True)
        self.progress.start()
        self.bar = self.progress.add_task("", total=1.0, step=first_step, loss="-", speed="-")

    def stepped(self, step: int, share: float) -> None:
        """Move the bar."""
        if self.bar is not None:
            self.progress.update(self.bar, completed=share, step=step)

    def logged(self, report: PretrainReport) -> None:
        """Show loss and speed."""
        if self.bar is not None:
            self.progress.update(self.bar, loss=f"{report.loss:.3f}", speed=f"{report.tokens_per_second:,.0f}")

    def measured(self, found: HeldOut, *, best: bool) -> None:
        """Print a held-out loss; the first time also what the line shows."""
        if not self.explained:
            self.explained = True
            self.console.print("  (*: the best held-out loss so far)", markup=False, soft_wrap=True)
        mark = " *" if best else ""
        line = (
            f"  step {found.step:>6}  {found.seconds:>7,.0f} s  held-out loss [bold]{found.loss:.4f}[/bold]  "
            f"{found.bits_per_character:.4f} bits per character{mark}"
        )
        self.console.print(line, soft_wrap=True)

    def told(self, message: str) -> None:
        """Print a remark."""
        self.console.print(message, markup=False, soft_wrap=True)

    def closed(self) -> None:
        """Take the bar away."""
        self.progress.stop()
