from __future__ import annotations

import errno
import gc
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes import StopAt, StopError, changed, journal, toy, toy_rows, weights, write_jsonl
from tests.training.test_stages import Watch

import alter.evaluation
import alter.results
import alter.tensors
from alter.data.encode import Features
from alter.errors import CheckpointError, ConfigError, TrainingError
from alter.recipe import Recipe
from alter.tasks.validate import validate_recipe
from alter.tensors import load_tensors
from alter.training.journal import Journal
from alter.training.remarks import about_cuts
from alter.training.run import Run, train
from alter.training.rundir import RunDirectory
from alter.training.state import checkpoints_in, load_progress
from alter.training.trainer import Trainer

HOLD = """
import fcntl, os, sys
lock = os.open(sys.argv[1], os.O_CREAT | os.O_RDWR)
fcntl.flock(lock, fcntl.LOCK_EX)
os.write(lock, str(os.getpid()).encode())
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    settings = {"train": {"save_steps": 1}, "stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 2}}}
    return toy(tmp_path_factory.mktemp("toy"), tasks=["mood", "stars"], settings=settings)


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, output_dir=tmp_path_factory.mktemp("runs") / "whole")


@pytest.mark.parametrize("logging_steps", [1, 100])
def test_a_loss_that_is_no_number_names_stage_step_and_remedy_and_the_last_checkpoint_loads(
    recipe: Recipe, tmp_path: Path, logging_steps: int
) -> None:
    folder = tmp_path / "hot"
    hot = changed(recipe, {
        "train": {"logging_steps": logging_steps},
        "stages": {"stage1": {"max_steps": 40, "lr_scheduler_type": "constant", "learning_rates": {"adapters": 1e30}}},
    })  # fmt: skip
    watch = Watch()
    with pytest.raises(TrainingError) as caught:
        train(hot, output_dir=folder, observer=watch)
    found = re.search(r"stage1, step (\d+): the loss is (nan|inf)", str(caught.value))
    assert found is not None, str(caught.value)
    assert "Lower stages.stage1.learning_rates, or train.max_grad_norm" in str(caught.value)
    assert watch.closings == 1
    kept = checkpoints_in(folder / "checkpoints")
    assert kept, "a checkpoint was saved before the loss went wrong"
    assert load_progress(kept[-1]).step == int(found[1]) - 1
    assert all(torch.isfinite(tensor).all() for tensor in load_tensors(kept[-1] / "model.safetensors").values())


class Break(Watch):
    """Breaks the model behind the optimizer's back after its first step, as an update may."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def stepped(self, stage: str, step: int) -> None:
        trainer = next(found for found in gc.get_objects() if isinstance(found, Trainer) and found.observer is self)
        with torch.no_grad():
            trainer.changing["heads.heads.0.bias"].fill_(self.value)


@pytest.mark.parametrize(("value", "eval_steps"), [(float("nan"), 1), (float("inf"), 2)])
def test_a_model_that_an_update_broke_is_neither_scored_nor_saved(
    recipe: Recipe, tmp_path: Path, value: float, eval_steps: int
) -> None:
    watch = Break(value)
    with pytest.raises(
        TrainingError, match=r"stage1, step 1: the update made 1 of \d+ parameters NaN.*Lower stages\.stage1"
    ) as told:
        train(changed(recipe, {"stages": {"stage1": {"eval_steps": eval_steps}}}), output_dir=tmp_path / "run", observer=watch)
    assert "first heads.heads.0.bias" in str(told.value)
    assert watch.averages == {}
    assert checkpoints_in(tmp_path / "run" / "checkpoints") == []


