"""Documents out of plain text files, one after another: a corpus is never in memory as a whole.

files -> documents (blank line, line or file) -> shuffle buffer -> the same order for the same seed, epoch after epoch
"""

from __future__ import annotations

import glob
import gzip
import hashlib
import itertools
import lzma
import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Literal

from alter.errors import DataError

Separator = Literal["blank_line", "line", "file"]
LONGEST = 100_000
"""Characters of one document in memory; a longer one goes on as the next document."""
EDGE = 65_536
"""Bytes at either end of a file that tell it from another."""


def find_files(patterns: Sequence[str]) -> list[Path]:
    """Return the files that paths and patterns name, in their order, each once.

    Raises:
        DataError: a path or pattern names no file, or an empty one.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        matches = (
            [Path(pattern)] if Path(pattern).exists() else [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]
        )
        files = [path for path in matches if path.is_file()]
        if not files:
            what = "is a folder; name its files, e.g. with /*.txt at the end" if matches else "no such text file; check source"
            raise DataError(f"{pattern}: {what}")
        for path in files:
            if path.stat().st_size == 0:
                raise DataError(f"{path}: is empty; take it out of source, or put the text back")
            found[path] = None
    return list(found)


def digest_of(files: Sequence[Path]) -> str:
    """Return 16 hex digits of the files' sizes, beginnings and ends, so that a resumed run notices other text."""
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        with path.open("rb") as stream:
            digest.update(f"{path.name} {size}\n".encode() + stream.read(EDGE))
            stream.seek(max(0, size - EDGE))
            digest.update(stream.read(EDGE))
    return digest.hexdigest()[:16]


def read_documents(path: Path, separator: Separator) -> Iterator[str]:
    """Yield a file's documents, none of them blank.

    Raises:
        DataError: the file cannot be read, is damaged or is not UTF-8.
    """
    lines = _Lines()
    try:
        with _opened(path) as stream:
            for document in _DOCUMENTS[separator](lines.of(stream)):
                if document.strip():
                    yield document
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text ({error.reason}, after line {lines.number}); save it as UTF-8, or take it out of source"
        ) from None
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}, after line {lines.number}); copy or download it again") from None


def _opened(path: Path) -> IO[str]:
    # utf-8-sig reads UTF-8 and drops the mark that some editors put in front.
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".xz":
        return lzma.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


class _Lines:
    """Counts the lines of a file; a line without end comes in parts."""

    def __init__(self) -> None:
        self.number = 0

    def of(self, stream: IO[str]) -> Iterator[str]:
        while line := stream.readline(LONGEST):
            self.number += line.endswith("\n")
            yield line


def _by_line(lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield line.rstrip("\n")


def _by_blank_line(lines: Iterable[str]) -> Iterator[str]:
    return _joined(lines, ends_at_blank=True)


def _by_file(lines: Iterable[str]) -> Iterator[str]:
    return _joined(lines, ends_at_blank=False)


def _joined(lines: Iterable[str], *, ends_at_blank: bool) -> Iterator[str]:
    length, held = 0, list[str]()
    for line in lines:
        ended = ends_at_blank and not line.strip()
        if held and (ended or length + len(line) > LONGEST):
            yield "".join(held).rstrip("\n")
            length, held = 0, []
        if not ended:
            held.append(line)
            length += len(line)
    if held:
        yield "".join(held).rstrip("\n")


_DOCUMENTS = {"blank_line": _by_blank_line, "line": _by_line, "file": _by_file}


class Documents:
    """The documents of some files, over and over, each epoch in an order of its own.

    Args:
        files: the files; their order is shuffled too.
        separator: what ends a document.
        seed: of the order.
        shuffle_buffer: documents held to draw the next from; 1 keeps the order of files and documents.
    """

    def __init__(self, files: Sequence[Path], *, separator: Separator, seed: int, shuffle_buffer: int) -> None:
        self.files = list(files)
        self.separator: Separator = separator
        self.seed = seed
        self.shuffle_buffer = shuffle_buffer

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[str]:
        """Yield the documents of one epoch, after the first `skip` of them."""
        return itertools.islice(self._shuffled(number), skip, None)

    def _shuffled(self, number: int) -> Iterator[str]:
        chance = random.Random(f"{self.seed} {number}")
        files = list(self.files)
        if self.shuffle_buffer > 1:
            chance.shuffle(files)
        held: list[str] = []
        for path in files:
            for document in read_documents(path, self.separator):
                if len(held) < self.shuffle_buffer:
                    held.append(document)
                    continue
                position = chance.randrange(len(held))
                held[position], document = document, held[position]
                yield document
        if self.shuffle_buffer > 1:
            chance.shuffle(held)
        yield from held
