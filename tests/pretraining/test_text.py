from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from alter.errors import DataError
from alter.pretraining.text import LONGEST, Documents, Separator, digest_of, find_files, read_documents

TEXT = "\n\nfirst line\nsecond line\n\n \n\nanother äöü 漢字 🎉\n\nlast"


@pytest.mark.parametrize(
    ("separator", "expected"),
    [
        ("blank_line", ["first line\nsecond line", "another äöü 漢字 🎉", "last"]),
        ("line", ["first line", "second line", "another äöü 漢字 🎉", "last"]),
        ("file", [TEXT]),
    ],
)
@pytest.mark.parametrize("suffix", [".txt", ".txt.gz", ".txt.xz"])
def test_documents_of_plain_and_packed_files(tmp_path: Path, suffix: str, separator: Separator, expected: list[str]) -> None:
    path = tmp_path / f"text{suffix}"
    pack: Any = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
    path.write_bytes(pack(TEXT.encode()))
    assert list(read_documents(path, separator)) == expected


def test_a_mark_at_the_start_and_ends_of_lines_from_elsewhere_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffone\r\ntwo\r\n\r\nthree".encode())
    assert list(read_documents(tmp_path / "a.txt", "blank_line")) == ["one\ntwo", "three"]


@pytest.mark.parametrize("separator", ["blank_line", "line", "file"])
def test_a_document_that_never_ends_comes_in_parts_and_whole(tmp_path: Path, separator: Separator) -> None:
    text = "word " * (LONGEST // 2)
    (tmp_path / "a.txt").write_text(text, encoding="utf-8")
    parts = list(read_documents(tmp_path / "a.txt", separator))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= LONGEST


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("latin.txt", "naïve".encode("latin-1"), "not UTF-8 text"),
        ("cut.txt.gz", gzip.compress(b"text " * 9999, mtime=0)[:-20], "cannot be read"),
        ("cut.txt.xz", lzma.compress(b"text " * 9999)[:-20], "cannot be read"),
        ("no.txt.gz", b"plain text", "cannot be read"),
        ("no.txt.xz", b"plain text", "cannot be read"),
    ],
)
def test_a_file_that_is_no_text_is_an_error_with_its_name(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as told:
        list(read_documents(tmp_path / name, "line"))
    assert name in str(told.value)


def test_files_are_found_by_path_and_by_pattern_each_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt", "c.md"):
        (tmp_path / name).write_text("text", encoding="utf-8")
    found = find_files([str(tmp_path / "b.txt"), str(tmp_path / "*.txt")])
    assert [path.name for path in found] == ["b.txt", "a.txt"]


def test_files_that_are_missing_empty_or_folders_are_errors(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    for given, message in (
        ("none.txt", "no such text file"),
        ("*.gz", "no such text file"),
        ("empty.txt", "is empty"),
        (".", "folder"),
    ):
        with pytest.raises(DataError, match=message):
            find_files([str(tmp_path / given)])


def test_the_digest_tells_changed_text(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text", encoding="utf-8")
    before = digest_of([path])
    assert digest_of([path]) == before
    path.write_text("next", encoding="utf-8")
    assert digest_of([path]) != before


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    for number in range(3):
        text = "\n\n".join(f"{number} {document}" for document in range(20))
        (tmp_path / f"{number}.txt").write_text(text, encoding="utf-8")
    return sorted(tmp_path.glob("*.txt"))


@pytest.mark.parametrize("shuffle_buffer", [1, 5, 1000])
def test_every_epoch_has_every_document_once_in_an_order_of_its_own(files: list[Path], shuffle_buffer: int) -> None:
    documents = Documents(files, separator="blank_line", seed=1, shuffle_buffer=shuffle_buffer)
    first, again, second = list(documents.epoch(0)), list(documents.epoch(0)), list(documents.epoch(1))
    assert first == again
    assert (
        sorted(first) == sorted(second) == sorted(document for path in files for document in read_documents(path, "blank_line"))
    )
    assert (first == second) == (shuffle_buffer == 1)


def test_an_epoch_can_be_picked_up_anywhere(files: list[Path]) -> None:
    documents = Documents(files, separator="blank_line", seed=1, shuffle_buffer=7)
    whole = list(documents.epoch(3))
    for skip in (0, 1, 30, 60, 99):
        assert list(documents.epoch(3, skip=skip)) == whole[skip:]
