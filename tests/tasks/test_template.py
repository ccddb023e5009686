"""Templates print columns, say which column is missing, and stay in their sandbox."""

from __future__ import annotations

import datetime
from decimal import Decimal

import pytest

from alter.errors import ConfigError, DataError
from alter.tasks import template
from alter.tasks.template import check_template, render


def problem(text: str, values: dict[str, object]) -> str:
    with pytest.raises(DataError) as caught:
        render(text, values, where="f.csv:2: task 't': input")
    return str(caught.value)


def test_columns_are_printed_as_they_are() -> None:
    values = {"a": "<b> & 'c'", "n": 3, "x": 0.5, "yes": True}
    assert render("{{ a }}|{{ n }}|{{ x }}|{{ yes }}", values) == "<b> & 'c'|3|0.5|True"
    assert render("{{ d }} {{ p }}", {"d": datetime.date(2024, 2, 29), "p": Decimal("1.50")}) == "2024-02-29 1.50"


def test_a_null_prints_as_nothing() -> None:
    assert render("[{{ a }}]", {"a": None}) == "[]"


def test_conditions_loops_and_filters_work() -> None:
    text = "{% for w in words %}{{ loop.index }}{{ w }} {% endfor %}{% if b %}{{ b | upper }}{% endif %}{{ words | join('-') }}"
    assert render(text, {"words": ["x", "y"], "b": "z"}) == "1x 2y Zx-y"


def test_the_columns_that_a_template_reads_are_known() -> None:
    assert check_template("{{ a }} {% if b %}{{ c }}{% endif %}{% set d = 1 %}{{ d }}") == {"a", "b", "c"}


def test_a_template_is_compiled_once() -> None:
    text = "{{ only_once }} compiled"
    before = template._compiled.cache_info()
    for number in range(5):
        assert render(text, {"only_once": number}) == f"{number} compiled"
    assert template._compiled.cache_info().misses == before.misses + 1


def test_a_syntax_error_names_template_line_and_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        check_template("first\n{{ text }", where="task 't': input")
    message = str(caught.value)
    assert message.startswith(r"task 't': input: 'first\n{{ text }' is not a valid template, line 2: ")
    assert "write a column as {{ text }}" in message
    with pytest.raises(ConfigError, match="line 1"):
        render("{% if %}", {})


def test_an_unknown_filter_is_a_syntax_error() -> None:
    with pytest.raises(ConfigError, match="No filter named 'uper'"):
        check_template("{{ text | uper }}")


def test_a_template_of_a_block_twice_is_told() -> None:
    with pytest.raises(ConfigError, match=r"is not a valid template, line 1: block 'a' defined twice"):
        check_template("{% block a %}{% endblock %}{% block a %}{% endblock %}")


def test_an_undefined_column_names_the_columns_and_the_nearest() -> None:
    assert problem("{{ texts }}", {"text": "a", "label": "b"}) == (
        "f.csv:2: task 't': input: '{{ texts }}' reads the column 'texts', which the row does not have; "
        "allowed: label, text. Did you mean 'text'? Mend the template, or map it under `columns`"
    )
    assert "reads the column 'b'" in problem("{% if b %}x{% endif %}", {"a": 1})


def test_a_missing_field_of_a_column_names_the_columns() -> None:
    message = problem("{{ meta.title }}", {"meta": {"x": 1}, "text": "a"})
    assert "has no attribute 'title'" in message
    assert message.endswith("the row's columns: meta, text")


def test_leaving_the_sandbox_is_refused() -> None:
    for text in ("{{ text.__class__ }}", "{{ ''.__class__.__mro__ }}", "{{ words.append('x') }}"):
        message = problem(text, {"text": "a", "words": ["a"]})
        assert "is not safe: " in message
        assert message.endswith("a template may only print columns")


@pytest.mark.parametrize(
    ("text", "kind"), [("{{ words }}", "list"), ("{{ dict }}", "type"), ("{{ words | map('upper') }}", "generator")]
)
def test_what_is_no_text_is_refused(text: str, kind: str) -> None:
    message = problem(text, {"words": ["a"]})
    assert f"prints a {kind}, which is no text" in message
    assert "{{ column | join(' ') }}" in message


@pytest.mark.parametrize(
    "text",
    [
        "{{ text * 10**10 }}",
        "{{ 10**10 * text }}",
        "{{ [text] * 10**10 }}",
        "{{ 10 ** (10**10) }}",
        "{% for i in range(1001) %}{{ text * 1000 }}{% endfor %}",
        "{{ text * 1000 * 1000 }}{{ text }}",
    ],
)
def test_a_text_out_of_all_proportion_is_refused(text: str) -> None:
    message = problem(text, {"text": "a"})
    assert message.startswith(f"f.csv:2: task 't': input: {text!r} makes a text of more than 1,000,000 characters")
    assert message.endswith("at most 1,000,000 characters are allowed: mend the template, or shorten the row")


@pytest.mark.parametrize("error", [MemoryError, OverflowError])
def test_a_text_that_memory_cannot_hold_is_refused(monkeypatch: pytest.MonkeyPatch, error: type[Exception]) -> None:
    def grow(value: str) -> str:
        raise error

    monkeypatch.setitem(template._ENVIRONMENT.filters, "grow", grow)
    assert "makes a text of more than 1,000,000 characters" in problem("{{ text | grow }}", {"text": "a"})


def test_a_repetition_within_bounds_is_printed() -> None:
    assert render("{{ text * 3 }}{{ 2 ** 10 }}{{ 2 * 3 }}", {"text": "a"}) == "aaa10246"
    assert len(render("{{ text * 1000 * 1000 }}", {"text": "a"})) == 1_000_000


@pytest.mark.parametrize("text", ["{{ text + 1 }}", "{{ 1 / n }}", "{% include 'other' %}", "{{ text.index('z') }}"])
def test_a_template_that_fails_on_a_row_is_told(text: str) -> None:
    message = problem(text, {"text": "a", "n": 0})
    assert message.startswith("f.csv:2: task 't': input: ")
    assert "cannot be rendered (" in message
    assert message.endswith("mend the template")
