"""What a comparison writes and deletes: lines of JSON, files on a disk that may be full, checkpoints that nobody needs any more."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from alter.results import finite, write_text
from alter.tensors import write_error


def drop_states(folder: Path, *, keep: bool) -> None:
    """Delete a finished run's checkpoints: optimizer states of dozens of runs fill a disk. `keep`: stage 1's best parameters stay."""
    for path in (folder / "checkpoints").glob("*"):
        if path.is_dir():
            shutil.rmtree(path)
        elif not keep:
            path.unlink()


def write_lines(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write one JSON object a line, atomically.

    Raises:
        TrainingError: the disk is full.
    """
    text = "".join(json.dumps(finite(record), ensure_ascii=False) + "\n" for record in records)
    guarded(path, lambda: write_text(text, path))


def guarded(path: Path, write: Callable[[], None]) -> None:
    """Write a file.

    Raises:
        TrainingError: the disk is full, or the folder cannot be written.
    """
    try:
        write()
    except OSError as error:
        raise write_error(error, path) from error
