"""Run directories in every wrong state, and training that cannot go on: one message, exit code 2, nothing lost."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.cli.command import COMMAND, Alter, another_writer, environment
from tests.recipes import weights


def newest(run: Path) -> Path:
    return max(path for path in (run / "checkpoints").iterdir() if path.is_dir())


def everything(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"
    }


def test_a_finished_run_is_not_overwritten(alter: Alter, run: Path) -> None:
    before = everything(run)
    told = alter.refuses("train", run / "recipe.yaml", "-o", run)
    assert f"{run}: holds a finished run; choose another --output-dir, or delete it first (--resume would train nothing" in told
    assert everything(run) == before


def test_an_unfinished_run_is_not_overwritten(alter: Alter, stopped: Path) -> None:
    before = everything(stopped)
    assert "holds an unfinished run; add --resume to go on with it" in alter.refuses(
        "train", stopped / "recipe.yaml", "-o", stopped
    )
    assert everything(stopped) == before


def test_a_run_is_not_resumed_with_other_settings(alter: Alter, stopped: Path) -> None:
    before = everything(stopped)
    told = alter.refuses("train", stopped / "recipe.yaml", "seed=9", "-o", stopped, "--resume")
    assert "its run has other settings than this recipe (seed)" in told
    assert f"resume with the recipe it was started with ({stopped / 'recipe.yaml'})" in told
    assert everything(stopped) == before


def test_a_run_directory_that_is_a_file_is_refused(alter: Alter, toy: Path) -> None:
    (toy / "file").write_text("kept")
    told = alter.refuses("train", toy / "recipe.yaml", "-o", toy / "file")
    assert f"{toy / 'file'}: cannot be made or written" in told
    assert "choose another --output-dir" in told
    assert (toy / "file").read_text() == "kept"


def test_a_second_writer_is_refused(alter: Alter, stopped: Path) -> None:
    before = everything(stopped)
    with another_writer(stopped):
        told = alter.refuses("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert "another process (pid 4711) is training here; wait for it, or choose another --output-dir" in told
    assert everything(stopped) == before


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "best.safetensors"])
def test_half_a_checkpoint_is_refused_and_an_earlier_one_can_be_used(
    alter: Alter, stopped: Path, finished: Path, name: str
) -> None:
    path = newest(stopped) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    told = alter.refuses("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert f"{path}: not a whole safetensors file" in told
    assert "use an earlier checkpoint" in told
    shutil.rmtree(newest(stopped))
    alter.works("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert weights(stopped) == weights(finished)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ('{"format": 1', "cannot be read"),
        ('{"format": 99}', "format 99, this version reads format 1"),
        ('{"format": 1, "stage": "stage1", "step": "two"}', "step"),
        ("[]", "format None"),
    ],
)
def test_a_foreign_checkpoint_is_refused(alter: Alter, stopped: Path, content: str, says: str) -> None:
    path = newest(stopped) / "state.json"
    path.write_text(content)
    told = alter.refuses("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert f"{path}" in told
    assert says in told


def test_a_missing_file_of_a_checkpoint_is_told(alter: Alter, stopped: Path) -> None:
    path = newest(stopped) / "model.safetensors"
    path.unlink()
    told = alter.refuses("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert f"{path}: no such file; the directory is incomplete" in told


def test_a_loss_that_is_no_number_stops_training_with_a_remedy(alter: Alter, toy: Path) -> None:
    rates = ["stages.stage1.learning_rates.adapters=1e30", "stages.stage1.learning_rates.heads=1e30"]
    later = ["train.save_steps=3", "stages.stage1.eval_steps=3"]
    outcome = alter("train", toy / "recipe.yaml", *rates, *later, "-o", toy / "new", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["error"] == "TrainingError"
    message = outcome.error["message"]
    assert message.startswith("stage1, step ")
    for words in ("the loss is nan", "Nothing saved is lost", "Lower stages.stage1.learning_rates"):
        assert words in message
    assert not (toy / "new" / "model").exists()


def test_a_model_that_one_update_broke_is_not_scored_or_saved(alter: Alter, toy: Path) -> None:
    rates = ["stages.stage1.learning_rates.adapters=1e30", "stages.stage1.learning_rates.heads=1e30"]
    outcome = alter("train", toy / "recipe.yaml", *rates, "stages.stage1.eval_steps=1", "-o", toy / "new", "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["error"] == "TrainingError"
    assert "Lower stages.stage1.learning_rates" in outcome.error["message"]


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size: the write fails as it does under a quota."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_what_is_saved_and_resume_finishes(alter: Alter, stopped: Path, finished: Path) -> None:
    kept = everything(newest(stopped))
    with files_of_at_most(8_000):
        told = alter.refuses("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert "cannot be written (" in told
    assert "go on with --resume" in told
    assert everything(newest(stopped)) == kept
    assert not list((stopped / "checkpoints").glob(".*"))
    alter.works("train", stopped / "recipe.yaml", "-o", stopped, "--resume")
    assert weights(stopped) == weights(finished)


def can_mount() -> bool:
    if sys.platform != "linux" or shutil.which("unshare") is None:
        return False
    with_tmpfs = "mount -t tmpfs -o size=64k none /mnt"
    return subprocess.run(["unshare", "-rm", "sh", "-c", with_tmpfs], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="needs a name space of its own to mount a small disk in")
def test_a_full_disk_is_named_as_such(toy: Path) -> None:
    disk = toy / "disk"
    disk.mkdir()
    train = " ".join([*COMMAND, "train", str(toy / "recipe.yaml"), "-o", str(disk / "run"), "--json"])
    script = f"mount -t tmpfs -o size=48k none {disk} && {train}; code=$?; ls {disk}/run >&2; exit $code"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, env=environment(), timeout=300, check=False
    )
    assert "Traceback" not in done.stderr
    assert (done.returncode, done.stdout) == (2, "")
    [line] = [line for line in done.stderr.splitlines() if line.startswith("{")]
    error = json.loads(line)
    assert error["error"] == "TrainingError"
    assert "the disk is full (0 MiB free); nothing already saved is lost. Free some space" in error["message"]
    assert "go on with --resume" in error["message"]


def test_ctrl_c_stops_with_a_word_and_resume_finishes(alter: Alter, toy: Path) -> None:
    recipe, folder = toy / "recipe.yaml", toy / "new"
    long = [
        "stages.stage1.num_train_epochs=100",
        "stages.stage1.max_steps=400",
        "stages.stage1.eval_steps=20",
        "train.save_steps=1",
    ]
    process = subprocess.Popen(
        [*COMMAND, "train", str(recipe), *long, "-o", str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
        # Tests that a shell runs in the background inherit "ignore Ctrl-C", which Python then leaves as it is.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 240
    while not list(folder.glob("checkpoints/stage1-*")) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in out + err
    assert process.returncode == 130, err
    assert "stopped; a training run goes on from its last checkpoint: the same command with --resume" in err
    assert not (folder / "results.json").exists()
    outcome = alter.works("train", recipe, *long, "-o", folder, "--resume", "--json")
    assert "going on at step" in outcome.err
    assert outcome.json["stages"]["stage1"]["steps"] == 400
