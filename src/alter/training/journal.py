"""metrics.jsonl: one line per log step and per validation, readable while training goes on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path


class Journal:
    """An append-only file of JSON lines that a resumed run cuts back to where its checkpoint was.

    Args:
        path: the file.
        size: its length in bytes to go on from; 0 starts afresh.
    """

    def __init__(self, path: Path, *, size: int = 0) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as stream:
            stream.truncate(min(size, stream.tell()))

    def write(self, line: Mapping[str, object]) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    def size(self) -> int:
        """Return the file's length in bytes, after everything written is on disk."""
        with self.path.open("ab") as stream:
            os.fsync(stream.fileno())
            return stream.tell()
