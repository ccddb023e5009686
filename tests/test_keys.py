"""A key in the wrong place is told its right one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.cli.test_help import keys_of

from alter.config import Settings, parse
from alter.errors import ConfigError
from alter.keys import key_paths, unknown_key
from alter.recipe import Recipe


class Wheel(Settings):
    size: int = 28
    """Inches."""
    number_of_spokes: int = 36
    """How many."""


class Bicycle(Settings):
    name: str = "b"
    """What it is called."""
    front: Wheel | None = None
    """The front wheel."""
    wheels: dict[str, Wheel] = {}
    """By place."""
    saddles: list[Wheel] = []
    """In order."""
    depth: int = 1
    """A number."""


def hint(settings: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(Bicycle, settings, where="bike.yaml")
    return str(caught.value).removeprefix("bike.yaml: unknown key ")


def test_every_key_has_its_path() -> None:
    assert list(key_paths(Bicycle)) == [
        "name", "front", "front.size", "front.number_of_spokes", "wheels", "wheels.<wheel>.size", "wheels.<wheel>.number_of_spokes",
        "saddles", "saddles.<saddle>.size", "saddles.<saddle>.number_of_spokes", "depth",
    ]  # fmt: skip


def test_no_key_of_a_recipe_is_left_out() -> None:
    paths = [path.replace("<stage>", "*").replace("<task>", "*") for path in key_paths(Recipe)]
    assert set(keys_of(Recipe)) <= set(paths)
    assert len(paths) == len(set(paths))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"size": 3}, "'front.size' or 'wheels.<wheel>.size' or 'saddles.<saddle>.size'?"),
        ({"wheels": {"a": {"depth": 3}}}, "'depth' at the top?"),
        ({"front": {"saddles": 3}}, "'saddles' at the top?"),
        ({"front": {"saddle": 3}}, "'saddles' at the top?"),
        ({"spokes": 3}, "'front.number_of_spokes' or 'wheels.<wheel>.number_of_spokes' or 'saddles.<saddle>.number_of_spokes'?"),
        ({"front": {"sice": 3}}, "'size'?"),
        ({"nmae": "x"}, "'name'?"),
    ],
)
def test_the_place_of_a_key_is_told(settings: Any, told: str) -> None:
    assert hint(settings).endswith(f". Did you mean {told}")


def test_what_is_like_nothing_gets_no_place() -> None:
    assert hint({"xyzzy": 1}) == "'xyzzy'; allowed: depth, front, name, saddles, wheels."


def test_the_nearest_places_come_first_and_not_all_are_told() -> None:
    told = unknown_key("stages.stage1.kind", "kind", {"router": None}, Recipe)
    assert told.startswith("unknown key 'stages.stage1.kind'; allowed: router. Did you mean '")
    assert told.endswith(", ...?")
    assert told.count("kind'") == 4
    assert "Did you mean 'mta.gate.top_k' or " in unknown_key("mta.gate.adapter.top_k", "top_k", {}, Recipe)
