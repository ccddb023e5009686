"""Read rows from files and from the Hugging Face hub, each with its place.

    .jsonl .json .csv .tsv .parquet, each also .gz -> `read_rows`      -> Row(values, "file:line")
    name or name:config on the hub                 -> `read_hub_rows`  -> Row(values, "name:config/split:row")

A reader yields rows and, where a row is bad but the next one can still be read, errors; what ends a file is raised. So one
caller stops at the first problem and another (validation) hears of every one. Parquet files and the hub have no lines: there the
rows are counted from 1.
"""

from __future__ import annotations

import difflib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from alter.errors import DataError, did_you_mean
from alter.tasks.text_rows import Item, Row, checked_header, read_csv, read_json, read_jsonl, read_tsv

__all__ = ["OnProblem", "Row", "hub_splits", "read_hub_rows", "read_rows"]

OnProblem = Callable[[DataError], None]


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
        checked_header(list(file.schema_arrow.names), str(path))
        for batch in file.iter_batches(batch_size=1024):
            for values in batch.to_pylist():
                number += 1
                yield Row(values, f"{path}:{number}")
    except (pa.ArrowException, ValueError, OSError) as error:
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a whole parquet file, after row {number} ({what}); write or copy it again") from None


_READERS: dict[str, Callable[[IO[bytes], Path], Iterator[Item]]] = {
    ".jsonl": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
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
