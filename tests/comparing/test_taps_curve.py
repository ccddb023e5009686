"""benchmarks/taps_curve.py: its points, what it reads, what it keeps."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.programs import load_program
from tests.recipes import toy, write_recipe

from alter.recipe import Recipe
from alter.tasks.read import source_of

PROGRAM = Path(__file__).resolve().parent.parent.parent / "benchmarks" / "taps_curve.py"


@pytest.fixture(scope="module")
def curve() -> ModuleType:
    return load_program("taps_curve.py")


def run(curve: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(curve.torch, "set_num_threads", lambda number: None)
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), *map(str, arguments)])
    curve.main()


def test_a_point_is_the_arm_at_its_factor_without_test_rows(curve: ModuleType, tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood", "topic", "reply", "stars"])
    hub = [{"hub": "some/set"}, {"hub": "some/set", "splits": ["train", "test"]}, {"hub": "some/set", "test": "test.jsonl"}]
    tasks = [
        task.model_copy(update={"source": type(task.source)(**source)})  # type: ignore[misc]
        for task, source in zip(recipe.tasks, hub, strict=False)
    ]
    given: Recipe = recipe.model_copy(update={"tasks": [*tasks, recipe.tasks[-1]]})
    found = curve.curve_recipe(given, factor=0.3, seed=5)
    assert (found.seed, list(found.stages), found.stages["stage1"].penalties) == (5, ["stage1"], {"sparsity": 0.3})
    assert (found.mta.selector.kind, found.mta.num_shared) == ("taps", 0)
    assert [source_of(task, "test") for task in found.tasks] == [None] * 4
    assert all(source_of(task, "train") for task in found.tasks)
    assert [bool(source_of(task, "validation")) for task in found.tasks] == [True, False, True, True]


def test_a_curve_is_trained_drawn_and_gone_on_with(
    curve: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    path, out = write_recipe(tmp_path / "toy", tasks=["mood", "topic"]), tmp_path / "out"
    arguments: list[Any] = [path, "--output-dir", out, "--set", "stages.stage1.max_steps=1", "--set", "stages.stage2.max_steps=1"]
    run(curve, monkeypatch, *arguments, "--factor", 0)
    run(curve, monkeypatch, *arguments, "--factor", 0, "--factor", 2, "--seed", 0)
    points = json.loads((out / "taps_curve.json").read_text())["points"]
    assert [(point["factor"], point["seed"], point["steps"], point["sites"]) for point in points] == [(0, 0, 2, 2), (2, 0, 2, 2)]
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line] == [
        "factor 0, seed 0",
        "factor 2, seed 0",
    ]
    for point in points:
        assert point["share"] == {"mood": 1.0, "topic": 1.0}, "two steps at this rate do not reach the threshold"
        assert point["average"] == pytest.approx(sum(point["scores"].values()) / 2, abs=0.01)
    table = (out / "taps_curve.md").read_text().splitlines()
    assert table[2].startswith("| 0 | 1 | 100% |")
    assert table[3].startswith("| 2 | 1 | 100% |")
    assert "validation average, percent" in (out / "taps_curve.svg").read_text()
    with pytest.raises(SystemExit):
        run(curve, monkeypatch, path, "--output-dir", out)
    assert "choose another --output-dir" in capsys.readouterr().err
