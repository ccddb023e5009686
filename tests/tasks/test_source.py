"""Rows are read with their place, and every broken file says what to do about it."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alter.errors import DataError
from alter.tasks.source import Row, hub_splits, read_hub_rows, read_rows

ROWS = [
    {"text": 'one, "two"', "label": "a"},
    {"text": "line\nbreak", "label": "b"},
    {"text": "Z\u00fcrich \u2028 end", "label": "a"},
]


def as_jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def as_json(rows: list[dict[str, Any]]) -> bytes:
    return json.dumps(rows, indent=2).encode()


def as_delimited(delimiter: str) -> Callable[[list[dict[str, Any]]], bytes]:
    def write(rows: list[dict[str, Any]]) -> bytes:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, fieldnames=list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue().encode()

    return write


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


WRITERS = {"jsonl": as_jsonl, "json": as_json, "csv": as_delimited(","), "tsv": as_delimited("\t"), "parquet": as_parquet}
LINES = {"jsonl": [1, 2, 3], "json": [2, 6, 10], "csv": [2, 3, 5], "tsv": [2, 3, 5], "parquet": [1, 2, 3]}


def write(path: Path, content: bytes | str) -> Path:
    data = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def problem(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        list(read_rows(path))
    return str(caught.value)


def all_problems(path: Path) -> tuple[list[Row], list[str]]:
    problems: list[DataError] = []
    rows = list(read_rows(path, problems.append))
    return rows, [str(error) for error in problems]


@pytest.mark.parametrize("zipped", ["", ".gz"])
@pytest.mark.parametrize("ending", list(WRITERS))
def test_every_format_gives_the_same_rows_and_their_lines(tmp_path: Path, ending: str, zipped: str) -> None:
    path = write(tmp_path / f"rows.{ending}{zipped}", WRITERS[ending](ROWS))
    rows = list(read_rows(path))
    assert [row.values for row in rows] == ROWS
    assert [row.place for row in rows] == [f"{path}:{line}" for line in LINES[ending]]


def test_a_path_may_be_text_and_an_ending_upper_case(tmp_path: Path) -> None:
    path = write(tmp_path / "ROWS.JSONL", as_jsonl(ROWS))
    assert len(list(read_rows(str(path)))) == 3


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv"])
def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"rows.{ending}", b"\xef\xbb\xbf" + WRITERS[ending](ROWS))
    assert [row.values for row in read_rows(path)] == ROWS


def test_rows_stream(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"text": "a"}\nbroken\n')
    rows = read_rows(path)
    assert next(rows).values == {"text": "a"}
    with pytest.raises(DataError, match=r"rows\.jsonl:2: not valid JSON"):
        next(rows)


def test_a_missing_file_names_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl", "{}")
    assert problem(tmp_path / "trian.jsonl") == f"{tmp_path / 'trian.jsonl'}: no such file; did you mean 'train.jsonl'?"
    assert problem(tmp_path / "zzz.csv") == f"{tmp_path / 'zzz.csv'}: no such file; files in its folder: train.jsonl"
    assert "its folder" in problem(tmp_path / "no" / "a.csv")
    assert "relative to the recipe's folder" in problem(tmp_path / "no" / "a.csv")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    endings = ".jsonl, .json, .csv, .tsv, .parquet, each also with .gz"
    assert problem(tmp_path) == f"{tmp_path}: is a folder; give one file of rows ({endings})"


@pytest.mark.parametrize("name", ["rows.jsnol", "rows.jsnol.gz"])
def test_an_unknown_ending_names_the_nearest(tmp_path: Path, name: str) -> None:
    message = problem(write(tmp_path / name, "{}"))
    assert "unknown ending '.jsnol'; allowed: .csv, .json, .jsonl, .parquet, .tsv. Did you mean '.json" in message
    assert message.endswith("Each also with .gz")


def test_no_ending_is_an_unknown_ending(tmp_path: Path) -> None:
    assert "unknown ending ''; allowed: .csv" in problem(write(tmp_path / "rows", "{}"))
    assert "unknown ending '.gz'" in problem(write(tmp_path / "rows.gz", "{}"))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("b.jsonl", "\n \n"),
        ("c.csv", ""),
        ("d.csv", "text,label\n"),
        ("e.tsv", ""),
        ("f.json", ""),
        ("g.json", "[ ]"),
        ("h.jsonl.gz", ""),
    ],
)
def test_a_file_without_rows_is_an_error(tmp_path: Path, name: str, content: str) -> None:
    path = write(tmp_path / name, content)
    assert problem(path) == f"{path}: holds no rows; a file of rows needs at least one"


def test_a_parquet_file_without_rows_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert "holds no rows" in problem(path)


def test_bad_json_lines_are_told_with_their_column_and_the_others_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"text": "a"}\n{"text" "b"}\n\n[1, 2]\n"x"\n{"text": "c"}\n' + "[" * 100_000 + "\n")
    rows, problems = all_problems(path)
    assert [row.place for row in rows] == [f"{path}:1", f"{path}:6"]
    assert problems[0].startswith(
        f"{path}:2: not valid JSON at column 9 (Expecting ':' delimiter), after '{{\"text\" ' and before '\"b\"}}'; "
        f"each row must be one JSON"
    )
    assert problems[1] == f'{path}:4: a row must be a JSON object such as {{"text": "..."}}, and this is a list: [1, 2]'
    assert problems[2] == f'{path}:5: a row must be a JSON object such as {{"text": "..."}}, and this is a str: "x"'
    assert problems[3].startswith(f"{path}:7: not valid JSON")
    assert len(problems) == 4
    assert problem(path) == problems[0]


BAD_JSON: dict[str, tuple[str, str]] = {
    "at the end": (
        '{"text": "a", "label": ',
        """column 24 (Expecting value), after '{"text": "a", "label": ', where the line ends;""",
    ),
    "at the start": ("text,label", "column 1 (Expecting value), before 'text,label';"),
    "an open quote": ('{"text": "a}', """column 10 (Unterminated string), after '{"text": ' and before '"a}';"""),
    "a tab": ('{"text": "a\tb"}', "column 12 (Invalid control character), after '{\"text\": \"a' and before '\\tb\"}';"),
    "in a long line": (
        '{"text": "' + "a" * 90 + '" "label": "' + "b" * 90 + '"}',
        f"""column 103 (Expecting ',' delimiter), after '...{"a" * 28}" ' and before '"label": "{"b" * 20}...';""",
    ),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", ""])
@pytest.mark.parametrize("case", BAD_JSON)
def test_a_fault_in_a_line_of_json_is_shown_with_what_stands_around_it(tmp_path: Path, case: str, end: str) -> None:
    line, told = BAD_JSON[case]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(f'{{"text": "good"}}{end or chr(10)}{line}{end}'.encode())
    assert problem(path).startswith(f"{path}:2: not valid JSON at {told} each row must be one JSON object")


def test_a_list_that_ends_too_early_is_told_where(tmp_path: Path) -> None:
    message = problem(write(tmp_path / "rows.json", '[{"a": 1},\n'))
    assert "rows.json:2: not valid JSON at column 1 (Expecting value), where the text ends; each row" in message


def test_a_long_row_that_is_no_object_is_cut_in_the_message(tmp_path: Path) -> None:
    message = problem(write(tmp_path / "rows.jsonl", json.dumps(["word"] * 1000)))
    assert message.endswith("...")
    assert len(message) < 300


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('{"a": 1}', 1, "must hold a list of objects; this starts with '{'; put it in [ ], or use the ending .jsonl"),
        ('[\n{"a": 1},\n{"a" 2}]', 3, "not valid JSON at column 6 (Expecting ':' delimiter)"),
        ('[\n{"a": 1}\n{"a": 2}]', 3, "not valid JSON at column 1 (expected ',' or ']')"),
        ('[{"a": 1},\n]', 2, "not valid JSON at column 1 (a comma before the closing ']')"),
        ('[{"a": 1}', 1, "not valid JSON at column 10 (expected ',' or ']')"),
        ('[{"a": 1}]\n{}', 2, "not valid JSON at column 1 (text after the closing ']')"),
        ("[" * 100_000, 1, "not valid JSON at column 2"),
    ],
)
def test_a_broken_json_list_is_told_with_line_and_column(tmp_path: Path, content: str, line: int, what: str) -> None:
    path = write(tmp_path / "rows.json", content)
    message = problem(path)
    assert message.startswith(f"{path}:{line}: ")
    assert what in message


def test_a_json_list_goes_on_after_an_element_that_is_no_object(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.json", '[{"a": 1},\n 7,\n {"a": 2}]')
    rows, problems = all_problems(path)
    assert [row.values for row in rows] == [{"a": 1}, {"a": 2}]
    assert problems == [f'{path}:2: a row must be a JSON object such as {{"text": "..."}}, and this is a int: 7']


@pytest.mark.parametrize(("ending", "delimiter"), [("csv", ","), ("tsv", "\t")])
def test_rows_of_the_wrong_width_are_told_and_the_others_are_read(tmp_path: Path, ending: str, delimiter: str) -> None:
    lines = [["text", "label"], ["a", "x"], ["b"], [], ["c", "y", "z"], ["d", "x"]]
    path = write(tmp_path / f"rows.{ending}", "\r\n".join(delimiter.join(line) for line in lines))
    rows, problems = all_problems(path)
    assert [row.values for row in rows] == [{"text": "a", "label": "x"}, {"text": "d", "label": "x"}]
    assert problems[0].startswith(f"{path}:3: too few columns: 1, and the header has 2 (text, label); quote fields")
    assert problems[1].startswith(f"{path}:5: too many columns: 3, and the header has 2 (text, label); quote fields")


def test_a_doubled_header_ends_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", "text,label,text\na,b,c\n")
    rows, problems = all_problems(path)
    assert rows == []
    assert problems == [
        f"{path}:1: the header names ['text'] more than once; give each column its own name (seen: ['text', 'label', 'text'])"
    ]


def test_stray_quotes_do_not_glue_rows_together(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.tsv", 'text\tlabel\n"Hi" she said\ta\nfine\tb\n"open\tc\nlast\td\n')
    rows, problems = all_problems(path)
    assert [row.values["text"] for row in rows] == ["fine"]
    assert problems[0].startswith(f"{path}:2: not a valid row (")
    assert problems[1].startswith(f"{path}:4: not a valid row (unexpected end of data)")
    remedy = 'write a quote inside a field twice (""), close every quote, or save the file as .jsonl'
    assert all(text.endswith(remedy) for text in problems)


def test_a_quote_left_open_for_pages_ends_the_file_once(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", 'text,label\na,b\n"' + "word word\n" * 20_000)
    rows, problems = all_problems(path)
    assert len(rows) == 1
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}:3: not a valid row (field larger than field limit")


def test_a_broken_header_ends_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.csv", '"text"x,label\na,b\n')
    rows, problems = all_problems(path)
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}:1: not a valid row")


@pytest.mark.parametrize(("ending", "num_left"), [("jsonl", 1), ("csv", 0), ("json", 0)])
def test_text_that_is_not_utf8_is_told_with_its_line(tmp_path: Path, ending: str, num_left: int) -> None:
    content = {
        "jsonl": b'{"text": "Z\xfcrich"}\n{"text": "b"}\n',
        "csv": b"te\xfcxt,label\na,b\n",
        "json": b'[{"text": "Z\xfcrich"}]',
    }[ending]
    path = write(tmp_path / f"rows.{ending}", content)
    rows, problems = all_problems(path)
    assert len(rows) == num_left
    assert len(problems) == 1
    assert problems[0].startswith(f"{path}:1: not UTF-8 text (invalid start byte at byte ")
    assert problems[0].endswith("of the line); save the file as UTF-8")


@pytest.mark.parametrize("ending", ["jsonl.gz", "csv.gz", "parquet.gz"])
def test_a_truncated_gzip_file_is_told(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    rows = [{"text": os.urandom(32).hex(), "label": str(number)} for number in range(500)]
    whole = gzip.compress(WRITERS[ending.removesuffix(".gz")](rows))
    path.write_bytes(whole[: len(whole) // 2])
    message = problem(path)
    assert message.startswith(f"{path}: not a whole gzip file (")
    assert message.endswith("copy or download it again")


def test_a_file_that_only_claims_to_be_gzip_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(b'{"text": "a"}\n')
    assert problem(path).startswith(f"{path}: not a whole gzip file (Not a gzipped file")


def test_a_corrupt_gzip_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    whole = bytearray(gzip.compress(as_jsonl([{"text": os.urandom(32).hex()} for _ in range(500)])))
    whole[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    path.write_bytes(whole)
    assert "not a whole gzip file" in all_problems(path)[1][-1]


@pytest.mark.parametrize("content", [b"no parquet at all", as_parquet(ROWS)[:-20], as_parquet(ROWS)[:4] + b"\0" * 60])
def test_a_corrupt_parquet_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "rows.parquet", content)
    message = problem(path)
    assert message.startswith(f"{path}: not a whole parquet file, after row 0 (")
    assert message.endswith("write or copy it again")


def test_parquet_with_doubled_columns_is_told(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), path)
    assert "the header names ['text'] more than once" in problem(path)


def test_parquet_of_many_batches_counts_on(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", as_parquet([{"n": number} for number in range(3000)]))
    rows = list(read_rows(path))
    assert [row.values["n"] for row in rows] == list(range(3000))
    assert rows[-1].place == f"{path}:3000"


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "rows.parquet", as_parquet(ROWS))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert problem(path) == f"{path}: reading parquet needs pyarrow; install it with: pip install 'alter-mta[data]'"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_rights_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", "{}")
    path.chmod(0)
    assert "cannot be read (Permission denied); check the path and your rights on it" in problem(path)


def test_an_operating_system_error_is_told(tmp_path: Path) -> None:
    message = problem(tmp_path / ("x" * 300 + ".jsonl"))
    assert "cannot be read (" in message or "no such file" in message


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a local data set folder as a hub id; the cache lies beside it and the network is off."""
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    for split in ("train", "test"):
        rows = [{"text": f"{split} {number}", "label": "ab"[number % 2]} for number in range(4)]
        write(folder / f"{split}.jsonl", as_jsonl(rows))
    return folder


