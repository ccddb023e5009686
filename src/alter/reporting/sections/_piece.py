"""What a section's file gives for one part of a report: sentences that say what its numbers show, and blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alter.reporting.blocks import Block


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One part's share of a section."""

    reading: Sequence[str]
    blocks: Sequence[Block] = ()
