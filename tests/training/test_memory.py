"""What a piece of work is said to have taken is its own, and not what was freed before it."""

from __future__ import annotations

import sys

import pytest
import torch

from alter.training.memory import peak_memory, reset_peak_memory

CPU = torch.device("cpu")
MB = 1_000_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of a process are read from /proc")
def test_what_was_freed_before_is_not_counted() -> None:
    reset_peak_memory(CPU)
    # Many small blocks, which malloc takes from its heap and keeps there after they are freed, with one at the end that is not.
    blocks = [bytearray(50_000) for _ in range(6_000)]
    last = bytearray(50_000)
    before = peak_memory(CPU)
    del blocks
    reset_peak_memory(CPU)
    after = peak_memory(CPU)
    assert before is not None
    assert after is not None
    assert before - after > 200 * MB, "300 MB were freed"
    assert len(last) == 50_000


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks of a process are read from /proc")
def test_what_is_taken_and_freed_meanwhile_is_counted() -> None:
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    block = torch.ones(75 * MB)  # 300 MB
    del block
    after = peak_memory(CPU)
    assert before is not None
    assert after is not None
    assert after - before > 250 * MB
