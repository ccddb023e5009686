"""Share of rows whose number equals the reference's: arithmetic, with or without a worked solution.

The number of a text is the first one after `####` where that mark is present (GSM8K's convention), else the last one. So a
solution with its steps is compared by its result alone. Read as numbers: -47, 27,200, $18, 50% (the signs are dropped: 50), 1.83333,
.5, 1.2e+06, 25/3; a full stop after them is none of theirs. 9:4 and 3:30 are one value of two numbers. A reference of nothing but
several numbers between semicolons, `24; 32`, wants that many of the prediction, in this order.

Two numbers are equal where they differ by at most 1e-4, absolute or relative to the larger one, since data sets round (MAWPS
writes 11/6 as 1.83333); two whole numbers only where they are the same. A reference without a number (`They are equal`) is matched
by the same text, case and white space aside. A row matches if any of its references does. `labels` does not change it.
"""

from __future__ import annotations

import math
import re

from alter.metrics._checks import References, Values, check_texts

KIND = "generation"

TOLERANCE = 1e-4

_NUMBER = r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"
_VALUE = rf"{_NUMBER}(?: ?/ ?{_NUMBER})?"
# A minus after a digit, a letter or a bracket subtracts: 48-24 holds 48 and 24.
_SIGN = r"(?:(?<![\w)%])[-\u2212])?[$€£¥]?"
_FOUND = re.compile(rf"({_SIGN})({_VALUE}(?::{_VALUE})*)", re.ASCII)
_LISTED = re.compile(rf"\s*{_FOUND.pattern}(?:\s*;\s*{_FOUND.pattern})+\s*", re.ASCII)

Number = tuple[float, ...]


def compute(predictions: Values, references: References, *, labels: Values | None = None) -> float:
    """Return the share of rows with the right number, 0 to 1.

    Raises:
        TaskError: the rows do not fit together, or are not text.
    """
    texts, several = check_texts("numeric_match", predictions, references)
    return sum(any(_matches(text, true) for true in right) for text, right in zip(texts, several, strict=True)) / len(texts)


def _matches(predicted: str, true: str) -> bool:
    if predicted.lower().split() == true.lower().split():
        return True
    count = true.count(";") + 1 if _LISTED.fullmatch(true) else 1
    wanted, given = _numbers(true, count), _numbers(predicted, count)
    return bool(wanted) and len(given) == len(wanted) and all(map(_equal, given, wanted))


def _numbers(text: str, count: int) -> list[Number]:
    """Return the first `count` numbers after `####`, or the last ones where there is no such mark."""
    _, mark, answer = text.partition("####")
    found = _FOUND.findall(answer if mark else text)
    return [_read(sign, value) for sign, value in (found[:count] if mark else found[-count:])]


def _read(sign: str, value: str) -> Number:
    minus = -1.0 if sign[:1] in ("-", "\u2212") else 1.0
    first, *rest = (_divide(*part.replace(",", "").split("/")) for part in value.split(":"))
    return (minus * first, *rest)


def _divide(above: str, below: str = "1") -> float:
    return float(above) / float(below) if float(below) else math.nan  # a division by zero equals nothing


def _equal(one: Number, other: Number) -> bool:
    return len(one) == len(other) and all(map(_close, one, other))


def _close(one: float, other: float) -> bool:
    if one.is_integer() and other.is_integer():
        return one == other
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
