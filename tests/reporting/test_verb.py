from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from tests.cli.command import Alter
from tests.reporting.folders import write_run

CHILD = """
import json, sys
sys.argv = ["alter", "report", *sys.argv[1:], "--json"]
from alter.cli import main
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


@pytest.fixture
def alter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alter:
    return Alter(monkeypatch, capsys)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "run", {"mood": 50.0})


def test_the_report_lies_in_the_first_run_where_nothing_else_is_said(alter: Alter, run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", {"mood": 60.0}, seed=1)
    outcome = alter.works("report", run, other)
    assert outcome.out == f"report: {run / 'report.html'}\n"
    assert (run / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    assert not (other / "report.html").exists()


def test_the_report_goes_where_it_is_told_to(alter: Alter, run: Path, tmp_path: Path) -> None:
    outcome = alter.works("report", run, "--output", tmp_path / "new" / "a.html", "--markdown", tmp_path / "a.md")
    assert outcome.out.splitlines() == [f"report: {tmp_path / 'new' / 'a.html'}", f"markdown: {tmp_path / 'a.md'}"]
    assert (tmp_path / "new" / "a.html").exists()
    assert (tmp_path / "a.md").read_text(encoding="utf-8").startswith("# Report: hand\n")
    assert not (run / "report.html").exists()


def test_json_is_printed_and_nothing_written(alter: Alter, run: Path) -> None:
    before = sorted(run.rglob("*"))
    content = alter.works("report", run, "--json").json
    assert [section["key"] for section in content["sections"]][:2] == ["overview", "scores"]
    assert sorted(run.rglob("*")) == before


def test_json_beside_a_file_writes_the_file(alter: Alter, run: Path, tmp_path: Path) -> None:
    assert alter.works("report", run, "--json", "-o", tmp_path / "a.html").json["title"] == "Report: hand"
    assert (tmp_path / "a.html").exists()


def test_mistakes_end_with_exit_code_2(alter: Alter, run: Path, tmp_path: Path) -> None:
    assert "no such folder" in alter.refuses("report", tmp_path / "nothing")
    assert "name another file with --output" in alter.refuses("report", run, "-o", tmp_path)
    outcome = alter("report", tmp_path / "nothing", "--json")
    assert (outcome.code, outcome.error["error"]) == (2, "CheckpointError")


def test_without_matplotlib_the_remedy_is_named(alter: Alter, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [
        name for name in sys.modules if name.split(".")[0] == "matplotlib" or name.startswith("alter.reporting.drawing")
    ]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install 'alter-mta[report]'" in alter.refuses("report", run)
    assert not (run / "report.html").exists()
    assert alter.works("report", run, "--json").json


def test_a_report_reads_files_and_loads_neither_torch_nor_a_drawing_for_json(run: Path) -> None:
    import subprocess

    from tests.cli.command import environment

    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(run)], capture_output=True, text=True, env=environment(), timeout=120, check=True
    )
    assert json.loads(done.stdout)["sections"]
    assert not {"torch", "transformers", "accelerate", "matplotlib"} & set(json.loads(done.stderr))
