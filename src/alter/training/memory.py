"""Peak memory of a piece of work: of the accelerator where there is one, else of the whole process (Linux)."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path

import torch

_CLEAR = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def reset_peak_memory(device: torch.device) -> None:
    """Begin to measure anew; where the system does not allow it, the peak since the process began is what will be told."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    # What an earlier model left is free, but glibc keeps it, and it would count as this one's.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        _CLEAR.write_text("5", encoding="ascii")  # proc(5): resets the peak resident set size


def peak_memory(device: torch.device) -> int | None:
    """Return the most bytes in use since `reset_peak_memory`: tensors on a CUDA device, else the process' resident memory.

    None where the system does not tell (neither CUDA nor Linux).
    """
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(encoding="ascii"), flags=re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None
