"""results.json: the average, the round trip, foreign files, and a write that fails half-way."""

from __future__ import annotations

import json
import math
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from alter.errors import CheckpointError
from alter.results import (
    SCHEMA,
    Results,
    SplitScores,
    StageResult,
    TaskScore,
    average,
    read_results,
    write_json,
    write_results,
    write_text,
)


def results() -> Results:
    score = TaskScore(score=61.25, metric="f1_macro", metrics={"f1_macro": 61.25, "accuracy": 70.0}, num_examples=120)
    return Results(
        recipe="demo",
        model="some/model",
        seed=3,
        stages={"stage1": StageResult(average=60.0, seconds=1.5, trainable_parameters=42, scores={"caf\u00e9": 60.0})},
        released="stage1",
        splits={"validation": SplitScores(average=61.25, tasks={"caf\u00e9": score})},
        baselines={"majority": {"test": SplitScores(average=10.0, tasks={})}},
        parameters={"total": 100},
        environment={"python": "3.11"},
    )


# ---- average -----------------------------------------------------------------------------------------------


def test_tasks_without_a_group_count_alike() -> None:
    assert average({"a": 10, "b": 20, "c": 60}, {}) == pytest.approx(30)
    assert average({"a": 10, "b": 20}, {"a": None, "b": None}) == pytest.approx(15)


def test_a_group_counts_once() -> None:
    scores = {"a": 90.0, "g1": 10.0, "g2": 20.0, "h1": 40.0}
    groups = {"a": None, "g1": "g", "g2": "g", "h1": "h"}
    assert average(scores, groups) == pytest.approx((90 + 15 + 40) / 3)


def test_a_group_named_like_a_task_is_not_that_task() -> None:
    assert average({"g": 0.0, "x": 30.0, "y": 90.0}, {"x": "g", "y": "g"}) == pytest.approx((0 + 60) / 2)


def test_tasks_that_were_not_scored_have_no_say() -> None:
    assert average({"a": 50.0}, {"a": "g", "b": "g", "c": None}) == 50.0


def test_no_score_or_a_score_that_is_no_number_has_no_average() -> None:
    assert math.isnan(average({}, {}))
    assert math.isnan(average({"a": math.nan, "b": 1.0}, {}))


# ---- the file ----------------------------------------------------------------------------------------------


def test_what_is_written_is_what_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "results.json"
    write_results(results(), path)
    assert read_results(path) == results()
    assert [entry.name for entry in path.parent.iterdir()] == ["results.json"]


def test_the_file_is_plain_json_with_the_schema_first(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(results(), path)
    text = path.read_text(encoding="utf-8")
    content = json.loads(text)
    assert next(iter(content.items())) == ("schema", SCHEMA)
    assert "schema_version" not in content
    assert content["splits"]["validation"]["tasks"]["caf\u00e9"]["metrics"]["accuracy"] == 70.0
    assert "caf\u00e9" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_umask_decides_who_may_read(tmp_path: Path, mask: int, mode: int) -> None:
    path = tmp_path / "results.json"
    before = os.umask(mask)
    try:
        write_results(results(), path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "not valid JSON"),
        (b'{"schema": 1, "rec', "not valid JSON"),
        (b"[]", "not a results file of schema 1"),
        (b"null", "not a results file of schema 1"),
        (b"{}", "not a results file of schema 1"),
        (b'{"schema": 2, "recipe": "r", "model": "m", "seed": 0}', "not a results file of schema 1"),
        (b'{"schema": "1", "recipe": "r", "model": "m", "seed": 0}', "not a results file of schema 1"),
        (b'{"recipe": "\xff"}', "not valid JSON ('utf-8' codec"),
        (b'{"schema": 1}', "the key 'recipe' is missing; add it"),
        (b'{"schema": 1, "recipe": "r", "model": "m", "seed": 0, "extra": 1}', "unknown key 'extra'; allowed: "),
        (b'{"schema": 1, "recipe": "r", "model": "m", "seed": true}', "seed: true and false are no numbers"),
        (b'{"schema": 1, "schema_version": 9, "recipe": "r", "model": "m", "seed": 0}', "not a results file of schema 1"),
    ],
)
def test_a_foreign_file_is_a_checkpoint_error_that_names_it(content: bytes, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


def test_a_missing_file_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file; the run has not finished"):
        read_results(tmp_path / "results.json")


def test_a_folder_is_a_checkpoint_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"cannot be read \(Is a directory\)"):
        read_results(tmp_path)


