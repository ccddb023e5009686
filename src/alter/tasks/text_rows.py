"""Rows of text files, each with its line: JSON lines, lists of JSON objects, delimited columns.

A reader yields rows and, where a row is bad but the next one can still be read, errors; what ends a file is raised.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from alter.errors import DataError

NUM_AROUND = 30
"""Characters of a line that are shown before a fault in it, and behind."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row as the file has it.

    Attributes:
        values: column -> value.
        place: `file:line` of the row's first line, for messages.
    """

    values: dict[str, Any]
    place: str


Item = Row | DataError


def decode(line: bytes, path: Path, number: int) -> str:
    """Return a line as text.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        # Spreadsheet programs write a byte order mark at the start of a file.
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}:{number}: not UTF-8 text ({error.reason} at byte {error.start} of the line); save the file as UTF-8"
        raise DataError(message) from None


def _bad_json(place: str, error: ValueError | RecursionError, line: str = "", column: int | None = None) -> DataError:
    what = str(error)
    if isinstance(error, json.JSONDecodeError):
        what = error.msg.removesuffix(" at").removesuffix(" starting")
    where = "" if column is None else f" at column {column}"
    near = "" if column is None else f", {_around(line, column)}"
    return DataError(f'{place}: not valid JSON{where} ({what}){near}; each row must be one JSON object such as {{"text": "..."}}')


def _around(line: str, column: int) -> str:
    """Return the text before and behind a fault, as far as it says where to look."""
    line = line.rstrip("\r\n")
    before, behind = line[: column - 1], line[column - 1 :]
    before = before if len(before) <= NUM_AROUND else f"...{before[-NUM_AROUND:]}"
    behind = behind if len(behind) <= NUM_AROUND else f"{behind[:NUM_AROUND]}..."
    if not before:
        return f"before {behind!r}" if behind else "where the text ends"
    return f"after {before!r}" + (f" and before {behind!r}" if behind else ", where the line ends")


def _object_row(value: object, place: str) -> Item:
    if isinstance(value, dict):
        return Row(value, place)
    shown = json.dumps(value)
    cut = shown if len(shown) <= 60 else f"{shown[:57]}..."
    kind = type(value).__name__
    return DataError(f'{place}: a row must be a JSON object such as {{"text": "..."}}, and this is a {kind}: {cut}')


def read_jsonl(stream: IO[bytes], path: Path) -> Iterator[Item]:
    """Yield the objects of a file of one JSON object a line."""
    for number, line in enumerate(stream, start=1):
        place = f"{path}:{number}"
        try:
            # A fault at the end of a line has its column there, and not in the next line.
            text = decode(line, path, number).rstrip("\r\n")
            if text.strip():
                yield _object_row(json.loads(text), place)
        except DataError as error:
            yield error
        except (ValueError, RecursionError) as error:
            yield _bad_json(place, error, text, error.colno if isinstance(error, json.JSONDecodeError) else None)


def read_json(stream: IO[bytes], path: Path) -> Iterator[Item]:
    """Decode the list element by element: only so does each row have a line."""
    text = "".join(decode(line, path, number) for number, line in enumerate(stream, start=1))
    if not text.strip():
        return
    walk = _JsonWalk(text, path)
    if walk.peek() != "[":
        remedy = "put it in [ ], or use the ending .jsonl for one object per line"
        raise DataError(f"{walk.place()}: a .json file must hold a list of objects; this starts with {walk.peek()!r}; {remedy}")
    walk.position += 1
    while walk.peek() != "]":
        place = walk.place()
        yield _object_row(walk.value(), place)
        if walk.peek() == ",":
            walk.position += 1
            if walk.peek() == "]":
                raise walk.error("a comma before the closing ']'")
        elif walk.peek() != "]":
            raise walk.error("expected ',' or ']'")
    walk.position += 1
    if walk.peek():
        raise walk.error("text after the closing ']'")


class _JsonWalk:
    """A position in JSON text that knows its line."""

    def __init__(self, text: str, path: Path) -> None:
        self.text = text
        self.path = path
        self.position = 0
        self._counted = 0
        self._line = 1

    def peek(self) -> str:
        """Skip white space; return the next character, or nothing at the end."""
        while self.position < len(self.text) and self.text[self.position] in " \t\r\n":
            self.position += 1
        return self.text[self.position : self.position + 1]

    def place(self) -> str:
        """Return `file:line` of the position."""
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return f"{self.path}:{self._line}"

    def value(self) -> object:
        """Decode one value and step behind it."""
        self.peek()
        try:
            value, self.position = json.JSONDecoder().raw_decode(self.text, self.position)
        except (ValueError, RecursionError) as error:
            self.position = error.pos if isinstance(error, json.JSONDecodeError) else self.position
            raise self.error(error) from None
        return value

    def error(self, error: ValueError | RecursionError | str) -> DataError:
        """Return the complaint about the position."""
        start = self.text.rfind("\n", 0, self.position) + 1
        line = self.text[start:].partition("\n")[0]
        return _bad_json(self.place(), ValueError(error) if isinstance(error, str) else error, line, self.position - start + 1)


def read_csv(stream: IO[bytes], path: Path) -> Iterator[Item]:
    """Yield the records of a file of comma-separated columns below a header."""
    return _read_delimited(stream, path, dialect="excel")


def read_tsv(stream: IO[bytes], path: Path) -> Iterator[Item]:
    """Yield the records of a file of columns parted by tabs."""
    return _read_delimited(stream, path, dialect="excel-tab")


def _read_delimited(stream: IO[bytes], path: Path, *, dialect: str) -> Iterator[Item]:
    lines = (decode(line, path, number) for number, line in enumerate(stream, start=1))
    # strict: a stray quote is an error instead of several rows glued into one.
    records = _records(csv.reader(lines, dialect=dialect, strict=True), path)
    header: list[str] | None = None
    for item in records:
        if isinstance(item, DataError):
            yield item
            if header is None:
                return
            continue
        number, record = item
        place = f"{path}:{number}"
        if header is None:
            header = checked_header(record, place)
        elif len(record) == len(header):
            yield Row(dict(zip(header, record, strict=True)), place)
        else:
            yield _wrong_width(record, header, place)


def _records(reader: Any, path: Path) -> Iterator[tuple[int, list[str]] | DataError]:
    """Yield (first line, fields) of each record that is not blank."""
    while True:
        number = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            remedy = 'write a quote inside a field twice (""), close every quote, or save the file as .jsonl'
            yield DataError(f"{path}:{number}: not a valid row ({error}); {remedy}")
            if "field limit" in str(error):
                # The reader stands inside an unclosed quote; what follows would be nonsense.
                return
            continue
        if record:
            yield number, record


def checked_header(header: list[str], place: str) -> list[str]:
    """Return the names of a file's columns.

    Raises:
        DataError: two columns have one name.
    """
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{place}: the header names {twice} more than once; give each column its own name (seen: {header})")
    return header


def _wrong_width(record: list[str], header: list[str], place: str) -> DataError:
    few_or_many = "few" if len(record) < len(header) else "many"
    columns = ", ".join(header)
    return DataError(
        f"{place}: too {few_or_many} columns: {len(record)}, and the header has {len(header)} ({columns}); "
        f"quote fields that hold the delimiter or a line break"
    )
