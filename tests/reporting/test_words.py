from __future__ import annotations

import math

import pytest

from alter.comparison import Spread
from alter.reporting.words import (
    bytes_text,
    clean,
    count_text,
    listed,
    number,
    percent,
    seconds_text,
    spread_text,
    stage_name,
)


@pytest.mark.parametrize(
    ("value", "shown"), [(75.25, "75.2"), (-0.04, "0.0"), (1234.0, "1,234.0"), (None, "-"), (math.nan, "-"), (math.inf, "-")]
)
def test_numbers(value: float | None, shown: str) -> None:
    assert number(value) == shown


def test_a_sign_is_shown_where_it_is_asked_for_and_never_before_zero() -> None:
    assert [number(value, signed=True) for value in (0.31, -0.31, 0.01, -0.01)] == ["+0.3", "-0.3", "0.0", "0.0"]


def test_a_deviation_is_shown_where_there_is_one() -> None:
    assert spread_text(Spread(mean=1.0, sd=0.25, seeds=3)) == "1.0 \u00b1 0.2"
    assert spread_text(Spread(mean=1.0, sd=math.nan, seeds=1)) == "1.0"
    assert spread_text(Spread(mean=math.nan, sd=math.nan, seeds=0)) == spread_text(None) == "-"


def test_sizes_have_units() -> None:
    assert [count_text(value) for value in (0, 7, 1_116_315, 22_700_000, 999_700, None)] == [
        "0",
        "7",
        "1.12 M",
        "22.7 M",
        "1,000 k",
        "-",
    ]
    assert [bytes_text(value) for value in (512, 95_300_000, 5.4e9)] == ["512 B", "95.3 MB", "5.4 GB"]
    assert [seconds_text(value) for value in (0.04, 59.0, 184.2, 7322.0, None)] == [
        "0.04 s",
        "59 s",
        "3 min 4 s",
        "2 h 2 min",
        "-",
    ]
    assert percent(0.431) == "43\u00a0%"
    assert percent(None) == "-"


def test_lists() -> None:
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["none", "a", "a and b", "a, b and c"]
    assert listed(list("abcdefgh"), most=4) == "a, b, c and 5 more"


def test_text_is_made_fit_to_be_shown() -> None:
    assert clean("a\tb\n c\x00\u202ed\u2028e") == "a b c d e"
    assert clean("x" * 50, most=10) == "x" * 9 + "\u2026"
    family = "\U0001f468\u200d\U0001f469"  # joined by a sign that must stay
    assert clean(family) == family


def test_stages() -> None:
    assert [stage_name(name) for name in ("stage1", "stage", "other", "")] == ["stage 1", "stage", "other", ""]