def test_a_score_that_is_no_number_still_leaves_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_results(results().model_copy(update={"splits": {"test": SplitScores(average=math.nan, tasks={})}}), path)

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert math.isnan(read_results(path).splits["test"].average)


def test_every_score_may_be_missing_and_no_count_may(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    nothing = TaskScore(score=math.nan, metric="f1", metrics={"f1": math.inf}, num_examples=1)
    stage = StageResult(average=math.nan, seconds=1.0, trainable_parameters=1, scores={"a": math.nan})
    splits = {"test": SplitScores(average=1.0, tasks={"a": nothing})}
    write_results(results().model_copy(update={"splits": splits, "stages": {"stage1": stage}}), path)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text)["splits"]["test"]["tasks"]["a"]["metrics"] == {"f1": None}
    read = read_results(path)
    task = read.splits["test"].tasks["a"]
    assert all(math.isnan(value) for value in (task.score, task.metrics["f1"], *read.stages["stage1"].scores.values()))
    path.write_text(text.replace('"num_examples": 1', '"num_examples": null'), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"splits\.test\.tasks\.a\.num_examples: Input should be a valid integer"):
        read_results(path)


def test_a_metric_that_is_no_fraction_is_not_shown_in_percent() -> None:
    from alter.evaluation import score_task
    from alter.tasks.spec import TaskSpec

    spec = TaskSpec(name="degree", kind="regression", metrics=["pearson", "mse"])
    score = score_task(spec, [1.0, 2.0, 5.0], [1.0, 2.0, 3.0])
    assert score.metrics["mse"] == pytest.approx(4 / 3)
    assert score.score == score.metrics["pearson"] == pytest.approx(100 * 3**0.5 / 2 * 16**0.5 / 13**0.5)


def test_the_positive_label_reaches_the_metrics_that_ask_for_it_alone() -> None:
    from alter.evaluation import score_task
    from alter.tasks.spec import TaskSpec

    spec = TaskSpec(name="irony", metrics=["f1", "f1_macro"], metric_labels=["yes"])
    score = score_task(spec, ["yes", "no", "no"], ["yes", "yes", "no"])
    assert score.metrics == {"f1": pytest.approx(100 * 2 / 3), "f1_macro": pytest.approx(100 * 2 / 3)}


# ---- writes that fail --------------------------------------------------------------------------------------


def test_a_write_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text("a long old text", path)
    write_text("new", path)
    assert path.read_text(encoding="utf-8") == "new"


def test_text_that_cannot_be_encoded_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    write_text("old", path)
    with pytest.raises(UnicodeEncodeError):
        write_text("x" * 100_000 + "\ud800", path)
    assert path.read_text(encoding="utf-8") == "old"
    assert os.listdir(tmp_path) == ["note.txt"]


def test_content_that_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json({"a": 1}, path)
    with pytest.raises(TypeError):
        write_json({"a": object()}, path)
    assert json.loads(path.read_text(encoding="utf-8")) == {"a": 1}
    assert os.listdir(tmp_path) == ["results.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits are POSIX")
def test_a_disk_that_takes_no_more_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json({"old": True}, path)
    # The operating system itself refuses: no file of this process may grow past 8 KiB.
    code = (
        "import errno, resource, sys; from pathlib import Path; from alter.results import write_json\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))\n"
        "try: write_json({'new': 'x' * 100_000}, Path(sys.argv[1]))\n"
        "except OSError as error: sys.exit(0 if error.errno == errno.EFBIG else 3)\n"
        "sys.exit(4)"
    )
    done = subprocess.run([sys.executable, "-B", "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(path.read_text(encoding="utf-8")) == {"old": True}
    assert os.listdir(tmp_path) == ["results.json"]


def test_a_reader_never_sees_a_half_written_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json({"n": 0, "text": "x" * 50_000}, path)
    code = (
        "import sys; from pathlib import Path; from alter.results import write_json\n"
        "for n in range(1, 101): write_json({'n': n, 'text': 'x' * 50_000}, Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(path)]) as writer:
        seen = set()
        while writer.poll() is None:
            seen.add(json.loads(path.read_text(encoding="utf-8"))["n"])
    assert writer.returncode == 0
    assert len(seen) > 1, "the reader must have read while the writer wrote"
    assert json.loads(path.read_text(encoding="utf-8"))["n"] == 100
