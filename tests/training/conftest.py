"""Makes the many short runs of these tests cheap, without changing what they do."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
from collections.abc import Iterator

import pytest

import alter.training.run  # noqa: F401 - loaded before its objects are frozen


@pytest.fixture(scope="package", autouse=True)
def quick_runs() -> Iterator[None]:
    """Let the garbage collector pass over the imported libraries, and read the installed packages' entry points once."""
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "entry_points", functools.cache(importlib.metadata.entry_points))
        yield
    gc.unfreeze()
