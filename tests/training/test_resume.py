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
import torch
import yaml
from safetensors.torch import save_file
from tests.recipes import StopAt, StopError, changed, journal, toy, train_in_child, weights
from tests.tiny import save_tiny

from alter.errors import CheckpointError, TrainingError
from alter.recipe import Recipe, load_recipe
from alter.results import Results
from alter.tensors import load_tensors
from alter.training.run import Run, train
from alter.training.state import Progress, checkpoints_in, prune, save_checkpoint

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
        del stage["seconds"], stage["peak_memory_bytes"]
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
            run = train(recipe, output_dir=folder, resume=folder.exists(), observer=StopAt(1))
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
    other = train(lite, output_dir=tmp_path / "other")
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
        codes.append(attempt(tmp_path / "killed", generator.uniform(0.02, 0.15) * 1.15 ** len(codes)))
    assert codes.count(-9) >= 1
    assert set(codes) == {-9, 0}
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    assert journal(tmp_path / "killed") == journal(tmp_path / "whole")


def test_a_second_start_in_an_unfinished_run_needs_resume(lite: Recipe, copy: Path) -> None:
    with pytest.raises(CheckpointError, match="holds an unfinished run; add --resume to go on with it"):
        train(lite, output_dir=copy)


def test_a_recipe_of_an_earlier_version_lacks_settings_and_is_resumed_all_the_same(lite: Recipe, copy: Path) -> None:
    saved = copy / "recipe.yaml"
    content = yaml.safe_load(saved.read_text(encoding="utf-8"))
    for stage in content["stages"].values():
        assert stage.pop("adapter_dropout") == 0.0
    saved.write_text(yaml.safe_dump(content), encoding="utf-8")
    assert train(lite, output_dir=copy, resume=True).results.released
    content["stages"]["stage1"]["no_setting"] = 1
    saved.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"other settings than this recipe \(.*stages\.stage1\.no_setting"):
        train(lite, output_dir=copy, resume=True)


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
    with pytest.raises(CheckpointError, match=r"the base model .* changed .* Resume with the base that the run was started with"):
        train(recipe, output_dir=copy, resume=True)
    forget_origin(copy)
    with pytest.raises(CheckpointError, match=r"does not fit this model .* Resume with the base that the run was started with"):
        train(recipe, output_dir=copy, resume=True)


def forget_origin(folder: Path) -> None:
    """Make the newest checkpoint one of an earlier version, which did not say what it was trained on."""
    path = newest(folder) / "state.json"
    state = json.loads(path.read_text())
    assert len(state.pop("rows_digest")) == len(state.pop("base_fingerprint")) == 16
    path.write_text(json.dumps(state))


def test_a_checkpoint_of_an_earlier_version_resumes(lite: Recipe, copy: Path, tmp_path: Path) -> None:
    forget_origin(copy)
    run = train(lite, output_dir=copy, resume=True)
    assert weights(run) == weights(train(lite, output_dir=tmp_path / "whole"))
    assert json.loads((newest(copy) / "state.json").read_text())["rows_digest"]


@pytest.mark.parametrize("what", ["rows", "base"])
def test_changed_rows_and_a_changed_base_are_told_apart_and_refused(tmp_path: Path, what: str) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings=SETTINGS)
    folder = stopped(recipe, tmp_path / "run", 2)
    if what == "rows":
        path = tmp_path / "mood-train.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[1:], lines[0]]) + "\n")  # the same rows in another order
    else:
        path = tmp_path / "base" / "model.safetensors"
        tensors = load_tensors(path)
        name = next(name for name in tensors if name.endswith("word_embeddings.weight"))
        save_file({**tensors, name: tensors[name] + 1}, path, metadata={"format": "pt"})
    says = {"rows": "the training rows changed since", "base": "the base model .* changed since"}[what]
    with pytest.raises(CheckpointError, match=rf"stage1-000002: {says} the run was started"):
        train(recipe, output_dir=folder, resume=True)


@pytest.mark.parametrize("there", [True, False])
def test_a_folder_without_a_run_has_nothing_to_resume(lite: Recipe, tmp_path: Path, there: bool) -> None:
    folder = tmp_path / "run"
    if there:
        folder.mkdir()
    with pytest.raises(CheckpointError, match=r"nothing to resume in .*run \(recipe\.yaml is missing\); drop --resume, or give"):
        train(lite, output_dir=folder, resume=True)
    assert folder.exists() == there
    assert not (folder / "recipe.yaml").exists()


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


def test_folders_of_other_names_are_neither_resumed_nor_deleted_and_steps_are_numbers(tmp_path: Path) -> None:
    names = ["stage1-999999", "stage1-1000000", "stage2-000001"]
    others = ["my-notes", "stage1-000002-kept", "stage3-000001", "stage1-best"]
    for name in [*names, *others]:
        (tmp_path / name).mkdir()
    assert [path.name for path in checkpoints_in(tmp_path)] == names
    prune(tmp_path, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"stage2-000001", *others}


def test_a_checkpoint_that_cannot_be_replaced_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, progress = tmp_path / "stage1-000001", Progress(stage="stage1", step=1)
    save_checkpoint(folder, progress, {"model": {"x": torch.zeros(1)}})
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if target == folder and ".old" not in self.name:
            raise OSError("no")
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(TrainingError, match="stage1-000001: cannot be written"):
        save_checkpoint(folder, progress, {"model": {"x": torch.ones(1)}})
    assert load_tensors(folder / "model.safetensors")["x"].item() == 0
    monkeypatch.undo()
    save_checkpoint(folder, progress, {"model": {"x": torch.ones(1)}})
    assert load_tensors(folder / "model.safetensors")["x"].item() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["stage1-000001"]


def test_a_checkpoint_is_readable_without_this_library(broken_off: Path) -> None:
    folder = newest(broken_off)
    state = json.loads((folder / "state.json").read_text())
    assert (state["format"], state["stage"], state["step"]) == (1, "stage1", 2)
    assert "heads.heads.0.weight" in load_tensors(folder / "model.safetensors")
    assert "heads.heads.0.weight|exp_avg" in load_tensors(folder / "optimizer.safetensors")
