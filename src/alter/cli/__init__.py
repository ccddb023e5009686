"""The command line: one file per verb. Nothing here loads torch before a verb needs it, so `--help` answers at once."""

from __future__ import annotations

import sys

import typer

from alter.cli.failure import show_failure
from alter.errors import AlterError

app = typer.Typer(
    name="alter",
    help="Turn one small language model into one multi-task learner with Mixture-of-Task-Adapters.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(value: bool) -> None:
    if value:
        from alter import __version__

        typer.echo(f"alter {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    """Turn one small language model into one multi-task learner with Mixture-of-Task-Adapters."""


def _register() -> None:
    from alter.cli import demo, evaluate, list_, predict, train, validate

    app.command("train")(train.train)
    app.command("evaluate")(evaluate.evaluate)
    app.command("predict")(predict.predict)
    app.command("validate")(validate.validate)
    app.command("list")(list_.list_)
    app.command("demo")(demo.demo)


_register()


def main() -> None:
    """Run the command line; a mistake that a user can mend is one message on standard error and exit code 2."""
    try:
        app()
    except AlterError as error:
        sys.exit(show_failure(error, as_json="--json" in sys.argv))
    except KeyboardInterrupt:
        print("\nstopped; a training run goes on where it was with --resume", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of our output has gone, as in `alter list | head`
        sys.stderr.close()
        sys.exit(0)
