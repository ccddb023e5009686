"""Strict settings: every way to write one wrongly ends in a ConfigError that names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest

from alter.config import Settings, apply_overrides, load_yaml, merge, parse, read_yaml
from alter.errors import ConfigError


class Wheel(Settings):
    size: int = pydantic.Field(default=28, ge=1)
    """Inches."""
    spokes: float = 36.0
    """How many."""


class Bicycle(Settings):
    name: str
    """What it is called."""
    front: Wheel = Wheel()
    """The front wheel."""
    spare: Wheel | None = None
    """A spare wheel."""
    wheels: dict[str, Wheel] = {}  # noqa: RUF012 - pydantic copies defaults
    """By place."""
    row: list[Wheel] = []  # noqa: RUF012 - pydantic copies defaults
    """In order."""
    bell: bool = False
    """Does it ring."""
    gears: int | list[int] = 1
    """One number, or the teeth of each."""


def known_fault(reason: str, raises: type[BaseException] | None = None) -> pytest.MarkDecorator:
    """Mark a fault of the module, strictly, so that the mark must go when the fault does."""
    return pytest.mark.xfail(strict=True, reason=reason, raises=raises or AssertionError)


def complaint(settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Bicycle, settings, where="bike.yaml")
    return str(caught.value)


# ---- parse -------------------------------------------------------------------------------------------------


def test_settings_are_frozen_and_named() -> None:
    bicycle = parse(Bicycle, {"name": "b", "front": {"size": 26}}, where="bike.yaml")
    assert bicycle.front == Wheel(size=26)
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        bicycle.name = "c"
    with pytest.raises(TypeError):
        Wheel(28)  # type: ignore[call-arg]
    assert Wheel.model_fields["size"].description == "Inches."


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"nme": "b", "name": "b"},
            "unknown key 'nme'; allowed: bell, front, gears, name, row, spare, wheels. Did you mean 'name'?",
        ),
        ({"name": "b", "front": {"sice": 3}}, "unknown key 'front.sice'; allowed: size, spokes. Did you mean 'size'?"),
        ({"name": "b", "spare": {"sice": 3}}, "unknown key 'spare.sice'; allowed: size, spokes. Did you mean 'size'?"),
        (
            {"name": "b", "wheels": {"left": {"sice": 3}}},
            "unknown key 'wheels.left.sice'; allowed: size, spokes. Did you mean 'size'?",
        ),
        ({"name": "b", "row": [{}, {"sice": 3}]}, "unknown key 'row.1.sice'; allowed: size, spokes. Did you mean 'size'?"),
        ({}, "the key 'name' is missing; add it"),
        ({"name": "b", "front": {"size": 0}}, "front.size: Input should be greater than or equal to 1 (seen: 0)"),
        ({"name": "b", "front": {"size": "big"}}, "(seen: 'big')"),
        ({"name": "b", "front": {"size": 2.5}}, "(seen: 2.5)"),
        ({"name": "b", "front": None}, "(seen: None)"),
        ({"name": 3}, "name: Input should be a valid string (seen: 3)"),
        ([1], "recipe: Input should be a valid dictionary"),
        (None, "(seen: None)"),
        ({"name": "b", 3: 4}, "3: Keys should be strings"),
    ],
)
def test_a_wrong_setting_names_place_key_value_and_what_is_allowed(settings: Any, expected: str) -> None:
    message = complaint(settings)
    assert message.startswith("bike.yaml: ")
    assert expected in message


def test_all_faults_are_told_at_once_and_each_once() -> None:
    lines = complaint({"nme": "b", "front": {"size": 0}, "row": [{"sice": 1}]}).splitlines()
    assert len(lines) == len(set(lines)) == 4
    assert all(line.startswith("bike.yaml: ") for line in lines)


@known_fault("_explain drops keys that start with function- or tagged-, then takes the last of no keys", IndexError)
def test_an_unknown_key_may_start_with_any_word() -> None:
    assert "unknown key 'function-x'" in complaint({"name": "b", "function-x": 1})


@known_fault("_explain drops keys that start with function- or tagged- from the path")
def test_a_key_inside_a_mapping_keeps_its_name_in_the_message() -> None:
    assert "wheels.tagged-left.size" in complaint({"name": "b", "wheels": {"tagged-left": {"size": 0}}})


@known_fault("a setting of two shapes shows pydantic's names of the shapes in its key path")
def test_a_setting_of_two_shapes_is_called_by_its_own_name() -> None:
    message = complaint({"name": "b", "gears": "many"})
    assert "list[" not in message
    assert "gears.int" not in message


@known_fault("pydantic reads true as 1", pytest.fail.Exception)
def test_a_yes_or_no_is_no_number() -> None:
    complaint({"name": "b", "front": {"size": True}})


@known_fault("pydantic lets .inf through where only a lower bound is set", pytest.fail.Exception)
def test_a_number_is_finite() -> None:
    complaint({"name": "b", "front": {"spokes": float("inf")}})


# ---- YAML --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["yes", "no", "on", "off", "y", "n", "Yes", "NO", "TRUE", "tRue"])
def test_words_are_text(word: str) -> None:
    assert read_yaml(word) == word
    assert read_yaml(f"[{word}, a]") == [word, "a"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("True", True),
        ("false", False),
        ("'true'", "true"),
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("-2.5e+3", -2500.0),
        (".5", 0.5),
        ("1.", 1.0),
        ("3", 3),
        ("-3", -3),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("e3", "e3"),
        ("1.2.3", "1.2.3"),
        (".inf", float("inf")),
        ("null", None),
        ("~", None),
        ("", None),
    ],
)
def test_scalars_read_as_people_expect(text: str, value: object) -> None:
    seen = read_yaml(text)
    assert seen == value
    assert type(seen) is type(value)


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("1:30", "1:30"), ("1_000", "1_000")])
@known_fault("whole numbers are still read as YAML 1.1: octal 010, base 60, underscores")
def test_whole_numbers_read_as_in_yaml_1_2(text: str, value: object) -> None:
    assert read_yaml(text) == value


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    file = tmp_path / "evil.yaml"
    file.write_text("a: !!python/object/apply:os.getcwd []\n")
    with pytest.raises(ConfigError, match=r"evil\.yaml: not valid YAML"):
        load_yaml(file)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "holds nothing; a recipe is a mapping"),
        (b"# only a remark\n", "holds nothing"),
        (b"- a\n- b\n", "holds a list"),
        (b"just text\n", "holds a str"),
        (b"a: [1, 2\n", "not valid YAML"),
        (b"a: 1\n---\nb: 2\n", "not valid YAML"),
        (b"a: \x00\n", "not valid YAML"),
        (b"a: caf\xe9\n", "not UTF-8 text (invalid continuation byte at byte 6)"),
        pytest.param(
            b"day: 2020-13-45\n", "not valid YAML", marks=known_fault("an impossible date is a bare ValueError", ValueError)
        ),
        pytest.param(
            b"n: 0x_\n", "not valid YAML", marks=known_fault("a number without digits is a bare ValueError", ValueError)
        ),
        pytest.param(
            b"a: 1\na: 2\n",
            "twice",
            marks=known_fault("of a key given twice the first value is lost in silence", pytest.fail.Exception),
        ),
    ],
)
def test_a_file_that_is_no_mapping_says_what_it_holds(content: bytes, expected: str, tmp_path: Path) -> None:
    file = tmp_path / "bike.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_yaml(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert expected in str(caught.value)


def test_a_missing_file_and_a_folder_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_yaml(tmp_path)


@known_fault("only two kinds of OSError are turned into a ConfigError", NotADirectoryError)
def test_a_path_through_a_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bike.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError):
        load_yaml(tmp_path / "bike.yaml" / "wheel.yaml")


def test_a_byte_order_mark_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "bike.yaml").write_bytes(b"\xef\xbb\xbfname: b\n")
    assert load_yaml(tmp_path / "bike.yaml") == {"name": "b"}


# ---- overrides ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=1", {"a": 1, "l": [{"x": 1}, 2]}),
        ("a=", {"a": None, "l": [{"x": 1}, 2]}),
        ("a=b=c", {"a": "b=c", "l": [{"x": 1}, 2]}),
        ("a=[1, no]", {"a": [1, "no"], "l": [{"x": 1}, 2]}),
        ("a={b: 1e-3}", {"a": {"b": 0.001}, "l": [{"x": 1}, 2]}),
        ("new.deep.key=true", {"a": 0, "l": [{"x": 1}, 2], "new": {"deep": {"key": True}}}),
        ("l.0.x=5", {"a": 0, "l": [{"x": 5}, 2]}),
        ("l.1=5", {"a": 0, "l": [{"x": 1}, 5]}),
    ],
)
def test_an_override_sets_one_value_and_leaves_the_original(override: str, expected: dict[str, Any]) -> None:
    original = {"a": 0, "l": [{"x": 1}, 2]}
    assert apply_overrides(original, [override]) == expected
    assert original == {"a": 0, "l": [{"x": 1}, 2]}


def test_later_overrides_win() -> None:
    assert apply_overrides({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a", "'a' is no override; write key.path=value"),
        ("=1", "'=1' is no override"),
        ("", "'' is no override"),
        ("a.b=1", "'a' holds a single value, so it has no key 'b'"),
        ("l.2=1", "'2' is no position in a list of 2; count from 0"),
        ("l.-1=1", "'-1' is no position in a list of 2"),
        ("l.x=1", "'x' is no position in a list of 2"),
        ("l.1.x=1", "'l.1' holds a single value"),
        ("a=[1", "a=[1: the value is not valid YAML"),
        pytest.param(
            "l.\u00b2=1", "is no position", marks=known_fault("str.isdigit holds for a raised 2, int() does not", ValueError)
        ),
        pytest.param("a=2020-13-45", "not valid YAML", marks=known_fault("an impossible date is a bare ValueError", ValueError)),
    ],
)
def test_a_bad_override_repeats_what_was_typed(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"a": 0, "l": [{"x": 1}, 2]}, [override])
    assert expected in str(caught.value)
    assert override in str(caught.value)


@known_fault("_copy follows a YAML alias to itself for ever", RecursionError)
def test_an_alias_to_itself_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bike.yaml").write_text("a: &loop [*loop]\n")
    with pytest.raises(ConfigError):
        apply_overrides(load_yaml(tmp_path / "bike.yaml"), ["b=1"])


# ---- merge -------------------------------------------------------------------------------------------------


def test_merge_goes_mapping_by_mapping_and_replaces_all_else() -> None:
    under = {"a": {"x": 1, "y": {"z": 2}}, "l": [1, 2], "s": 1}
    over = {"a": {"y": {"w": 3}}, "l": [9], "s": {"t": 1}, "n": None}
    assert merge(under, over) == {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "l": [9], "s": {"t": 1}, "n": None}
    assert merge(under, {"a": None})["a"] is None
    assert merge(under, {}) == under
    assert merge({}, over) == over


def test_merge_shares_nothing_with_what_it_merged() -> None:
    under: dict[str, Any] = {"a": {"x": [1]}}
    over: dict[str, Any] = {"b": {"y": [2]}}
    merged = merge(under, over)
    merged["a"]["x"].append(9)
    merged["b"]["y"].append(9)
    assert (under, over) == ({"a": {"x": [1]}}, {"b": {"y": [2]}})
