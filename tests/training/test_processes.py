from __future__ import annotations

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from tests.recipes import changed, steps, toy, write_recipe

from alter.errors import CheckpointError
from alter.recipe import load_recipe
from alter.training.run import train

ROOT = Path(__file__).resolve().parents[2]
NO_DROPOUT: dict[str, Any] = {
    "heads": {"dropout": 0.0},
    "train": {"per_device_train_batch_size": 8, "logging_steps": 1, "save_steps": 1},
    "stages": {"stage1": {"max_steps": 4}, "stage2": {"max_steps": 3}},
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def tensors(folder: Path) -> dict[str, Any]:
    return {
        f"{path.relative_to(folder)}:{name}": tensor
        for path in sorted((folder / "model").rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def assert_close(one: Path, other: Path, *, tolerance: float) -> None:
    losses = [[line["loss"], *line["losses"].values(), line["grad_norm"]] for line in steps(one)]
    other_losses = [[line["loss"], *line["losses"].values(), line["grad_norm"]] for line in steps(other)]
    assert [list(line["losses"]) for line in steps(one)] == [list(line["losses"]) for line in steps(other)]
    for mine, theirs in zip(losses, other_losses, strict=True):
        assert mine == pytest.approx(theirs, abs=tolerance)
    mine_by_name, theirs_by_name = tensors(one), tensors(other)
    assert mine_by_name.keys() == theirs_by_name.keys()
    assert len(mine_by_name) > 10
    for name, tensor in mine_by_name.items():
        assert (tensor - theirs_by_name[name]).abs().max() <= tolerance, name


@dataclass
class Launched:
    one: Path
    two: Path


def launch(script: str, arguments: list[str], folder: Path) -> None:
    """Run a script of this folder in two processes."""
    # accelerate starts several processes on processors under --multi_gpu only: --cpu needs MPI, and without it starts one process
    # whatever --num_processes says. ACCELERATE_USE_CPU then chooses gloo.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"]
    command += ["--mixed_precision", "no", "--dynamo_backend", "no", "--num_cpu_threads_per_process", "1"]
    command += ["--main_process_port", str(free_port()), str(Path(__file__).with_name(script)), *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "OMP_NUM_THREADS": "1",
        "ACCELERATE_USE_CPU": "true",
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Launched]:
    """Train both presets with one process, and with two processes that get half a batch each."""
    folder = tmp_path_factory.mktemp("processes")
    arguments: list[str] = []
    found: dict[str, Launched] = {}
    for preset in ("alter-lite", "alter"):
        path = write_recipe(folder / preset, settings={**NO_DROPOUT, "preset": preset})
        halved = yaml.safe_load(path.read_text())
        halved["train"]["per_device_train_batch_size"] = 4
        half = path.with_name("half.yaml")
        half.write_text(yaml.safe_dump(halved))
        found[preset] = Launched(one=folder / preset / "one", two=folder / preset / "two")
        train(load_recipe(path), output_dir=found[preset].one)
        arguments += [str(half), str(found[preset].two)]
    launch("launched.py", arguments, folder)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_two_processes_train_as_one_does(runs: dict[str, Launched], preset: str) -> None:
    assert_close(runs[preset].one, runs[preset].two, tolerance=1e-5)


@pytest.mark.slow
def test_only_the_main_process_scores_and_each_draws_its_own_dropout(tmp_path: Path) -> None:
    settings = {"seed": 3, "stages": {"stage1": {"max_steps": 1}, "stage2": {"max_steps": 1}}}
    path = write_recipe(tmp_path, tasks=["mood"], settings=settings)
    launch("launched_apart.py", [str(path), str(tmp_path / "run")], tmp_path)
    assert (tmp_path / "run" / "results.json").exists()
    assert [(tmp_path / f"run.{rank}").read_text() for rank in (0, 1)] == ["6 7", "7 8"]


@pytest.mark.slow
def test_a_run_of_two_processes_is_not_resumed_by_one(runs: dict[str, Launched]) -> None:
    folder = runs["alter-lite"].two
    (folder / "results.json").unlink()
    with pytest.raises(CheckpointError, match=r"run of 2 process\(es\), this one has 1; resume with 2"):
        train(load_recipe(folder / "recipe.yaml"), output_dir=folder, resume=True)


@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_accumulating_two_batches_of_four_equals_one_batch_of_eight(tmp_path: Path, preset: str) -> None:
    whole = toy(tmp_path, settings={**NO_DROPOUT, "preset": preset})
    halves = changed(whole, {"train": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}})
    train(whole, output_dir=tmp_path / "whole")
    train(halves, output_dir=tmp_path / "halves")
    assert_close(tmp_path / "whole", tmp_path / "halves", tolerance=1e-6)


def test_a_last_step_with_fewer_rows_than_micro_batches_is_the_same_mean(tmp_path: Path) -> None:
    # 9 rows in steps of 8: the second step has one row, and four micro-batches to put it in.
    settings = {**NO_DROPOUT, "stages": {"stage1": {"num_train_epochs": 2, "max_steps": None}, "stage2": {"num_train_epochs": 0}}}
    whole = toy(tmp_path, tasks=["topic"], sizes={"train": 9}, settings=settings)
    quarters = changed(whole, {"train": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}})
    train(whole, output_dir=tmp_path / "whole")
    train(quarters, output_dir=tmp_path / "quarters")
    assert len(steps(tmp_path / "whole")) == 4
    assert_close(tmp_path / "whole", tmp_path / "quarters", tolerance=1e-6)