def test_a_hub_data_set_gives_rows_and_places(hub: Path) -> None:
    assert hub_splits(str(hub)) == ["train", "test"]
    rows = list(read_hub_rows(str(hub), "test"))
    assert [row.values["text"] for row in rows] == [f"test {number}" for number in range(4)]
    assert rows[3].place == f"{hub}/test:4"


def test_class_labels_come_as_names_and_hidden_ones_as_none(hub: Path) -> None:
    (hub / "README.md").write_text(
        "---\ndataset_info:\n  features:\n  - name: text\n    dtype: string\n  - name: label\n    dtype:\n      class_label:\n"
        "        names:\n          '0': entailment\n          '1': not_entailment\n---\n"
    )
    for split in ("train", "test"):
        write(hub / f"{split}.jsonl", as_jsonl([{"text": "a", "label": label} for label in (1, 0, -1)]))
    assert [row.values["label"] for row in read_hub_rows(str(hub), "train")] == ["not_entailment", "entailment", None]


def test_a_config_is_chosen_by_name(hub: Path) -> None:
    (hub / "README.md").write_text(
        "---\nconfigs:\n- config_name: rte\n  data_files: train.jsonl\n- config_name: cola\n  data_files: test.jsonl\n---\n"
    )
    assert [row.values["text"] for row in read_hub_rows(f"{hub}:cola", "train")] == [f"test {number}" for number in range(4)]
    with pytest.raises(DataError, match="cannot be read from the hub"):
        list(read_hub_rows(f"{hub}:no-such", "train"))


