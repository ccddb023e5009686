"""The command line: one file per verb. Nothing here loads torch before a verb needs it, so `--help` answers at once."""

from __future__ import annotations

import sys

import typer

from alter.cli.failure import show_failure, show_usage_failure
from alter.errors import AlterError

# Newer versions of typer carry their own copy of click, so the root of usage errors is found through a class that all export.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
INTERRUPTED = 130

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
        from alter.version import __version__

        typer.echo(f"alter {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version and exit."),
) -> None:
    """Turn one small language model into one multi-task learner with Mixture-of-Task-Adapters."""


def _register() -> None:
    from alter.cli import compare, demo, evaluate, extract, list_, merge, predict, pretrain, report, train, validate

    app.command("train")(train.train)
    app.command("compare")(compare.compare)
    app.command("report")(report.report)
    app.command("pretrain")(pretrain.pretrain)
    app.command("evaluate")(evaluate.evaluate)
    app.command("predict")(predict.predict)
    app.command("merge")(merge.merge)
    app.command("extract")(extract.extract)
    app.command("validate")(validate.validate)
    app.command("list")(list_.list_)
    app.command("demo")(demo.demo)


_register()


def main() -> None:
    """Run the command line; a mistake that a user can mend is one message on standard error and exit code 2."""
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False, prog_name="alter")
    except AlterError as error:
        code = show_failure(error, as_json=as_json)
    except typer.Abort:  # what Ctrl-C is in some versions of typer; in others it is the exit code
        code = INTERRUPTED
    except _UsageError as error:
        code = show_usage_failure(error, as_json=as_json)
    if code == INTERRUPTED:
        print("\nstopped; a training run goes on from its last checkpoint: the same command with --resume", file=sys.stderr)
    sys.exit(code)
