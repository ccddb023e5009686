from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.recipes import StopAt, StopError, changed, journal, toy, train_in_child, weights
from tests.tiny import save_tiny

from alter.errors import CheckpointError
from alter.recipe import Recipe, load_recipe
from alter.results import Results
from alter.tensors import load_tensors
from alter.training.run import Run, train

# Dropout everywhere, a log line over several steps, validation and checkpoints out of step with each other.
SETTINGS: dict[str, Any] = {
    "mta": {"adapter": {"dropout": 0.1}},
    "heads": {"dropout": 0.3},
    "train": {"save_steps": 1, "logging_steps": 3},
    "stages": {"stage1": {"max_steps": 4, "eval_steps": 2}, "stage2": {"max_steps": 3, "eval_steps": 2}},
}


def timeless(results: Results) -> dict[str, Any]:
    content = results.model_dump()
    for stage in content["stages"].values():
        del stage["seconds"]
    return content


def stopped(recipe: Recipe, folder: Path, number: int) -> Path:
    with pytest.raises(StopError):
        train(recipe, output_dir=folder, observer=StopAt(number))
    return folder


@pytest.fixture(scope="module", params=["alter-lite", "alter"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy(tmp_path_factory.mktemp("toy"), dropout=0.1, settings={**SETTINGS, "preset": request.param})


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, output_dir=tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    settings = {**SETTINGS, "stages": {"stage1": {"max_steps": 3, "eval_steps": 1}, "stage2": {"num_train_epochs": 0}}}
    return toy(tmp_path_factory.mktemp("toy"), tasks=["mood", "stars"], settings=settings)


@pytest.fixture(scope="module")
def broken_off(lite: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Break off a run that has saved checkpoints of the steps 1 and 2."""
    return stopped(lite, tmp_path_factory.mktemp("runs") / "broken_off", 2)


@pytest.fixture
def copy(broken_off: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(broken_off, tmp_path / "run"))


def newest(folder: Path) -> Path:
    return max(path for path in (folder / "checkpoints").iterdir() if path.is_dir())


def test_a_run_broken_off_and_resumed_after_every_single_step_equals_one_that_never_stopped(
    recipe: Recipe, whole: Run, tmp_path: Path
) -> None:
    folder, stops = tmp_path / "run", []
    while True:
        try:
            run = train(recipe, output_dir=folder, resume=True, observer=StopAt(1))
        except StopError as stop:
            stops.append(str(stop))
        else:
            break
    assert stops == [f"stage1, step {step}" for step in (2, 3, 4)] + [f"stage2, step {step}" for step in (1, 2, 3)]
    assert weights(run) == weights(whole)
    assert journal(run) == journal(whole)
    assert timeless(run.results) == timeless(whole.results)


def test_a_run_broken_off_between_checkpoints_goes_on_from_the_last_one(recipe: Recipe, whole: Run, tmp_path: Path) -> None:
    # Checkpoints at every second step only; whole differs from this in nothing but when it saved.
    rarely = changed(recipe, {"train": {"save_steps": 2}})
    stopped(rarely, tmp_path / "run", 3)
    assert newest(tmp_path / "run").name == "stage1-000002"
    run = train(rarely, output_dir=tmp_path / "run", resume=True)
    assert weights(run) == weights(whole)
    assert journal(run) == journal(whole)


def test_a_run_broken_off_before_its_first_checkpoint_starts_again(lite: Recipe, tmp_path: Path) -> None:
    stopped(lite, tmp_path / "run", 0)
    once = train(lite, output_dir=tmp_path / "run", resume=True)
    other = train(lite, output_dir=tmp_path / "other", resume=True)
    assert weights(once) == weights(other)
    assert journal(once) == journal(other)


@pytest.mark.slow
def test_a_run_killed_at_random_moments_equals_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = toy(tmp_path, tasks=["mood", "stars"], settings=SETTINGS)
    # One server imports everything once and forks each child; it looks for modules where this process does.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.recipes", "transformers.models.bert.modeling_bert", "sklearn.metrics", "scipy.stats"])
    generator = random.Random(0)

    def attempt(folder: Path, delay: float | None) -> int | None:
        started = context.Event()
        process = context.Process(target=train_in_child, args=(recipe, folder, started))
        process.start()
        assert started.wait(120), "the child never began to train"
        process.join(delay)
        if process.is_alive():
            process.kill()
        process.join()
        return process.exitcode

    assert attempt(tmp_path / "whole", None) == 0
    codes = []
    while not codes or codes[-1] != 0:
        assert len(codes) < 40, "the run never came to its end"
        # Longer each time, so that a slow machine comes to the end too.
        codes.append(attempt(tmp_path / "killed", generator.uniform(0.05, 0.4) * 1.3 ** len(codes)))
    assert codes.count(-9) >= 3
    assert set(codes) == {-9, 0}
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert journal(tmp_path / "killed") == journal(tmp_path / "whole")


def test_a_second_start_in_an_unfinished_run_needs_resume(lite: Recipe, copy: Path) -> None:
    with pytest.raises(CheckpointError, match="holds an unfinished run; add --resume to go on with it"):
        train(lite, output_dir=copy)


def test_other_settings_are_named_and_refused(lite: Recipe, copy: Path) -> None:
    other = changed(lite, {"seed": 7, "stages": {"stage1": {"max_steps": 9}}})
    with pytest.raises(CheckpointError, match=r"other settings than this recipe \(seed, stages\.stage1\.max_steps\)"):
        train(other, output_dir=copy, resume=True)


def test_another_number_of_processes_is_refused(lite: Recipe, copy: Path) -> None:
    path = newest(copy) / "state.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_processes": 2}))
    with pytest.raises(CheckpointError, match=r"run of 2 process\(es\), this one has 1; resume with 2"):
        train(lite, output_dir=copy, resume=True)


@pytest.mark.parametrize("name", ["model", "optimizer", "best"])
def test_a_truncated_checkpoint_file_is_named(lite: Recipe, copy: Path, name: str) -> None:
    path = newest(copy) / f"{name}.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: not a whole safetensors file .* use an earlier checkpoint"):
        train(lite, output_dir=copy, resume=True)


@pytest.mark.parametrize("name", ["model", "optimizer", "best"])
def test_a_missing_checkpoint_file_is_named(lite: Recipe, copy: Path, name: str) -> None:
    (newest(copy) / f"{name}.safetensors").unlink()
    with pytest.raises(CheckpointError, match=rf"{name}\.safetensors: no such file"):
        train(lite, output_dir=copy, resume=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"state\.json: cannot be read .* delete .*stage1-000002 to resume from an earlier checkpoint"),
        (b"{", r"state\.json: cannot be read"),
        (b"\xff\xfe", r"state\.json: cannot be read"),
        (b"[]", r"state\.json: format None, this version reads format 1"),
        (b'{"format": 99}', r"state\.json: format 99, this version reads format 1; resume with the version that wrote it"),
        (b'{"format": 1, "stage": "stage1"}', r"state\.json: the key 'step' is missing.* delete .*stage1-000002"),
    ],
)
def test_a_damaged_state_file_is_named_with_the_remedy(lite: Recipe, copy: Path, content: bytes | None, message: str) -> None:
    path = newest(copy) / "state.json"
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        train(lite, output_dir=copy, resume=True)


def test_the_remedy_works_the_earlier_checkpoint_takes_over(lite: Recipe, copy: Path, tmp_path: Path) -> None:
    shutil.rmtree(newest(copy))
    assert newest(copy).name == "stage1-000001"
    run = train(lite, output_dir=copy, resume=True)
    whole = train(lite, output_dir=tmp_path / "whole")
    assert weights(run) == weights(whole)
    assert journal(run) == journal(whole)


def test_a_base_that_changed_its_shape_is_refused(lite: Recipe, copy: Path, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", num_layers=4)
    recipe = lite.model_copy(update={"model_name_or_path": str(base)})
    saved = (copy / "recipe.yaml").read_text()
    (copy / "recipe.yaml").write_text(saved.replace(lite.model_name_or_path, str(base)))
    with pytest.raises(CheckpointError, match=r"does not fit this model .* Resume with the base that the run was started with"):
        train(recipe, output_dir=copy, resume=True)


def test_a_damaged_recipe_in_the_run_directory_is_named(lite: Recipe, copy: Path) -> None:
    (copy / "recipe.yaml").write_text("tasks: [")
    with pytest.raises(CheckpointError, match=r"recipe\.yaml: cannot be read"):
        train(lite, output_dir=copy, resume=True)


def test_a_folder_of_checkpoints_without_a_recipe_is_left_alone(lite: Recipe, copy: Path) -> None:
    (copy / "recipe.yaml").unlink()
    with pytest.raises(CheckpointError, match=r"holds results of something else \(recipe\.yaml is missing\)"):
        train(lite, output_dir=copy, resume=True)


def test_the_run_s_own_recipe_file_resumes_it(copy: Path) -> None:
    assert load_recipe(copy / "recipe.yaml").name == "toy"
    assert train(copy / "recipe.yaml", output_dir=copy, resume=True).results.released == "stage1"


def test_drafts_of_a_killed_run_are_cleared_away(lite: Recipe, copy: Path) -> None:
    (copy / "checkpoints" / ".stage1-000003.123").mkdir()
    (copy / "checkpoints" / ".best-stage1.safetensors.123").write_bytes(b"half")
    train(lite, output_dir=copy, resume=True)
    assert [path.name for path in (copy / "checkpoints").iterdir() if path.name.startswith(".")] == []


def test_only_the_newest_checkpoints_are_kept(lite: Recipe, tmp_path: Path) -> None:
    run = train(changed(lite, {"train": {"save_total_limit": 1}}), output_dir=tmp_path / "run")
    assert [path.name for path in (run.folder / "checkpoints").iterdir() if path.is_dir()] == ["stage1-000003"]


def test_a_checkpoint_is_readable_without_this_library(broken_off: Path) -> None:
    folder = newest(broken_off)
    state = json.loads((folder / "state.json").read_text())
    assert (state["format"], state["stage"], state["step"]) == (1, "stage1", 2)
    assert "heads.heads.0.weight" in load_tensors(folder / "model.safetensors")
    assert "heads.heads.0.weight|exp_avg" in load_tensors(folder / "optimizer.safetensors")
