"""What benchmarks/adapters_peer hands to another program, and what it makes of the answers; the program itself runs elsewhere."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.peers.given import METHODS
from tests.programs import load_program
from tests.recipes import toy, toy_texts

from alter.comparing.arms import ARMS, OUTSIDE
from alter.peers.settings import METHODS as KINDS
from alter.recipe import Recipe
from alter.results import read_results
from alter.training.prepare import Rows, read_rows

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "how-to" / "peft-peers.md"


def load(name: str) -> ModuleType:
    return load_program(f"adapters_peer/{name}.py")


@pytest.fixture(scope="module")
def beside() -> ModuleType:
    return load("beside")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy(tmp_path_factory.mktemp("toy"), tasks=["mood", "stars", "reply"], sizes={"test": 9})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_other_program_gets_the_same_rows_and_numbers(beside: ModuleType, recipe: Recipe, tmp_path: Path) -> None:
    rows = read_rows(recipe)
    beside.export(recipe, rows, tmp_path, arms=["adapters-fusion"], fusion_rate=None)
    job = json.loads((tmp_path / "job.json").read_text(encoding="utf-8"))
    assert [(task["name"], task["outputs"]) for task in job["tasks"]] == [("mood", 2), ("stars", 1), ("reply", 2)]
    assert (job["stages"]["stage1"]["max_steps"], job["stages"]["stage2"]["max_steps"], job["both"]["max_steps"]) == (3, 2, 5)
    assert job["fusion_rate"] == recipe.stages["stage2"].learning_rates.adapters
    assert job["width"] == 11, "4 * 2 * (32 + 64) parameters of an adapter at a block are those of a bottleneck of that width"
    for split in ("train", "validation", "test"):
        for task in ("mood", "stars", "reply"):
            given, own = lines(tmp_path / "rows" / split / f"{task}.jsonl"), rows.splits[split][task]
            assert [(row["text"], row["text_pair"]) for row in given] == [(row.text, row.text_pair) for row in own]
            assert all(row["input_ids"] and len(row["token_type_ids"]) == len(row["input_ids"]) for row in given)
    assert {row["label"] for row in lines(tmp_path / "rows/train/mood.jsonl")} == {0, 1}
    assert abs(sum(row["target"] for row in lines(tmp_path / "rows/train/stars.jsonl"))) < 1e-6


def answered(rows: Rows, folder: Path, *, wrong: int) -> None:
    """Write what a program would answer that is wrong about the first rows of `mood`."""
    for stage in ("stage1", "stage2"):
        for split in ("validation", "test"):
            for task in ("mood", "stars", "reply"):
                given = lines(folder / "rows" / split / f"{task}.jsonl")
                said = [row["target"] if task == "stars" else row["label"] for row in given]
                if task == "mood":
                    said = [1 - one if position < wrong else one for position, one in enumerate(said)]
                path = folder / "answers" / "adapters-fusion" / stage / split / f"{task}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(json.dumps(said), encoding="utf-8")
    cost = {stage: {"trainable": 7, "steps": 3, "seconds": 1.5} for stage in ("stage1", "stage2")}
    told = {"cost": {**cost, "total": 100}, "versions": {"adapters": "1"}}
    (folder / "answers/adapters-fusion/told.json").write_text(json.dumps(told), encoding="utf-8")


def test_its_answers_are_scored_as_our_own(beside: ModuleType, recipe: Recipe, tmp_path: Path) -> None:
    rows = read_rows(recipe)
    beside.export(recipe, rows, tmp_path, arms=["adapters-fusion"], fusion_rate=5e-5)
    place = tmp_path / "compared"
    for wrong, score in ((0, 100.0), (12, 0.0)):
        answered(rows, tmp_path, wrong=wrong)
        beside.score(recipe, rows, tmp_path, "adapters-fusion", place)
        found = read_results(place / "results.json")
        assert [found.splits["validation"].tasks[task].score for task in ("mood", "stars", "reply")] == pytest.approx(
            [score, 100, 100]
        )
        assert found.splits["test"].tasks["mood"].num_examples == 9
        assert (found.released, found.stages["stage2"].steps, found.parameters["total"]) == ("stage2", 3, 100)
    first = lines(place / "predictions/test/mood.jsonl")[0]
    own = rows.splits["test"]["mood"][0]
    assert (first["input"], first["target"]) == (own.text, own.label)
    assert first["prediction"] != own.label
    stars = [(row["prediction"], row["target"]) for row in lines(place / "predictions/test/stars.jsonl")]
    assert all(said == pytest.approx(right) for said, right in stars), "a number comes back in its own units"


def test_the_library_makes_adapters_of_the_width_that_they_should_have(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the whole part of hidden / factor, and 384 / (384 / 79) is a little less than 79."""
    for name in ("adapters", "adapters.composition"):  # the program's own environment has the library
        library = ModuleType(name)
        library.AutoAdapterModel = library.Fuse = library.MultiTask = None  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, library)
    peer = load("peer")
    for hidden in (32, 312, 384, 768, 1024):
        assert [int(hidden // peer.reduction(hidden, width)) for width in range(1, hidden)] == list(range(1, hidden))


def test_models_that_write_are_refused(beside: ModuleType, tmp_path: Path) -> None:
    recipe = toy_texts(tmp_path / "toy", "t5", tasks=("mood", "echo"))
    with pytest.raises(SystemExit, match="writes text, and these two arms are for encoders with heads"):
        beside.export(recipe, read_rows(recipe), tmp_path, arms=["adapters-fusion"], fusion_rate=None)


def test_the_pages_name_every_arm_and_every_method() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in [*KINDS, *(arm.name for arm in (*ARMS, *OUTSIDE) if arm.family == "peer")]:
        assert f"`{name}`" in page, name
    assert {block["peft_type"] for block in METHODS.values()} | {"XLORA", "IA3"} == set(KINDS), "each is tried"
    readme = (ROOT / "benchmarks/adapters_peer/README.md").read_text(encoding="utf-8")
    assert all(f"`{arm.name}`" in readme for arm in OUTSIDE)
