"""Every error that `alter` raises on purpose, under one root.

    AlterError                 anything a user can mend; the command line prints it and exits with code 2
    |-- ConfigError            a recipe, a setting or an argument is wrong
    |-- DataError              a file of rows cannot be read or a row is wrong
    |-- TaskError              a task is unknown or its labels do not fit
    |-- PluginError            an unknown or doubly defined metric, adapter kind, gate kind or family
    |-- ModelError             the base model cannot be found, read or equipped
    |-- CheckpointError        a run directory or model directory is missing, truncated, foreign or locked
    `-- TrainingError          training cannot go on (a loss that is not a number, no disk space)

A message says what happened, where, the value seen, what is allowed, and the remedy in the user's own spelling.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AlterError(Exception):
    """Root of all errors that a user can mend."""

    exit_code = 2


class ConfigError(AlterError):
    """A recipe, a setting or an argument is wrong."""


class DataError(AlterError):
    """A file of rows cannot be read, or one of its rows is wrong.

    Args:
        message: what is wrong, where, and the remedy.
        missing: a column that the row lacks, where that is what is wrong: whoever reads the whole file knows whether others have it.
    """

    def __init__(self, message: str, *, missing: str | None = None) -> None:
        super().__init__(message)
        self.missing = missing


class TaskError(AlterError):
    """A task is unknown, or its labels do not fit its rows."""


class PluginError(AlterError):
    """A plug-in is unknown or defined twice."""


class ModelError(AlterError):
    """The base model cannot be found, read or equipped."""


class CheckpointError(AlterError):
    """A run directory or model directory is missing, truncated, foreign or in use."""


class TrainingError(AlterError):
    """Training cannot go on."""


def did_you_mean(name: str, allowed: Iterable[str]) -> str:
    """Return e.g. `allowed: a, b. Did you mean 'a'?` for an unknown `name`, to end a message with; no hint where none is near."""
    options = sorted(str(option) for option in allowed)
    listed = ", ".join(options[:40]) + (", ..." if len(options) > 40 else "")
    # Capital letters are no distance; of options that differ in them alone, the spelling nearest to `name` is meant.
    folded = difflib.get_close_matches(str(name).lower(), [option.lower() for option in options], n=1, cutoff=0.5)
    alike = [option for option in options if option.lower() in folded]
    near = difflib.get_close_matches(str(name), alike, n=1, cutoff=0.0)
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return f"allowed: {listed or 'none'}.{hint}"


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return e.g. `1 row`, `1,200 rows`; `many` where the plural is not `one` with an s: `counted(2, "row names", "rows name")`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
