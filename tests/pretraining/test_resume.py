"""A run that is killed and resumed ends with the same weights, bit by bit, as one that never stopped."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pretraining.conftest import GPT2, recipe_of
from tests.tiny import save_tiny, save_tiny_lm

from alter.errors import CheckpointError
from alter.pretraining.observer import Unwatched
from alter.pretraining.run import PretrainRun, pretrain
from alter.tensors import load_tensors
from alter.training.state import checkpoints_in

ROOT = Path(__file__).resolve().parents[2]
TRAIN = {"max_steps": 8, "eval_steps": 3, "save_steps": 2, "logging_steps": 3, "dropout": True}


class StopError(Exception):
    """Stands for whatever ends a process."""


class StopAt(Unwatched):
    """Raises after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def stepped(self, step: int, share: float) -> None:
        if step == self.at:
            raise StopError


class KillAt(Unwatched):
    """Ends its own process at once, with nothing tidied up."""

    def __init__(self, step: int) -> None:
        self.at = step

    def stepped(self, step: int, share: float) -> None:
        if step == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def child(recipe: Path, folder: Path, step: int) -> None:
    pretrain(recipe, output_dir=folder, observer=KillAt(step))


def weights(run: PretrainRun) -> dict[str, torch.Tensor]:
    return load_tensors(run.model / "model.safetensors")


def equal(one: PretrainRun, two: PretrainRun) -> bool:
    first, second = weights(one), weights(two)
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def timeless(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key not in ("seconds", "tokens_per_second")} for line in lines]


@pytest.fixture(scope="module", params=["t5", "gpt2"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    settings = {"model": GPT2} if request.param == "gpt2" else {}
    optimizer = {"optimizer": "adamw" if request.param == "gpt2" else "adamw_scaled"}
    return recipe_of(tmp_path_factory.mktemp("recipe"), train={**TRAIN, **optimizer}, **settings)


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> PretrainRun:
    return pretrain(recipe, output_dir=tmp_path_factory.mktemp("runs") / "whole")


def test_broken_off_again_and_again_it_ends_the_same(recipe: Path, whole: PretrainRun, tmp_path: Path) -> None:
    chance = random.Random(0)
    folder = tmp_path / "run"
    for attempt, step in enumerate(sorted(chance.sample(range(1, 8), 4))):
        with pytest.raises(StopError):
            pretrain(recipe, output_dir=folder, observer=StopAt(step), resume=attempt > 0)
    run = pretrain(recipe, output_dir=folder, resume=True)
    assert equal(run, whole)
    assert timeless(folder) == timeless(whole.folder)
    assert [point[2:] for point in run.results["curve"]] == [point[2:] for point in whole.results["curve"]]
    assert run.results["tokens"] == whole.results["tokens"]


def test_a_killed_process_can_be_gone_on_with(recipe: Path, whole: PretrainRun, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = multiprocessing.get_context("spawn").Process(target=child, args=(recipe, folder, 5))
    process.start()
    process.join(timeout=120)
    assert process.exitcode == -signal.SIGKILL
    assert [path.name for path in checkpoints_in(folder / "checkpoints")] == ["stage1-000002", "stage1-000004"]
    assert equal(pretrain(recipe, output_dir=folder, resume=True), whole)


def test_two_runs_are_equal_and_another_seed_is_not(recipe: Path, whole: PretrainRun, tmp_path: Path) -> None:
    assert equal(pretrain(recipe, output_dir=tmp_path / "same"), whole)
    assert not equal(pretrain(recipe, output_dir=tmp_path / "other", overrides=["seed=1"]), whole)


def test_a_finished_run_is_returned_as_it_is(recipe: Path, whole: PretrainRun) -> None:
    assert pretrain(recipe, output_dir=whole.folder, resume=True).results == whole.results


def test_a_run_of_other_text_cannot_be_gone_on_with(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(StopError):
        pretrain(recipe, output_dir=tmp_path / "run", observer=StopAt(3))
    (tmp_path / "train.txt").write_text("Something else.", encoding="utf-8")
    with pytest.raises(CheckpointError, match="the training text changed"):
        pretrain(recipe, output_dir=tmp_path / "run", resume=True)


def test_a_run_from_another_base_cannot_be_gone_on_with(tmp_path: Path) -> None:
    base = save_tiny_lm(tmp_path / "base", "t5")
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(base))
    with pytest.raises(StopError):
        pretrain(recipe, output_dir=tmp_path / "run", observer=StopAt(3))
    save_tiny_lm(base, "t5", seed=1)
    with pytest.raises(CheckpointError, match="the model that the run started from changed since"):
        pretrain(recipe, output_dir=tmp_path / "run", resume=True)
    save_tiny_lm(base, "t5")
    assert pretrain(recipe, output_dir=tmp_path / "run", resume=True).results["steps"] == 4


@pytest.mark.filterwarnings("ignore::FutureWarning")  # EncoderDecoderModel warns with every loss
@pytest.mark.parametrize("freeze_encoder", [True, False])
def test_a_warm_start_is_gone_on_with_and_not_made_again(freeze_encoder: bool, tmp_path: Path) -> None:
    save_tiny(tmp_path / "encoder", "bert")
    decoder = {"architecture": "bert", "config": {"num_hidden_layers": 1, "max_position_embeddings": 64}}
    settings = {"encoder": str(tmp_path / "encoder"), "warm_start": True, "freeze_encoder": freeze_encoder, "decoder": decoder}
    recipe = recipe_of(tmp_path, model=None, encoder_decoder=settings, objective="text_infilling", train=TRAIN)
    whole = pretrain(recipe, output_dir=tmp_path / "whole")
    for attempt, step in enumerate((1, 3, 6)):  # before the first checkpoint, and after some
        with pytest.raises(StopError):
            pretrain(recipe, output_dir=tmp_path / "run", observer=StopAt(step), resume=attempt > 0)
    run = pretrain(recipe, output_dir=tmp_path / "run", resume=True)
    assert equal(run, whole)
    assert timeless(run.folder) == timeless(whole.folder)
    assert [point[2:] for point in run.results["curve"]] == [point[2:] for point in whole.results["curve"]]


@pytest.mark.parametrize("file", ["state.json", "model.safetensors", "optimizer.safetensors", "best.safetensors"])
def test_a_damaged_checkpoint_is_told_with_its_file(file: str, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    with pytest.raises(StopError):
        pretrain(recipe, output_dir=tmp_path / "run", observer=StopAt(2))
    [path] = [folder / file for folder in checkpoints_in(tmp_path / "run" / "checkpoints")]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match=file):
        pretrain(recipe, output_dir=tmp_path / "run", resume=True)


@pytest.mark.slow
def test_two_processes_learn_what_one_does_from_blocks_twice_as_many(tmp_path: Path) -> None:
    train = {"max_steps": 4, "eval_steps": 2, "per_device_train_batch_size": 4}
    recipe = recipe_of(tmp_path, train=train)
    one = pretrain(recipe, output_dir=tmp_path / "one")
    halved = recipe_of(tmp_path, train={**train, "per_device_train_batch_size": 2})
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = Path(__file__).with_name("launched.py")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(script), str(halved), str(tmp_path / "two")], env=environment, check=True, timeout=300)
    two = json.loads((tmp_path / "two" / "results.json").read_text(encoding="utf-8"))
    assert [point[2] for point in two["curve"]] == pytest.approx([point[2] for point in one.results["curve"]], abs=1e-4)
    assert two["tokens"] == one.results["tokens"]
