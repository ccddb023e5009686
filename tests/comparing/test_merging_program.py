"""benchmarks/merging.py: models of one task each, merged and scored; settings chosen on validation rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.comparing.conftest import Compared
from tests.programs import load_program


@pytest.fixture(scope="module")
def merging() -> ModuleType:
    return load_program("merging.py")


def run(merging: ModuleType, monkeypatch: pytest.MonkeyPatch, compared: Compared, out: Path, *arguments: str) -> list[Any]:
    given = [str(compared.folder), "--output-dir", str(out), "--seed", "0", *arguments]
    monkeypatch.setattr(sys, "argv", ["merging.py", *given])
    merging.main()
    (file,) = out.glob("*.jsonl")
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.mark.parametrize(("arm", "methods"), [("single-full", ["average", "fisher", "regmean"]), ("single-lora", ["average"])])
def test_merged_models_stand_beside_the_models_themselves(
    merging: ModuleType, monkeypatch: pytest.MonkeyPatch, compared: Compared, tmp_path: Path, arm: str, methods: list[str]
) -> None:
    arguments = ["--arm", arm, *(word for method in methods for word in ("--method", method))]
    lines = run(merging, monkeypatch, compared, tmp_path, *arguments)
    assert [line["method"] for line in lines] == ["the models themselves", *methods]
    before = compared.result.arms[arm].runs[0].splits["test"]
    assert lines[0]["average"]["test"] == pytest.approx(before.average, abs=0.01)
    for line in lines:
        assert set(line["test"]) == {"mood", "stars"}
        assert line["average"]["test"] == pytest.approx(sum(line["test"].values()) / 2, abs=0.01)
    assert run(merging, monkeypatch, compared, tmp_path, *arguments) == lines, "what is there is not tried again"


def test_validation_rows_choose_among_the_settings(
    merging: ModuleType, monkeypatch: pytest.MonkeyPatch, compared: Compared, tmp_path: Path
) -> None:
    monkeypatch.setitem(merging.TRIED, "task_arithmetic", [{"scale": 0.01}, {"scale": 30.0}])
    _, line = run(merging, monkeypatch, compared, tmp_path, "--arm", "single-lora", "--method", "task_arithmetic")
    assert set(line["tried"]) == {'{"scale": 0.01}', '{"scale": 30.0}'}
    assert line["average"]["validation"] == max(line["tried"].values())
    assert line["tried"][json.dumps(line["settings"])] == line["average"]["validation"]
