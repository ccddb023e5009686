"""How a failure looks: a message for people, or one JSON object for machines."""

from __future__ import annotations

import json
import sys

from alter.errors import AlterError


def show_failure(error: AlterError, *, as_json: bool) -> int:
    """Print an error on standard error and return the exit code."""
    if as_json:
        print(json.dumps({"error": type(error).__name__, "message": str(error)}, ensure_ascii=False), file=sys.stderr)
    else:
        print(f"error: {error}", file=sys.stderr)
    return error.exit_code
