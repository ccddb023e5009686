"""The README's commands do what it says: they are cut out of it and run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.tiny import save_tiny, save_tiny_lm

from alter.demo.run import demo_recipe

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ENVIRONMENT = {
    **os.environ,
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    "PYTHONPATH": str(ROOT / "src"),
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "COLUMNS": "100",
}


def section(heading: str) -> str:
    return README.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def fence(text: str, language: str) -> str:
    [block] = re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)
    return str(block)


def run(command: list[str], *, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
def test_the_first_own_task_runs_as_written_from_the_shell_and_from_python(tmp_path: Path) -> None:
    text = section("Your own tasks")
    shown = run(["bash", "-euo", "pipefail", "-c", fence(text, "bash")], cwd=tmp_path)
    assert "2 tasks read, 0 warnings, no problems" in shown.stderr
    assert "released: stage" in shown.stdout
    answers = [line for line in shown.stdout.splitlines() if line.startswith("the export button does nothing")]
    assert [re.split(r"\s*\W\s+", line)[1] for line in answers] == ["topic", "urgent"]
    folder = tmp_path / "my-tasks"
    assert_drawn_as_in_the_readme(folder / "run")

    shown = run([sys.executable, "-c", fence(text, "python")], cwd=folder)
    released, *labels = shown.stdout.splitlines()
    assert re.fullmatch(r"stage[12] \d+\.\d+", released)
    assert len(labels) == 2
    assert all(re.fullmatch(r"(bug|billing) \d\.\d+", label) for label in labels)
    results = json.loads((folder / "run-from-python" / "results.json").read_text(encoding="utf-8"))
    assert results["stages"]["stage1"]["steps"] == 12


def assert_drawn_as_in_the_readme(folder: Path) -> None:
    """Every name of the README's drawing is in the run directory, and nothing else but hidden files is."""
    drawing = fence(section("The run directory"), "text")
    named = set(re.findall(r"[\w.]+\.(?:yaml|jsonl|json|safetensors|md)", drawing)) | {
        "checkpoints",
        "predictions",
        "model",
        "adapters",
        "shared",
    }
    tops = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    shipped = {path.name for path in (folder / "model").iterdir()}
    adapter = {path.name for path in (folder / "model" / "adapters" / "topic").iterdir()}
    assert tops | shipped | adapter == named


@pytest.mark.slow
def test_the_demo_runs_to_its_last_line(tmp_path: Path) -> None:
    """What `make demo` calls, made small: a tiny base, a few rows a task, two steps a stage."""
    small = ["stages.stage1.max_steps=2", "stages.stage2.max_steps=2", "max_length=32", "mta.sites=all"]
    small += [f"model_name_or_path={save_tiny(tmp_path / 'base')}"]
    small += [f"tasks.{task.name}.{cap}" for task in demo_recipe().tasks for cap in ("cap=30", "validation_cap=20")]
    folder = tmp_path / "runs" / "demo"
    overrides = [part for override in small for part in ("--set", override)]
    writing = ["stages.stage1.max_steps=2", "stages.stage2.max_steps=2", "max_length=32", "max_target_length=8"]
    writing += [f"model_name_or_path={save_tiny_lm(tmp_path / 'writer', 't5')}", "tasks.subject.cap=30", "tasks.reply.cap=30"]
    overrides += [part for override in writing for part in ("--set-writing", override)]
    shown = run([sys.executable, "-m", "alter", "demo", "--output-dir", str(folder), *overrides], cwd=tmp_path)
    for column in ("majority class", "TF-IDF", "stage 1", "stage 2"):
        assert column in shown.stdout
    assert "which adapters a task uses" in shown.stdout
    assert f"alter predict {folder}" in shown.stdout
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    assert set(results["baselines"]) == {"majority", "tfidf"}
    assert set(results["splits"]["test"]["tasks"]) == {task.name for task in demo_recipe().tasks}


@pytest.mark.parametrize(
    ("target", "called"), [("demo", "alter demo --output-dir runs/demo"), ("test", "python -m pytest"), ("docs", "docs/build.py")]
)
def test_make_sets_up_first_and_then_calls_what_the_readme_says(target: str, called: str, tmp_path: Path) -> None:
    fresh = f"VENV={tmp_path / 'venv'}"
    lines = run(["make", "-n", "-C", str(ROOT), target, fresh], cwd=tmp_path).stdout.splitlines()
    installs = [number for number, line in enumerate(lines) if "pip install" in line and "-e" in line]
    calls = [number for number, line in enumerate(lines) if called in line]
    assert len(installs) == 1
    assert calls
    assert installs[0] < calls[0]
    assert f"make {target}" in README or target == "docs"


def test_the_readme_marks_the_place_of_the_results() -> None:
    before, _, rest = README.partition("<!-- results:start -->")
    assert "<!-- results:end -->" in rest
    assert "## Results" in before
