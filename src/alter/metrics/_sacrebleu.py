"""References in the order in which sacrebleu reads them."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any


def streams(references: list[list[str]]) -> Any:
    """Return the first references of all rows, then the second ones, ...; None where a row has fewer."""
    return [list(stream) for stream in zip_longest(*references)]
