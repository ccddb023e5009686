"""metrics.jsonl: one line per log step and per validation, readable while training goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from alter.results import finite
from alter.tensors import write_error


class Journal:
    """An append-only file of JSON lines that a resumed run cuts back to where its checkpoint was.

    Args:
        path: the file.
        size: its length in bytes to go on from; 0 starts afresh.

    Raises:
        TrainingError: the disk is full, or the file cannot be written; so do the methods.
    """

    def __init__(self, path: Path, *, size: int = 0) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as stream:
                stream.truncate(min(size, stream.tell()))
        except OSError as error:
            raise write_error(error, path) from error

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line; a number that is not finite becomes null."""
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(finite(line), ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise write_error(error, self.path) from error

    def size(self) -> int:
        """Return the file's length in bytes, after everything written is on disk."""
        try:
            with self.path.open("ab") as stream:
                os.fsync(stream.fileno())
                return stream.tell()
        except OSError as error:
            raise write_error(error, self.path) from error
