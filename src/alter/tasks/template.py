"""Render a row into a model's input with a sandboxed Jinja template.

A recipe may come from someone else, so a template can print columns and nothing more: no attribute with an underscore, no change
of a value, no loader. A template that names a column which the row lacks is an error, never an empty text.
"""

from __future__ import annotations

import datetime
import functools
import numbers
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alter.errors import ConfigError, DataError, did_you_mean

MAX_CHARACTERS = 1_000_000


def _printable(value: Any) -> Any:
    """Print a null as nothing, and refuse what would only print as Python's notation (a list, a function)."""
    if value is None:
        return ""
    if isinstance(value, str | numbers.Number | datetime.date | datetime.time | datetime.timedelta | jinja2.Undefined):
        return value
    raise _NotText(f"prints a {type(value).__name__}, which is no text; join a list with {{{{ column | join(' ') }}}}")


class _NotText(Exception):
    """A template prints a value that is no text."""


class _TooLong(Exception):
    """A template makes a text, or a number, out of all proportion to a row."""


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which no short expression (`text * 10**10`) takes the machine's memory or an hour."""

    intercepted_binops = frozenset(["*", "**"])

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Refuse a repetition longer than MAX_CHARACTERS, and a power with more digits than that has bits."""
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * right > MAX_CHARACTERS:
            raise _TooLong
        for value, times in ((left, right), (right, left)):
            if operator == "*" and isinstance(value, Sequence) and isinstance(times, int) and len(value) * times > MAX_CHARACTERS:
                raise _TooLong
        return super().call_binop(context, operator, left, right)


_ENVIRONMENT = _Environment(undefined=jinja2.StrictUndefined, autoescape=False, finalize=_printable)


@functools.lru_cache(maxsize=4096)
def _compiled(template: str) -> tuple[jinja2.Template, frozenset[str]]:
    return _ENVIRONMENT.from_string(template), frozenset(meta.find_undeclared_variables(_ENVIRONMENT.parse(template)))


def check_template(template: str, *, where: str = "template") -> frozenset[str]:
    """Compile a template (once per text) and return the columns it reads.

    Args:
        template: Jinja text, e.g. `{{ title }}: {{ text }}`.
        where: what the template is, for messages.

    Raises:
        ConfigError: it is not valid Jinja; the message has the template and the line.
    """
    try:
        return _compiled(template)[1]
    except jinja2.TemplateSyntaxError as error:
        message = f"{where}: {template!r} is not a valid template, line {error.lineno}: {error.message}"
        raise ConfigError(f"{message}; write a column as {{{{ text }}}} and see the Jinja manual for more") from None


def render(template: str, values: Mapping[str, Any], *, where: str = "template") -> str:
    """Render a template over a row's columns; a null prints as nothing.

    Raises:
        ConfigError: the template is not valid.
        DataError: it reads a column that the row lacks, prints something that is no text or too long, or leaves the sandbox.
    """
    check_template(template, where=where)
    try:
        return _joined(_compiled(template)[0].generate(dict(values)))
    except SecurityError as error:
        raise DataError(f"{where}: {template!r} is not safe: {error}; a template may only print columns") from None
    except jinja2.UndefinedError as error:
        named = re.fullmatch(r"'(.+)' is undefined", str(error))
        column = None if named is None else named[1]
        raise DataError(f"{where}: {_explain_undefined(str(error), column, template, values)}", missing=column) from None
    except _NotText as error:
        raise DataError(f"{where}: {template!r} {error}") from None
    except (_TooLong, MemoryError, OverflowError):
        raise DataError(
            f"{where}: {template!r} makes a text of more than {MAX_CHARACTERS:,} characters, or a number out of all proportion; "
            f"at most {MAX_CHARACTERS:,} characters are allowed: mend the template, or shorten the row"
        ) from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A template's expressions can fail in any of these ways, e.g. {{ text + 1 }}.
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{where}: {template!r} cannot be rendered ({what}); mend the template") from None


def _joined(pieces: Iterable[str]) -> str:
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MAX_CHARACTERS:
            raise _TooLong
        kept.append(piece)
    return "".join(kept)


def _explain_undefined(message: str, column: str | None, template: str, values: Mapping[str, Any]) -> str:
    if column is None:
        return f"{template!r} cannot be rendered: {message}; the row's columns: {', '.join(sorted(values))}"
    remedy = f"{did_you_mean(column, values)} Mend the template, or map it under `columns`"
    return f"{template!r} reads the column '{column}', which the row does not have; {remedy}"
