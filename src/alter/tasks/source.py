"""Read rows from files and from the Hugging Face hub, each with its place.

    .jsonl .json .csv .tsv .parquet, each also .gz -> `read_rows`      -> Row(values, "file:line")
    name or name:config on the hub                 -> `read_hub_rows`  -> Row(values, "name:config/split:row")

A reader yields rows and, where a row is bad but the next one can still be read, errors; what ends a file is raised. So one
caller stops at the first problem and another (validation) hears of every one. Parquet files and the hub have no lines: there the
rows are counted from 1.
"""

from __future__ import annotations

import csv
import difflib
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

from alter.errors import DataError, did_you_mean

OnProblem = Callable[[DataError], None]


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


def read_rows(path: str | Path, on_problem: OnProblem | None = None) -> Iterator[Row]:
    """Yield the rows of one file, in order; a file is opened when the first row is asked for.

    Args:
        path: a .jsonl, .json (list of objects), .csv, .tsv or .parquet file, each also with .gz.
        on_problem: gets every problem; reading goes on after a bad row and ends after a bad file. By default problems are raised.

    Raises:
        DataError: the file or a row is wrong, and `on_problem` is not given.
    """
    return _deliver(_file_items(Path(path)), on_problem)


def read_hub_rows(dataset_id: str, split: str, on_problem: OnProblem | None = None) -> Iterator[Row]:
    """Yield the rows of one split of a hub data set; class labels come as their names, and -1 (hidden) as None.

    Args:
        dataset_id: `name` or `name:config`, e.g. `nyu-mll/glue:rte`; a local folder works too.
        split: e.g. `train`.
        on_problem: gets every problem; by default problems are raised.

    Raises:
        DataError: `datasets` is not installed, or the data set, its config or the split cannot be read.
    """
    return _deliver(_hub_items(dataset_id, split), on_problem)


def hub_splits(dataset_id: str) -> list[str]:
    """Return the names of the splits of a hub data set.

    Raises:
        DataError: `datasets` is not installed, or the data set or its config cannot be read.
    """
    datasets = _import_datasets(dataset_id)
    name, config = _name_and_config(dataset_id)
    try:
        return [str(split) for split in datasets.get_dataset_split_names(name, config)]
    except Exception as error:
        raise _hub_error(dataset_id, error) from error


def _deliver(items: Iterator[Item], on_problem: OnProblem | None) -> Iterator[Row]:
    for item in items:
        if isinstance(item, Row):
            yield item
        elif on_problem is None:
            raise item
        else:
            on_problem(item)


def _file_items(path: Path) -> Iterator[Item]:
    """Yield a file's rows and problems; nothing is raised, so that one consumer treats all problems alike."""
    is_empty = True
    try:
        reader = _reader_for(path)
        with cast("IO[bytes]", gzip.open(path, "rb") if path.suffix.lower() == ".gz" else path.open("rb")) as stream:
            for item in reader(stream, path):
                is_empty = False
                yield item
    except DataError as error:
        yield error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        yield DataError(f"{path}: not a whole gzip file ({error}); copy or download it again")
    except OSError as error:
        yield DataError(f"{path}: cannot be read ({error.strerror or error}); check the path and your rights on it")
    else:
        if is_empty:
            yield DataError(f"{path}: holds no rows; a file of rows needs at least one")


def _reader_for(path: Path) -> Callable[[IO[bytes], Path], Iterator[Item]]:
    endings = [suffix.lower() for suffix in path.suffixes]
    ending = endings[-2] if endings[-1:] == [".gz"] and len(endings) > 1 else (endings or [""])[-1]
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give one file of rows ({', '.join(_READERS)}, each also with .gz)")
    if not path.exists():
        raise DataError(f"{path}: no such file; {_files_near(path)}")
    if ending not in _READERS:
        raise DataError(f"{path}: unknown ending '{ending}'; {did_you_mean(ending, _READERS)} Each also with .gz")
    return _READERS[ending]


def _files_near(path: Path) -> str:
    if not path.parent.is_dir():
        return f"its folder {path.parent} does not exist either; paths in a recipe are relative to the recipe's folder"
    names = sorted(file.name for file in path.parent.iterdir() if file.is_file())
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.7)
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    listed = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
    return f"files in its folder: {listed or 'none'}"


def _decode(line: bytes, path: Path, number: int) -> str:
    try:
        # Spreadsheet programs write a byte order mark at the start of a file.
        return line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        message = f"{path}:{number}: not UTF-8 text ({error.reason} at byte {error.start} of the line); save the file as UTF-8"
        raise DataError(message) from None


def _bad_json(place: str, error: ValueError | RecursionError, column: int | None = None) -> DataError:
    what = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
    where = "" if column is None else f" at column {column}"
    return DataError(f'{place}: not valid JSON{where} ({what}); each row must be one JSON object such as {{"text": "..."}}')


