"""Blocks of one length out of documents of any: what does not fill a block is joined by the next document.

Attention goes across the documents of a block, as usual in T5's and GPT's pretraining; only the separator tells them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from alter.config import Settings
from alter.errors import DataError
from alter.pretraining.text import Documents

DOCUMENTS_AT_ONCE = 64
CHARACTERS_AT_ONCE = 400_000
"""Documents are cut into units together, which the tokenizer does faster than one by one."""

Units = Sequence[Any]


class Cutter(Protocol):
    """Cuts documents into the units that blocks are made of: tokens or words."""

    length: int
    """Room in a block."""

    def cut(self, documents: list[str]) -> list[Units]:
        """Return each document's units, with whatever separates it from the next; each by itself, whatever else is in the list."""

    def fits(self, units: Units, start: int, room: int) -> tuple[int, int]:
        """Return how many units from `start` fit into `room`, and the room they take."""


class Cursor(Settings):
    """Where a block begins: the stream can be picked up here."""

    epoch: int = 0
    """Passes over the text that are over."""
    document: int = 0
    """Documents of this pass that are over."""
    offset: int = 0
    """Units of this document that are over."""


@dataclass(frozen=True)
class Block:
    """Units to learn from, and where the next block begins."""

    units: list[Any]
    next: Cursor


def blocks_of(documents: Documents, cutter: Cutter, *, start: Cursor) -> Iterator[Block]:
    """Yield blocks without end, epoch after epoch.

    Raises:
        DataError: the files hold no text.
    """
    held: list[Any] = []
    room = cutter.length
    for epoch in itertools.count(start.epoch):
        skip = start.document if epoch == start.epoch else 0
        empty = epoch != start.epoch or (start.document, start.offset) == (0, 0)
        for document, units in _cut(documents, cutter, epoch, skip):
            offset = start.offset if epoch == start.epoch and document == start.document else 0
            while offset < len(units):
                empty = False
                count, taken = cutter.fits(units, offset, room)
                held.extend(units[offset : offset + count])
                offset, room = offset + count, room - taken
                if room == 0 or count == 0:
                    yield Block(held, Cursor(epoch=epoch, document=document, offset=offset))
                    held, room = [], cutter.length
        if empty:
            raise DataError(f"{', '.join(str(path) for path in documents.files[:3])}: there is no text in it; check source")


def first_blocks(documents: Documents, cutter: Cutter, *, count: int) -> list[list[Any]]:
    """Return up to `count` blocks of one epoch, the last of which may be shorter where the text ends.

    Raises:
        DataError: the files hold no text.
    """
    found: list[list[Any]] = []
    held: list[Any] = []
    room = cutter.length
    for _, units in _cut(documents, cutter, 0, 0):
        offset = 0
        while offset < len(units):
            fit, taken = cutter.fits(units, offset, room)
            held.extend(units[offset : offset + fit])
            offset, room = offset + fit, room - taken
            if room == 0 or fit == 0:
                found.append(held)
                held, room = [], cutter.length
                if len(found) == count:
                    return found
    if held:
        found.append(held)
    if not found:
        raise DataError(f"{', '.join(str(path) for path in documents.files[:3])}: there is no text in it; check source")
    return found


def _cut(documents: Documents, cutter: Cutter, epoch: int, skip: int) -> Iterator[tuple[int, Units]]:
    """Yield (number of the document, its units)."""
    number = skip
    held: list[str] = []
    characters = 0
    for document in documents.epoch(epoch, skip=skip):
        held.append(document)
        characters += len(document)
        if len(held) == DOCUMENTS_AT_ONCE or characters >= CHARACTERS_AT_ONCE:
            yield from enumerate(cutter.cut(held), start=number)
            number, characters, held = number + len(held), 0, []
    yield from enumerate(cutter.cut(held) if held else [], start=number)
