"""transformers' remarks, silenced: those that matter are errors of ours."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as transformers_logging


def first_line(error: BaseException) -> str:
    """Return the first line of an error, to put into a message of ours."""
    return (str(error).strip() or type(error).__name__).split("\n", 1)[0].rstrip(".")


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