def test_an_unknown_split_names_the_known_ones(hub: Path) -> None:
    with pytest.raises(DataError) as caught:
        list(read_hub_rows(str(hub), "tset"))
    assert str(caught.value) == f"{hub}: has no split 'tset'; allowed: test, train. Did you mean 'test'?"


def test_a_data_set_that_cannot_be_reached_is_told_with_the_remedy(hub: Path) -> None:
    problems: list[DataError] = []
    assert list(read_hub_rows("no-such-owner/no-such-set:part", "train", problems.append)) == []
    message = str(problems[0])
    assert message.startswith("no-such-owner/no-such-set:part: cannot be read from the hub (")
    assert "check the id (name or name:config), the network and, for a gated data set, `hf auth login`" in message
    assert "download it and name its files under source" in message


def test_a_hub_split_without_rows_is_told(hub: Path) -> None:
    (hub / "README.md").write_text("---\nconfigs:\n- config_name: default\n  data_files: train.csv\n---\n")
    write(hub / "train.csv", "text,label\n")
    # Some versions of `datasets` refuse an empty split themselves.
    with pytest.raises(DataError, match=r"set.*(corresponds to no data|holds no rows; a split needs at least one)"):
        list(read_hub_rows(str(hub), "train"))


def test_the_hub_without_its_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        list(read_hub_rows("nyu-mll/glue:rte", "train"))
    message = "nyu-mll/glue:rte: reading from the hub needs datasets; install it with: pip install 'alter-mta[hub]'"
    assert str(caught.value) == message


def test_the_floor_of_words_loads_no_torch_and_no_optional_package() -> None:
    watched = "('torch', 'transformers', 'datasets', 'pyarrow')"
    code = f"import sys, alter.tasks.validate, alter.tasks.mixture; print([name for name in {watched} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
