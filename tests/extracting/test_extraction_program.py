"""benchmarks/extraction.py: a model whose weights spread, taken apart at several thresholds."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.programs import load_program
from tests.recipes import toy, write_recipe

from alter.tasks.read import source_of


def test_the_model_weighs_all_adapters_alike_at_first_and_reads_no_test_rows(tmp_path: Path) -> None:
    found = load_program("extraction.py").spread_recipe(toy(tmp_path, tasks=["mood", "topic"]), factor=0.25, seed=3)
    assert (found.seed, list(found.stages)) == (3, ["stage1"])
    assert (found.mta.selector.kind, found.mta.gate.kind, found.mta.gate.over) == ("uniform", "linear", "all")
    assert (found.stages["stage1"].router, found.stages["stage1"].penalties) == ("gate", {"mutual_information": 0.25})
    assert [source_of(task, "test") for task in found.tasks] == [None, None]


def test_every_task_is_taken_out_at_every_threshold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, out = load_program("extraction.py"), tmp_path / "out"
    monkeypatch.setattr(program, "THRESHOLDS", (1e-6, 0.9))
    monkeypatch.setattr(program.torch, "set_num_threads", lambda number: None)
    path = write_recipe(tmp_path / "toy", tasks=["mood", "topic"])
    steps = ["--set", "stages.stage1.max_steps=1", "--set", "stages.stage2.max_steps=1"]
    for factor in ("0", "0", "0.1"):
        monkeypatch.setattr(sys, "argv", ["extraction.py", str(path), "--output-dir", str(out), "--factor", factor, *steps])
        program.main()
    lines = [json.loads(line) for line in (out / "extraction.jsonl").read_text().splitlines()]
    assert [(line["factor"], line["threshold"]) for line in lines] == [(0.0, 1e-6), (0.0, 0.9), (0.1, 1e-6), (0.1, 0.9)]
    for line in lines:
        assert (line["kept"], line["shared"]) == ((2, 2) if line["threshold"] == 1e-6 else (1, 0)), (
            "one task adapter always stays"
        )
        assert line["threshold"] == 0.9 or line["before"] == line["after"]
        assert set(line["tasks"]) == {"mood", "topic"}
    assert capsys.readouterr().out.count("threshold") == 4
    monkeypatch.setattr(sys, "argv", ["extraction.py", str(path), "--output-dir", str(out), "--factor", "0"])
    with pytest.raises(SystemExit):
        program.main()
    assert "choose another --output-dir" in capsys.readouterr().err