def test_outputs_beyond_all_numbers_are_told_with_stage_and_step(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def outputs_of(*arguments: Any, **options: Any) -> None:
        raise TrainingError("the model's outputs are NaN or infinite")

    monkeypatch.setattr(alter.evaluation, "outputs_of", outputs_of)
    with pytest.raises(TrainingError, match=r"stage1, step 2: the model's outputs are NaN or infinite.*Lower stages\.stage1"):
        train(changed(recipe, {"train": {"save_steps": 2}}), output_dir=tmp_path / "run")
    assert checkpoints_in(tmp_path / "run" / "checkpoints") == []


def test_fp16_without_an_accelerator_is_refused_before_anything_is_read(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    with pytest.raises(
        ConfigError, match=r"train\.mixed_precision is fp16, but .* set train\.mixed_precision to auto, bf16 or no"
    ):
        train(changed(recipe, {"train": {"mixed_precision": "fp16"}}), output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_stage_without_parameters_is_refused_before_stage_1(recipe: Recipe, tmp_path: Path) -> None:
    empty = changed(recipe, {"mta": {"num_shared": 0}, "stages": {"stage2": {"trains": ["shared_adapters"]}}})
    watch = Watch()
    with pytest.raises(
        ConfigError, match=r"stages\.stage2\.trains is \[shared_adapters\], and this model has no such parameters"
    ):
        train(empty, output_dir=tmp_path / "run", observer=watch)
    assert watch.started == []


def test_cut_training_rows_are_counted_and_told_once(recipe: Recipe, tmp_path: Path) -> None:
    watch = Watch()
    train(recipe.model_copy(update={"max_length": 7}), output_dir=tmp_path / "run", observer=watch)
    cut = [warning for warning in watch.warnings if "max_length" in warning]
    assert len(cut) == 2
    for warning, task in zip(cut, ["mood", "stars"], strict=True):
        found = re.fullmatch(
            rf"(\d+) of 24 training rows of task '{task}' are longer than max_length=7 tokens and were cut; raise max_length",
            warning,
        )
        assert found is not None, warning
        assert 0 < int(found[1]) < 24


def test_one_cut_row_is_told_of_as_one() -> None:
    short = Features(inputs={"input_ids": [1]}, task_id=0)
    long = replace(short, truncated=True, target_truncated=True)
    recipe = Recipe.model_construct(name="r", model_name_or_path="m", max_length=7, max_target_length=5, tasks=[])
    assert about_cuts(recipe, {"none": [short], "one": [long], "two": [long, short, long]}) == [
        "1 of 1 training row of task 'one' is longer than max_length=7 tokens and was cut; raise max_length",
        "the target of 1 of 1 training row of task 'one' is longer than max_target_length=5 tokens and was cut; raise "
        "max_target_length",
        "2 of 3 training rows of task 'two' are longer than max_length=7 tokens and were cut; raise max_length",
        "the targets of 2 of 3 training rows of task 'two' are longer than max_target_length=5 tokens and were cut; raise "
        "max_target_length",
    ]


def test_what_validation_warns_of_is_told_once_at_the_start_of_training_too(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood", "topic"], settings={"stages": {"stage1": {"max_steps": 2}, "stage2": None}})
    held_out = [row for row in toy_rows("topic", 12, seed="validation") if row["label"] != "parcel"]
    write_jsonl(tmp_path / "topic-validation.jsonl", held_out)
    expected = [
        "task 'topic': 1 label of its training rows ('parcel') stands in no validation row; the best step is chosen without looking at "
        "it: add such validation rows"
    ]
    assert validate_recipe(recipe).warnings == expected
    started, resumed = Watch(), Watch()
    train(recipe, output_dir=tmp_path / "run", observer=started)
    assert [warning for warning in started.warnings if "validation row" in warning] == expected
    (tmp_path / "run" / "results.json").unlink()
    train(recipe, output_dir=tmp_path / "run", observer=resumed, resume=True)
    assert [warning for warning in resumed.warnings if "validation row" in warning] == []


def test_the_journal_is_strict_json(tmp_path: Path) -> None:
    Journal(tmp_path / "metrics.jsonl").write({"event": "step", "grad_norm": float("inf"), "losses": {"mood": float("nan")}})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"event": "step", "grad_norm": null, "losses": {"mood": null}}\n'


def test_a_base_with_infinite_weights_is_found_out_at_the_first_step(recipe: Recipe, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other = toy(tmp_path, tasks=["mood"])
    path = tmp_path / "base" / "model.safetensors"
    tensors = load_tensors(path)
    name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
    tensors[name][:] = float("inf")
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"stage1, step 1: the loss is nan.*\(tasks: mood\)"):
        train(other, output_dir=tmp_path / "run")


def full_after(number: int, real: Callable[..., None]) -> Callable[..., None]:
    """Return `real` on a disk that is full from the call `number` on, counted from 1."""
    calls = 0

    def write(*arguments: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= number:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*arguments, **options)

    return write


# A run of 2 + 2 steps writes: 2 + 3 files of checkpoints in stage 1, the best of it, 2 + 3 and the best of stage 2, then model/.
@pytest.mark.parametrize("number", [1, 2, 4, 6, 8, 11, 12, 13, 17])
def test_a_full_disk_at_any_file_leaves_what_was_saved_and_the_run_resumes(
    recipe: Recipe, whole: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    folder = tmp_path / "run"
    monkeypatch.setattr(alter.tensors, "save_file", full_after(number, alter.tensors.save_file))
    with pytest.raises(TrainingError, match=r"the disk is full \(\d+ MiB free\); nothing already saved is lost.* --resume"):
        train(recipe, output_dir=folder)
    monkeypatch.undo()
    for checkpoint in checkpoints_in(folder / "checkpoints"):
        assert load_progress(checkpoint).step >= 1
        assert load_tensors(checkpoint / "model.safetensors")
        assert load_tensors(checkpoint / "optimizer.safetensors")
    assert [path.name for path in folder.rglob(".*") if path.name != ".lock"] == []
    assert not (folder / "results.json").exists()
    run = train(recipe, output_dir=folder, resume=True)
    assert weights(run) == weights(whole)
    assert journal(run) == journal(whole)


def test_a_full_disk_at_results_json_is_a_clear_error_too(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = alter.results.os.fsync
    seen: list[int] = []

    def fsync(handle: int) -> None:
        name = Path(f"/proc/self/fd/{handle}").resolve().name
        if name.startswith(".results.json"):
            seen.append(handle)
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    monkeypatch.setattr(alter.results.os, "fsync", fsync)
    with pytest.raises(TrainingError, match=r"results\.json: the disk is full"):
        train(recipe, output_dir=tmp_path / "run")
    assert seen
    monkeypatch.undo()
    assert train(recipe, output_dir=tmp_path / "run", resume=True).load().tasks == ["mood", "stars"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_journal_on_a_full_disk_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
    with pytest.raises(TrainingError, match=r"metrics\.jsonl: the disk is full|metrics\.jsonl: cannot be written"):
        Journal(tmp_path / "metrics.jsonl").write({"event": "step"})


def test_a_second_writer_is_refused_and_named(recipe: Recipe, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", HOLD, str(folder / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(
            CheckpointError, match=rf"another process \(pid {holder.pid}\) is training here; wait for it, or choose"
        ):
            train(recipe, output_dir=folder)
        holder.communicate()
    assert not (folder / "recipe.yaml").exists()
    with RunDirectory(folder, recipe, resume=False) as directory:  # the lock goes with its holder, however that one ended
        assert not directory.finished


def test_a_run_that_failed_lets_go_of_its_lock(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(recipe, output_dir=tmp_path / "run", observer=StopAt(1))
    assert train(recipe, output_dir=tmp_path / "run", resume=True).results.stages.keys() == {"stage1", "stage2"}


def test_an_output_dir_that_is_a_file_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("precious")
    with pytest.raises(CheckpointError, match=r"run: cannot be made or written \(File exists\); choose another --output-dir"):
        train(recipe, output_dir=tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"cannot be made or written \(Not a directory\)"):
        train(recipe, output_dir=tmp_path / "run" / "below")
    assert (tmp_path / "run").read_text() == "precious"


def test_a_task_that_always_gets_one_answer_is_warned_of(tmp_path: Path) -> None:
    stage1 = {"max_steps": 3, "lr_scheduler_type": "constant", "learning_rates": {"heads": 50.0, "adapters": 1e-9}}
    watch = Watch()
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": stage1, "stage2": None}})
    run = train(recipe, output_dir=tmp_path / "run", observer=watch)
    score = run.results.splits["validation"].tasks["mood"]
    assert score.constant_prediction in ("pleased", "upset")
    [warning] = watch.warnings
    assert warning.startswith(f"stage1, step 3: one answer for every row on mood (always '{score.constant_prediction}')")
    assert "lower stages.stage1.learning_rates.adapters" in warning


def test_no_collapse_is_told_where_there_is_none(tmp_path: Path) -> None:
    rates = {"adapters": 0.01, "heads": 0.02, "backbone": 0.003}
    stage1 = {"num_train_epochs": 30, "max_steps": 30, "eval_steps": 30, "learning_rates": rates}
    settings = {"preset": "alter", "stages": {"stage1": stage1, "stage2": None}, "train": {"per_device_train_batch_size": 32}}
    watch = Watch()
    run = train(
        toy(tmp_path, tasks=["mood"], sizes={"train": 96}, settings=settings), output_dir=tmp_path / "run", observer=watch
    )
    assert run.results.splits["validation"].tasks["mood"].constant_prediction is None
    assert watch.warnings == []
