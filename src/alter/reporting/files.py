"""Files that a report is made from: read strictly, and remembered, so that the report can name them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import pydantic

from alter.errors import CheckpointError

M = TypeVar("M", bound=pydantic.BaseModel)


class Line(pydantic.BaseModel):
    """Base of what a line or file holds: keys that a report does not read are left alone, for later versions may add some."""

    model_config = pydantic.ConfigDict(extra="ignore", frozen=True)


@dataclass(frozen=True, kw_only=True)
class FileRead:
    """A file that was read."""

    path: Path
    size: int


@dataclass
class Files:
    """Reads files, and keeps which."""

    read: list[FileRead] = field(default_factory=list)

    def note(self, path: Path) -> None:
        """Remember a file that somebody else reads."""
        if path.is_file():
            self.read.append(FileRead(path=path, size=path.stat().st_size))

    def text(self, path: Path) -> str | None:
        """Return a file's text; None where there is no such file.

        Raises:
            CheckpointError: it cannot be read.
        """
        try:
            found = path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({error.strerror}); make it readable for you") from None
        except UnicodeDecodeError as error:
            raise CheckpointError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); {_AGAIN}") from None
        self.note(path)
        return found

    def lines(self, path: Path, kind: type[M]) -> list[M] | None:
        """Return the objects of a file with one JSON object a line; None where there is no such file.

        Raises:
            CheckpointError: a line is no such object.
        """
        text = self.text(path)
        if text is None:
            return None
        found = []
        # Not splitlines: it also breaks at signs that JSON leaves as they are inside a text.
        for position, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                try:
                    found.append(kind.model_validate_json(line))
                except pydantic.ValidationError as error:
                    raise CheckpointError(f"{path}:{position}: {_first(error)}; {_AGAIN}") from None
        return found

    def parsed(self, path: Path, kind: type[M]) -> M | None:
        """Return a JSON file as an object; None where there is no such file.

        Raises:
            CheckpointError: it cannot be read, or does not hold what it should.
        """
        text = self.text(path)
        try:
            return None if text is None else kind.model_validate_json(text)
        except pydantic.ValidationError as error:
            raise CheckpointError(f"{path}: {_first(error)}; {_AGAIN}") from None


_AGAIN = "the file is damaged or not of alter: copy it again, or move it away and the report does without it"


def _first(error: pydantic.ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, problem["loc"]))
    return f"{where}: {problem['msg']}" if where else str(problem["msg"])
