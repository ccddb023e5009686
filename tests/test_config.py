"""Strict settings: every way to write one wrongly ends in a ConfigError that names the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
import pytest
import yaml

from alter.config import Settings, apply_overrides, dump_yaml, load_yaml, merge, parse, read_yaml
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
    wheels: dict[str, Wheel] = {}
    """By place."""
    row: list[Wheel] = []
    """In order."""
    bell: bool = False
    """Does it ring."""
    gears: int | list[int] = 1
    """One number, or the teeth of each."""


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


def test_an_unknown_key_may_start_with_any_word() -> None:
    assert "unknown key 'function-x'" in complaint({"name": "b", "function-x": 1})


def test_a_key_inside_a_mapping_keeps_its_name_in_the_message() -> None:
    assert "wheels.tagged-left.size" in complaint({"name": "b", "wheels": {"tagged-left": {"size": 0}}})


def test_a_setting_of_two_shapes_is_called_by_its_own_name() -> None:
    message = complaint({"name": "b", "gears": "many"})
    assert message.startswith("bike.yaml: gears: Input should be a valid integer")
    assert message.endswith("; or: Input should be a valid list (seen: 'many')")
    assert "\n" not in message, "one line for one setting"
    assert complaint({"name": "b", "gears": [1, "x"]}).startswith("bike.yaml: gears.1: Input should be a valid integer")


def test_an_unknown_key_inside_a_setting_of_two_shapes_gets_the_keys_of_its_shape() -> None:
    class Shed(Settings):
        holds: int | Wheel | dict[str, list[Wheel]] = 0
        """A number of things, a wheel, or wheels by place."""

    with pytest.raises(ConfigError) as caught:
        parse(Shed, {"holds": {"sice": [{"spoks": 3}]}}, where="shed.yaml")
    lines = str(caught.value).splitlines()
    assert "shed.yaml: unknown key 'holds.sice'; allowed: size, spokes. Did you mean 'size'?" in lines
    assert "shed.yaml: unknown key 'holds.sice.0.spoks'; allowed: size, spokes. Did you mean 'spokes'?" in lines
    assert len(lines) == 2


def test_an_item_of_a_list_is_called_by_its_name() -> None:
    class Shop(Settings):
        bicycles: list[Bicycle]
        """In stock."""

    def said(name: object) -> str:
        with pytest.raises(ConfigError) as caught:
            parse(Shop, {"bicycles": [{"name": name, "front": {"size": 0}}]}, where="shop.yaml")
        return str(caught.value)

    assert said("city.7").startswith("shop.yaml: bicycles.city.7.front.size: Input should be")
    assert said("two words").startswith("shop.yaml: bicycles.0.front.size: Input should be")
    assert said(3).startswith("shop.yaml: bicycles.0.name: Input should be a valid string")


def test_a_yes_or_no_is_no_number() -> None:
    assert "front.size: true and false are no numbers; write a number (seen: True)" in complaint(
        {"name": "b", "front": {"size": True}}
    )
    assert "front.spokes: true and false" in complaint({"name": "b", "front": {"spokes": False}})
    assert "gears: true and false" in complaint({"name": "b", "gears": [3, True]})
    assert parse(Bicycle, {"name": "b", "bell": True}, where="bike.yaml").bell is True


def test_a_number_is_finite() -> None:
    for number in (float("inf"), float("nan")):
        assert "front.spokes: Input should be a finite number" in complaint({"name": "b", "front": {"spokes": number}})


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),
        ("-08", -8),
        ("0x1F", 31),
        ("0o17", 15),
        ("0x_", "0x_"),
        ("0b1", "0b1"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("=", "="),
    ],
)
def test_whole_numbers_read_as_in_yaml_1_2(text: str, value: object) -> None:
    assert read_yaml(text) == value


def test_what_is_dumped_is_what_is_read_in_either_version_of_yaml() -> None:
    words = [
        "08",
        "010",
        "1e3",
        "0o7",
        "0x1F",
        "1:30",
        "1_0",
        ".5",
        "1.",
        "no",
        "true",
        "TRUE",
        "null",
        "~",
        "=",
        "<<",
        "2020-01-01",
    ]
    content = {
        "l": [*words, "", " x", "a: b"],
        "f": [1e-5, 1e22, 0.1, -3.0, float("inf")],
        "i": [8, 0, -10],
        "n": None,
        "b": [True, False],
    }
    text = dump_yaml(content)
    assert read_yaml(text) == content
    assert yaml.safe_load(text) == content


def test_an_alias_used_twice_and_a_merge_key_are_fine() -> None:
    text = "a: &a {x: 1}\nb: &b {<<: *a, x: 2, y: 3}\nc: {<<: *b, y: 4}\nl: [*a, *a]\n"
    assert read_yaml(text)["c"] == {"x": 2, "y": 4}
    assert read_yaml(text)["l"] == [{"x": 1}, {"x": 1}]


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
        (b"a: 1\nday: 2020-13-45\n", "not valid YAML: '2020-13-45' is no timestamp; mend it, or write it in quotes"),
        (b"n: !!int 0x_\n", "not valid YAML: '0x_' is no int"),
        (b"n: !!bool maybe\n", "not valid YAML: 'maybe' is no bool"),
        (b"n: " + b"9" * 5000, "not valid YAML: '999999"),
        (b"a: " + b"[" * 5000, "not valid YAML: nested too deeply"),
        (b"a: 1\nb: 2\na: 3\n", "not valid YAML: the key 'a' stands twice, first in line 1; keep one of the two"),
        (b"a: 1\nb: 2\na: 3\n", "line 3, column 1"),
        (b"l:\n- {x: 1, 'x': 2}\n", "the key 'x' stands twice, first in line 2"),
        (b"a: &loop {b: [*loop]}\n", "not valid YAML: an alias (*name) stands inside the value that it names"),
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


def test_a_path_through_a_file_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bike.yaml").write_text("a: 1\n")
    with pytest.raises(ConfigError, match=r"wheel\.yaml: cannot be read \(Not a directory\); give the path of a YAML file"):
        load_yaml(tmp_path / "bike.yaml" / "wheel.yaml")
    with pytest.raises(ConfigError, match=r"cannot be read \(embedded null byte\)"):
        load_yaml(tmp_path / "bike\0.yaml")


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


def test_an_override_finds_an_item_of_a_list_by_its_name_and_the_longest_name_wins() -> None:
    tasks = {"t": [{"name": "a"}, {"name": "a.b"}, {"name": "0"}, {"x": 1}, {"name": "a"}]}
    result = apply_overrides(tasks, ["t.a.x=1", "t.a.b.x=2", "t.0.x=3", "t.3.x=4", "t.a.c.d=5"])["t"]
    assert [item.get("x") for item in result] == [1, 2, 3, 4, None]
    assert result[0]["c"] == {"d": 5}
    assert apply_overrides(tasks, ["t.a.b=7"])["t"][:2] == [{"name": "a"}, 7]


def test_later_overrides_win() -> None:
    assert apply_overrides({}, ["a.b=1", "a.c=2", "a.b=3"]) == {"a": {"b": 3, "c": 2}}


def test_an_override_below_null_switches_on_what_is_off() -> None:
    off: dict[str, Any] = {"stages": {"stage1": {"x": 1}, "stage2": None}}
    assert apply_overrides(off, ["stages.stage2.num_train_epochs=1"])["stages"]["stage2"] == {"num_train_epochs": 1}
    assert off["stages"]["stage2"] is None


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
        ("l.\u00b2=1", "'\u00b2' is no position in a list of 2"),
        ("a=2020-13-45", "the value is not valid YAML: '2020-13-45' is no timestamp"),
        ("t.c.x=1", "'c' is no name in 't'; allowed: a, a.b."),
        ("t.a.b.x.y=1", "'t.a.b.x' holds a single value, so it has no key 'y'"),
    ],
)
def test_a_bad_override_repeats_what_was_typed(override: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        apply_overrides({"a": 0, "l": [{"x": 1}, 2], "t": [{"name": "a", "b": 0}, {"name": "a.b", "x": 0}]}, [override])
    assert expected in str(caught.value)
    assert override in str(caught.value)


def test_an_alias_to_itself_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "bike.yaml").write_text("a: &loop [*loop]\n")
    with pytest.raises(ConfigError, match="an alias"):
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