def _object_row(value: object, place: str) -> Item:
    if isinstance(value, dict):
        return Row(value, place)
    shown = json.dumps(value)
    cut = shown if len(shown) <= 60 else f"{shown[:57]}..."
    kind = type(value).__name__
    return DataError(f'{place}: a row must be a JSON object such as {{"text": "..."}}, and this is a {kind}: {cut}')


def _read_jsonl(stream: IO[bytes], path: Path) -> Iterator[Item]:
    for number, line in enumerate(stream, start=1):
        place = f"{path}:{number}"
        try:
            text = _decode(line, path, number)
            if text.strip():
                yield _object_row(json.loads(text), place)
        except DataError as error:
            yield error
        except (ValueError, RecursionError) as error:
            yield _bad_json(place, error, error.colno if isinstance(error, json.JSONDecodeError) else None)


def _read_json(stream: IO[bytes], path: Path) -> Iterator[Item]:
    """Decode the list element by element: only so does each row have a line."""
    text = "".join(_decode(line, path, number) for number, line in enumerate(stream, start=1))
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
        column = self.position - self.text.rfind("\n", 0, self.position)
        return _bad_json(self.place(), ValueError(error) if isinstance(error, str) else error, column)


def _read_csv(stream: IO[bytes], path: Path) -> Iterator[Item]:
    return _read_delimited(stream, path, dialect="excel")


def _read_tsv(stream: IO[bytes], path: Path) -> Iterator[Item]:
    return _read_delimited(stream, path, dialect="excel-tab")


def _read_delimited(stream: IO[bytes], path: Path, *, dialect: str) -> Iterator[Item]:
    lines = (_decode(line, path, number) for number, line in enumerate(stream, start=1))
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
            header = _checked_header(record, place)
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


def _checked_header(header: list[str], place: str) -> list[str]:
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


def _read_parquet(stream: IO[bytes], path: Path) -> Iterator[Item]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError(f"{path}: reading parquet needs pyarrow; install it with: pip install 'alter-mta[data]'") from None
    # Parquet is read from its end, which a gzip stream cannot do.
    source = io.BytesIO(stream.read()) if isinstance(stream, gzip.GzipFile) else stream
    number = 0
    try:
        file = pq.ParquetFile(source)
        _checked_header(list(file.schema_arrow.names), str(path))
        for batch in file.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{path}:{number}")
    except (pa.ArrowException, ValueError, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a whole parquet file, after row {number} ({what}); write or copy it again") from None


_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[Item]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}


def _name_and_config(dataset_id: str) -> tuple[str, str | None]:
    # A local folder may have a colon in its own name.
    if Path(dataset_id).exists():
        return dataset_id, None
    name, separator, config = dataset_id.rpartition(":")
    return (name, config) if separator else (dataset_id, None)


def _import_datasets(dataset_id: str) -> Any:
    try:
        import datasets
    except ImportError:
        message = f"{dataset_id}: reading from the hub needs datasets; install it with: pip install 'alter-mta[hub]'"
        raise DataError(message) from None
    return datasets


def _hub_items(dataset_id: str, split: str) -> Iterator[Item]:
    is_empty = True
    try:
        for item in _hub_rows(dataset_id, split):
            is_empty = False
            yield item
    except DataError as error:
        yield error
    else:
        if is_empty:
            yield DataError(f"{dataset_id}/{split}: holds no rows; a split needs at least one")


def _hub_rows(dataset_id: str, split: str) -> Iterator[Row]:
    datasets = _import_datasets(dataset_id)
    splits = hub_splits(dataset_id)
    if split not in splits:
        raise DataError(f"{dataset_id}: has no split '{split}'; {did_you_mean(split, splits)}")
    name, config = _name_and_config(dataset_id)
    try:
        rows = datasets.load_dataset(name, config, split=split)
        classes = {column: kind for column, kind in rows.features.items() if isinstance(kind, datasets.ClassLabel)}
        for number, values in enumerate(rows, start=1):
            for column, kind in classes.items():
                values[column] = None if values[column] in (None, -1) else kind.int2str(values[column])
            yield Row(values, f"{dataset_id}/{split}:{number}")
    except Exception as error:
        raise _hub_error(dataset_id, error) from error


def _hub_error(dataset_id: str, error: Exception) -> DataError:
    """Turn a failure into our error; `datasets` promises no set of exceptions (its own, OSError, its HTTP client's)."""
    what = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(
        f"{dataset_id}: cannot be read from the hub ({type(error).__name__}: {what}); check the id (name or name:config), the "
        f"network and, for a gated data set, `hf auth login`; or download it and name its files under source"
    )
