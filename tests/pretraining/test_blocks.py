from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from alter.errors import DataError
from alter.pretraining import blocks
from alter.pretraining.blocks import Cursor, Units, blocks_of, first_blocks
from alter.pretraining.text import Documents

END = "|"


class Letters:
    """Units are letters, each as wide as 1, but a W as 2."""

    length = 8

    def cut(self, documents: list[str]) -> list[Units]:
        return [[*document, END] for document in documents]

    def fits(self, units: Units, start: int, room: int) -> tuple[int, int]:
        taken = 0
        for count, unit in enumerate(units[start:]):
            if taken + 1 + (unit == "W") > room:
                return count, taken
            taken += 1 + (unit == "W")
        return len(units) - start, taken


def documents_of(folder: Path, *texts: str) -> Documents:
    (folder / "text.txt").write_text("\n".join(texts), encoding="utf-8")
    return Documents([folder / "text.txt"], separator="line", seed=0, shuffle_buffer=1)


def joined(documents: Documents, count: int, start: Cursor | None = None) -> list[str]:
    found = itertools.islice(blocks_of(documents, Letters(), start=start or Cursor()), count)
    return ["".join(block.units) for block in found]


def test_blocks_are_full_and_go_on_across_documents_and_epochs(tmp_path: Path) -> None:
    documents = documents_of(tmp_path, "abc", "defghijklmnopq", "rs")
    assert joined(documents, 5) == ["abc|defg", "hijklmno", "pq|rs|ab", "c|defghi", "jklmnopq"]


def test_a_wide_unit_that_does_not_fit_begins_the_next_block(tmp_path: Path) -> None:
    documents = documents_of(tmp_path, "abcdefgWWWWW")
    assert joined(documents, 3) == ["abcdefg", "WWWW", "W|abcde"]


@pytest.mark.parametrize("at_once", [1, 2, 64])
def test_the_stream_can_be_picked_up_after_every_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(blocks, "DOCUMENTS_AT_ONCE", at_once)
    documents = documents_of(tmp_path, "abc", "defghijklmnopqWW", "rs", "tuvwxyz1", "23456789")
    whole = list(itertools.islice(blocks_of(documents, Letters(), start=Cursor()), 20))
    for number, block in enumerate(whole[:-1]):
        again = next(blocks_of(documents, Letters(), start=block.next))
        assert again == whole[number + 1]


def test_the_stream_can_be_picked_up_where_its_only_document_ends(tmp_path: Path) -> None:
    documents = documents_of(tmp_path, "abcdefg")
    [block] = itertools.islice(blocks_of(documents, Letters(), start=Cursor()), 1)
    assert block.next == Cursor(epoch=0, document=0, offset=8)
    assert joined(documents, 2, start=block.next) == ["abcdefg|", "abcdefg|"]


def test_the_first_blocks_end_with_what_is_left_of_the_text(tmp_path: Path) -> None:
    documents = documents_of(tmp_path, "abc", "defghij")
    assert ["".join(block) for block in first_blocks(documents, Letters(), count=5)] == ["abc|defg", "hij|"]
    assert ["".join(block) for block in first_blocks(documents, Letters(), count=1)] == ["abc|defg"]


def test_files_without_text_are_an_error(tmp_path: Path) -> None:
    documents = documents_of(tmp_path, "  ", "", " ")
    with pytest.raises(DataError, match="no text"):
        first_blocks(documents, Letters(), count=1)
    with pytest.raises(DataError, match="no text"):
        next(blocks_of(documents, Letters(), start=Cursor()))
