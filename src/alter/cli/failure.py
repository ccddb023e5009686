"""How a failure looks: a message for people, or one JSON object for machines."""

from __future__ import annotations

import json
import sys
from typing import Any

from alter.errors import AlterError


def show_failure(error: AlterError, *, as_json: bool) -> int:
    """Print an error on standard error and return the exit code."""
    if as_json:
        _print_json(type(error).__name__, str(error))
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def show_usage_failure(error: Any, *, as_json: bool) -> int:
    """Print a wrong option or argument on standard error and return the exit code."""
    if as_json:
        _print_json("UsageError", error.format_message())
    else:
        error.show()
    return int(error.exit_code)


def _print_json(name: str, message: str) -> None:
    print(json.dumps({"error": name, "message": message}, ensure_ascii=False), file=sys.stderr)
