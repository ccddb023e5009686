"""Plug-ins by presence, tried on real packages in a temporary folder and on real entry points."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from alter.errors import PluginError
from alter.metrics import METRICS
from alter.registry import Registry

PACKAGE = "plugs_for_registry_tests"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Make a package with two plug-ins, one file that is none, and a private one."""
    package = tmp_path / PACKAGE
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "red.py").write_text('"""Paint it red.\n\nMore words.\n"""\npaint = "red paint"\n')
    (package / "blue.py").write_text("paint = 'blue paint'\n")
    (package / "_mixing.py").write_text("raise RuntimeError('nobody asked for me')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for module in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[module]


def paints() -> Registry:
    return Registry("paint", package=PACKAGE, attribute="paint")


def offer(monkeypatch: pytest.MonkeyPatch, *points: tuple[str, str], group: str = PACKAGE) -> None:
    """Let the installed packages declare these (name, module) entry points, filtered by group as the real function does."""
    declared = EntryPoints(EntryPoint(name, value, group) for name, value in points)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **wanted: declared.select(**wanted))


def install(folder: Path, entry_points: str) -> None:
    """Put a distribution beside the package, as an installer would."""
    info = folder.parent / "third_party_paints-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party-paints\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)


def test_a_file_is_a_plug_in_and_a_private_file_is_none(folder: Path) -> None:
    assert paints().names() == ["blue", "red"]
    assert paints().get("red") == "red paint"
    (folder / "green.py").write_text("paint = 'green paint'\n")
    assert paints().names() == ["blue", "green", "red"]
    assert paints().get("green") == "green paint"


def test_names_and_summaries_import_no_plug_in(folder: Path) -> None:
    (folder / "broken.py").write_text('"""Break on import."""\nraise RuntimeError("imported")\n')
    assert paints().summaries() == {"blue": "", "broken": "Break on import.", "red": "Paint it red."}
    assert paints().check("broken") == "broken"
    assert not [name for name in sys.modules if name.startswith(f"{PACKAGE}.")]
    with pytest.raises(RuntimeError, match="imported"):
        paints().get("broken")


def test_a_folder_may_be_a_plug_in(folder: Path) -> None:
    (folder / "gold").mkdir()
    (folder / "gold" / "__init__.py").write_text('"""Paint it gold."""\npaint = "gold paint"\n')
    assert paints().summaries()["gold"] == "Paint it gold."
    assert paints().get("gold") == "gold paint"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("ask", ["check", "get"])
def test_an_unknown_name_names_what_is_allowed_and_the_nearest(ask: str) -> None:
    with pytest.raises(PluginError, match=r"^unknown paint 'rd'; allowed: blue, red\. Did you mean 'red'\?$"):
        getattr(paints(), ask)("rd")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["", "_mixing", "__init__", "red.py", "../red", "Red"])
def test_only_exact_public_names_are_known(name: str) -> None:
    with pytest.raises(PluginError, match="unknown paint"):
        paints().get(name)


def test_a_file_without_the_attribute_says_what_it_must_define(folder: Path) -> None:
    (folder / "grey.py").write_text("pain = 'a slip of the pen'\n")
    with pytest.raises(PluginError, match=rf"{PACKAGE}\.grey is no paint: it must define `paint`"):
        paints().get("grey")


def test_an_installed_package_adds_a_plug_in(folder: Path) -> None:
    (folder.parent / "third_party_paint.py").write_text('"""Paint it pink."""\npaint = "pink paint"\n')
    install(folder, f"[{PACKAGE}]\npink = third_party_paint\n[another.group]\nblack = nowhere\n")
    try:
        assert paints().names() == ["blue", "pink", "red"]
        assert paints().summaries()["pink"] == "Paint it pink."
        assert paints().get("pink") == "pink paint"
    finally:
        sys.modules.pop("third_party_paint", None)


@pytest.mark.usefixtures("folder")
def test_an_entry_point_may_not_take_the_name_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("red", "other_package.red"))
    with pytest.raises(
        PluginError, match=rf"the paint 'red' is defined twice: in {PACKAGE}\.red and in other_package\.red; rename"
    ):
        paints().names()


@pytest.mark.usefixtures("folder")
def test_two_entry_points_may_not_share_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("pink", "one.pink"), ("pink", "two.pink"))
    with pytest.raises(PluginError, match=r"'pink' is defined twice: in one\.pink and in two\.pink"):
        paints().get("red")


@pytest.mark.usefixtures("folder")
def test_entry_points_of_another_group_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("red", "other_package.red"), group="somebody.elses")
    assert paints().names() == ["blue", "red"]


def test_a_duplicate_of_a_shipped_metric_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("accuracy", "their.accuracy"), group="alter.metrics")
    with pytest.raises(PluginError, match=r"'accuracy' is defined twice: in alter\.metrics\.accuracy and in their\.accuracy"):
        METRICS.check("f1")


def test_a_package_that_is_not_there_is_a_plugin_error() -> None:
    with pytest.raises(PluginError, match="no_such_package_at_all is not an installed package"):
        Registry("thing", package="no_such_package_at_all", attribute="x").names()
    with pytest.raises(PluginError, match=r"alter\.errors is not an installed package"):
        Registry("thing", package="alter.errors", attribute="x").names()


def test_a_package_inside_one_that_is_not_there_is_a_plugin_error() -> None:
    registry = Registry("thing", package="no_such_package_at_all.inner", attribute="x")
    with pytest.raises(PluginError, match=r"no_such_package_at_all\.inner is not an installed package"):
        registry.names()


@pytest.mark.usefixtures("folder")
def test_an_entry_point_whose_module_is_gone_is_a_plugin_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("pink", "uninstalled_paints.pink"))
    with pytest.raises(PluginError, match=r"'pink' cannot be imported from uninstalled_paints\.pink .*; install what is missing"):
        paints().get("pink")


def test_a_plug_in_that_needs_a_missing_package_is_a_plugin_error_that_names_it(folder: Path) -> None:
    (folder / "gold.py").write_text('"""Paint it gold."""\nimport no_such_gold_leaf\n')
    with pytest.raises(
        PluginError, match=rf"'gold' cannot be imported from {PACKAGE}\.gold \(No module named 'no_such_gold_leaf'\)"
    ):
        paints().get("gold")
    assert paints().summaries()["gold"] == "Paint it gold."


def test_the_file_of_a_plug_in_tells_what_it_defines_beside_the_attribute(folder: Path) -> None:
    (folder / "green.py").write_text("paint = 'green paint'\nDRIES_IN = 3\n")
    assert paints().module("green").DRIES_IN == 3
    with pytest.raises(PluginError, match="unknown paint 'gren'"):
        paints().module("gren")


@pytest.mark.usefixtures("folder")
def test_one_broken_entry_point_does_not_spoil_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("pink", "uninstalled_paints.pink"))
    assert paints().summaries() == {"blue": "", "red": "Paint it red."}


@pytest.mark.usefixtures("folder")
def test_an_entry_point_spelled_with_a_colon_is_a_plugin_error_not_an_import_error(monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, ("pink", f"{PACKAGE}.red:paint"))
    with pytest.raises(PluginError, match=rf"{PACKAGE}\.red:paint"):
        paints().get("pink")
