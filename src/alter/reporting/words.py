"""Numbers and lists in words that a reader takes in at a glance."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence

from alter.comparison import Spread
from alter.reporting.blocks import Cell

NONE = "-"
PLUS_MINUS = "\u00b1"
DOTS = "\u2026"
_TURNS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
"""Signs that turn the direction of what follows, which would reach beyond the text that they stand in."""


def number(value: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """Return e.g. `75.2`, `+0.3` or, of what is no number, `-`."""
    if value is None or not math.isfinite(value):
        return NONE
    text = f"{value:{'+' if signed else ''},.{digits}f}"
    # What rounds to zero has no sign.
    return f"{0:.{digits}f}" if float(text.replace(",", "")) == 0 else text


def spread_text(spread: Spread | None, digits: int = 1, *, signed: bool = False) -> str:
    """Return a mean with its standard deviation over seeds, where there are several."""
    if spread is None:
        return NONE
    mean = number(spread.mean, digits, signed=signed)
    return mean if mean == NONE or not math.isfinite(spread.sd) else f"{mean} {PLUS_MINUS} {number(spread.sd, digits)}"


def interval_text(low: float, high: float) -> str:
    """Return e.g. `-0.6 to +1.4`; `-` where an end is no number."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return NONE
    return f"{number(low, signed=True)} to {number(high, signed=True)}"


def spread_cell(spread: Spread | None, *, is_best: bool = False, signed: bool = False) -> Cell:
    """Return a cell with a mean and its standard deviation."""
    value = None if spread is None else {"mean": plain(spread.mean), "sd": plain(spread.sd), "seeds": spread.seeds}
    return Cell(spread_text(spread, signed=signed), value, is_best)


def number_cell(value: float | None, digits: int = 1, *, signed: bool = False) -> Cell:
    """Return a cell with one number."""
    return Cell(number(value, digits, signed=signed), plain(value))


def plain(value: float | None) -> float | None:
    """Return a number, or None for what is none, which JSON can say."""
    return value if value is not None and math.isfinite(value) else None


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share of 0 to 1 as `43 %`, which no line breaks."""
    return NONE if share is None or not math.isfinite(share) else f"{number(100 * share, digits)}\u00a0%"


def scaled(value: float | None, units: Mapping[str, float]) -> str:
    """Return a size in the largest unit that it fills, with three digits."""
    if value is None or not math.isfinite(value):
        return NONE
    for unit, size in units.items():
        if value >= size:
            return f"{value / size:.3g} {unit}".strip() if value / size < 999.5 else f"{value / size:,.0f} {unit}".strip()
    return f"{value:g}"


def count_text(value: float | None) -> str:
    """Return a number of parameters: `1.12 M`."""
    return scaled(value, {"G": 1e9, "M": 1e6, "k": 1e3, "": 1})


def bytes_text(value: float | None) -> str:
    """Return a size on disk or in memory: `95.3 MB`."""
    return scaled(value, {"GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1})


def seconds_text(value: float | None) -> str:
    """Return a time: `3 min 4 s`."""
    if value is None or not math.isfinite(value):
        return NONE
    if value < 60:
        return f"{value:.3g} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def few(names: Sequence[str], *, most: int = 6) -> list[str]:
    """Return names; of many the first ones, and how many more there are."""
    return list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]


def equated(names: Sequence[str]) -> str:
    """Return `a = b` of names for one and the same thing; many are cut."""
    return " = ".join(few(names))


def listed(names: Sequence[str], *, most: int = 6) -> str:
    """Return e.g. `a, b and c`; many are cut: `a, b and 7 more`."""
    shown = few(names, most=most)
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def clean(text: str, *, most: int = 300) -> str:
    """Return a row's text fit to be shown: on one line, without signs that steer a terminal or a page, cut after `most` signs."""
    # What is cut away need not be looked at.
    kept = text[: 4 * most]
    visible = "".join(" " if unicodedata.category(sign) in ("Cc", "Zl", "Zp") or sign in _TURNS else sign for sign in kept)
    line = " ".join(visible.split())
    return line if len(line) <= most else line[: most - 1].rstrip() + DOTS


def stage_name(stage: str) -> str:
    """Return `stage 1` for `stage1`."""
    return f"stage {stage[5:]}" if stage.startswith("stage") and stage[5:].isdecimal() else stage


def capital(text: str) -> str:
    """Return `text` with its first letter large, as a sentence or a heading begins."""
    return text[:1].upper() + text[1:]
