"""transformers' remarks, silenced: those that matter are errors of ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


def first_line(error: BaseException) -> str:
    """Return what an error says first, on one line, to put into a message of ours."""
    lines = (str(error).strip() or type(error).__name__).split("\n")
    # Some begin with a heading that ends in a colon.
    shown = lines[:2] if lines[0].rstrip().endswith(":") else lines[:1]
    return " ".join(line.strip() for line in shown).rstrip(".")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence remarks and progress bars of transformers."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            transformers_logging.set_verbosity(logging.CRITICAL)
            transformers_logging.disable_progress_bar()
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
