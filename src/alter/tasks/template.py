"""Render a row into a model's input with a sandboxed Jinja template.

A recipe may come from someone else, so a template can print columns and nothing more: no attribute with an underscore, no change
of a value, no loader. A template that names a column which the row lacks is an error, never an empty text.
"""

from __future__ import annotations

import datetime
import functools
import numbers
import re
from collections.abc import Mapping
from typing import Any

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alter.errors import ConfigError, DataError, did_you_mean


def _printable(value: Any) -> Any:
    """Print a null as nothing, and refuse what would only print as Python's notation (a list, a function)."""
    if value is None:
        return ""
    if isinstance(value, str | numbers.Number | datetime.date | datetime.time | datetime.timedelta | jinja2.Undefined):
        return value
    raise _NotText(f"prints a {type(value).__name__}, which is no text; join a list with {{{{ column | join(' ') }}}}")


class _NotText(Exception):
    """A template prints a value that is no text."""


_ENVIRONMENT = ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, autoescape=False, finalize=_printable)


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
        DataError: it reads a column that the row lacks, prints something that is no text, or leaves the sandbox.
    """
    check_template(template, where=where)
    try:
        return _compiled(template)[0].render(dict(values))
    except SecurityError as error:
        raise DataError(f"{where}: {template!r} is not safe: {error}; a template may only print columns") from None
    except jinja2.UndefinedError as error:
        raise DataError(f"{where}: {_explain_undefined(str(error), template, values)}") from None
    except _NotText as error:
        raise DataError(f"{where}: {template!r} {error}") from None
    except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # A template's expressions can fail in any of these ways, e.g. {{ text + 1 }}.
        what = f"{type(error).__name__}: {error}"
        raise DataError(f"{where}: {template!r} cannot be rendered ({what}); mend the template") from None


def _explain_undefined(message: str, template: str, values: Mapping[str, Any]) -> str:
    named = re.fullmatch(r"'(.+)' is undefined", message)
    if named is None:
        return f"{template!r} cannot be rendered: {message}; the row's columns: {', '.join(sorted(values))}"
    remedy = f"{did_you_mean(named[1], values)} Mend the template, or map it under `columns`"
    return f"{template!r} reads the column '{named[1]}', which the row does not have; {remedy}"
