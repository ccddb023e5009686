"""What a finished run leaves beside its scores: a prediction per row, gate weights of each stage, memory, numbers of rows."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.recipes import changed, toy, toy_texts

import alter.results
import alter.training.memory as memory
from alter.errors import TrainingError
from alter.gatemap import gate_map
from alter.recipe import Recipe, load_recipe
from alter.results import Results, read_results, write_results
from alter.score import evaluate_model
from alter.training.memory import peak_memory, reset_peak_memory
from alter.training.prepare import eval_sets, read_rows
from alter.training.run import Run, train

CPU = torch.device("cpu")
SELECTING: dict[str, Any] = {"mta": {"selector": {"kind": "selector"}}}


@pytest.fixture(scope="module", params=["alter-lite", "alter", "selector", "t5", "gpt2"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(str(request.param))
    return train(recipe_of(request.param, folder), output_dir=folder / "run")


def recipe_of(name: str, folder: Path) -> Recipe:
    if name in ("t5", "gpt2"):
        return toy_texts(folder, name, settings=SELECTING)
    return toy(folder, settings=SELECTING if name == "selector" else {"preset": name})


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


# ---- predictions/ --------------------------------------------------------------------------------------------------


def test_predictions_are_what_evaluate_writes(run: Run, tmp_path: Path) -> None:
    for split in ("validation", "test"):
        evaluate_model(run.folder, split=split, predictions_dir=tmp_path / split)
        ours = sorted((run.folder / "predictions" / split).iterdir())
        theirs = sorted((tmp_path / split).iterdir())
        assert [path.name for path in ours] == [path.name for path in theirs]
        for mine, other in zip(ours, theirs, strict=True):
            assert mine.read_bytes() == other.read_bytes()


def test_every_row_has_its_line_in_the_order_of_the_rows(run: Run) -> None:
    rows = read_rows(load_recipe(run.folder / "recipe.yaml"))
    for split in ("validation", "test"):
        for spec in rows.specs:
            found = lines(run.folder / "predictions" / split / f"{spec.name}.jsonl")
            examples = rows.splits[split][spec.name]
            assert len(found) == len(examples)
            for record, example in zip(found, examples, strict=True):
                assert record["input"].startswith(example.text)
                assert record["target"] == example.label
                assert set(record["gate_weights"]) >= {"shared-0", "shared-1"}
            shown = [record["prediction"] for record in found]
            score = run.results.splits[split].tasks[spec.name]
            if spec.kind == "classification":
                right = sum(given == record["target"] for given, record in zip(shown, found, strict=True))
                assert score.metrics["accuracy"] == pytest.approx(100 * right / len(found))


def test_a_task_without_test_rows_has_no_file_of_them(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood", "stars"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
    source = recipe.tasks[0].source
    assert source is not None
    mood = recipe.tasks[0].model_copy(update={"source": source.model_copy(update={"test": None})})
    run = train(recipe.model_copy(update={"tasks": [mood, recipe.tasks[1]]}), output_dir=tmp_path / "run")
    assert [path.name for path in (run.folder / "predictions" / "test").iterdir()] == ["stars.jsonl"]
    assert list(run.results.splits["test"].tasks) == ["stars"]
    assert run.results.rows == {
        "mood": {"train": 24, "validation": 12, "test": 0},
        "stars": {"train": 24, "validation": 12, "test": 12},
    }


def test_rows_are_counted_after_caps(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
    task = recipe.tasks[0].model_copy(update={"cap": 7, "validation_cap": 5, "test_cap": 6})
    run = train(recipe.model_copy(update={"tasks": [task]}), output_dir=tmp_path / "run")
    assert run.results.rows == {"mood": {"train": 7, "validation": 5, "test": 6}}


@pytest.mark.parametrize("name", ["predictions/validation/.mood.jsonl", ".gates.json"])
def test_a_full_disk_is_a_clear_error_and_the_run_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = alter.results.os.fsync

    def fsync(handle: int) -> None:
        if name in str(Path(f"/proc/self/fd/{handle}").resolve()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
    monkeypatch.setattr(alter.results.os, "fsync", fsync)
    with pytest.raises(TrainingError, match=r"the disk is full \(\d+ MiB free\); nothing already saved is lost.* --resume"):
        train(recipe, output_dir=tmp_path / "run")
    monkeypatch.undo()
    assert not (tmp_path / "run" / "results.json").exists()
    assert train(recipe, output_dir=tmp_path / "run", resume=True).load().tasks == ["mood"]
    assert len(lines(tmp_path / "run" / "predictions" / "validation" / "mood.jsonl")) == 12


# ---- gates.json ----------------------------------------------------------------------------------------------------


def test_the_gate_map_has_a_weight_for_each_task_site_and_adapter_of_each_stage(run: Run) -> None:
    content = json.loads((run.folder / "gates.json").read_text())
    assert content["schema"] == 1
    model = run.load().model
    assert content["tasks"] == model.task_names
    assert content["adapters"] == [*model.task_names, "shared-0", "shared-1"]
    assert content["sites"] == model.site_positions
    assert content["stages"].keys() == {"stage1", "stage2"}
    for weights_TLE in content["stages"].values():
        assert np.array(weights_TLE).shape == (len(content["tasks"]), len(content["sites"]), len(content["adapters"]))


def test_the_weights_of_a_selector_sum_to_one_over_task_adapters(run: Run) -> None:
    content = json.loads((run.folder / "gates.json").read_text())
    num_tasks = len(content["tasks"])
    weights_TLE = np.array(content["stages"]["stage1"])
    assert weights_TLE.sum(-1) == pytest.approx(np.ones(weights_TLE.shape[:2]), abs=1e-4)
    assert not weights_TLE[..., num_tasks:].any(), "stage 1 has no shared adapters"


def test_the_weights_of_the_paper_s_gate_sum_to_one_over_all_adapters(tmp_path: Path) -> None:
    run = train(toy(tmp_path, settings={"preset": "alter"}), output_dir=tmp_path / "run")
    weights_TLE = np.array(json.loads((run.folder / "gates.json").read_text())["stages"]["stage2"])
    assert weights_TLE.sum(-1) == pytest.approx(np.ones(weights_TLE.shape[:2]), abs=1e-4)
    assert (weights_TLE > 0).all()


def test_each_stage_s_weights_are_those_of_its_own_router_and_parameters(run: Run) -> None:
    """The released stage's map is the released model's own."""
    predictor = run.load()
    rows = read_rows(load_recipe(run.folder / "recipe.yaml"))
    sets = eval_sets(rows, "validation", codec=predictor.codec)
    found = gate_map(predictor.model, {task: one.features for task, one in sets.items()}, codec=predictor.codec)
    content = json.loads((run.folder / "gates.json").read_text())["stages"]
    assert found.tolist() == [
        [[pytest.approx(weight, abs=1e-4) for weight in site] for site in task] for task in content[run.results.released]
    ]
    assert content["stage1"] != content["stage2"]


def test_a_run_of_one_stage_has_one_map(tmp_path: Path) -> None:
    run = train(toy(tmp_path, tasks=["mood"], settings={"stages": {"stage2": None}}), output_dir=tmp_path / "run")
    content = json.loads((run.folder / "gates.json").read_text())
    assert content["stages"] == {"stage1": [[[1.0, 0.0, 0.0]] * 2]}


# ---- memory --------------------------------------------------------------------------------------------------------


def test_each_stage_tells_how_much_memory_it_took(run: Run) -> None:
    for stage in run.results.stages.values():
        assert stage.peak_memory_bytes is not None
        assert stage.peak_memory_bytes > 10 * 2**20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
def test_the_peak_is_of_the_work_since_it_was_reset() -> None:
    large = 300 * 2**20
    block = np.ones(large, dtype=np.uint8)
    with_block = peak_memory(CPU)
    assert block.sum() == large
    del block
    reset_peak_memory(CPU)
    without = peak_memory(CPU)
    assert with_block is not None
    assert without is not None
    assert with_block - without > large // 2
    again = np.ones(large, dtype=np.uint8)
    after = peak_memory(CPU)
    assert after is not None
    assert after - without > large // 2
    assert again.any()


def test_a_system_that_does_not_tell_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "none")
    monkeypatch.setattr(memory, "_CLEAR", tmp_path / "no" / "such")
    reset_peak_memory(CPU)
    assert peak_memory(CPU) is None
    (tmp_path / "other").write_text("VmRSS:\t1 kB\n")
    monkeypatch.setattr(memory, "_STATUS", tmp_path / "other")
    assert peak_memory(CPU) is None


# ---- files of earlier versions -------------------------------------------------------------------------------------

BEFORE = """{"schema": 1, "recipe": "toy", "model": "base", "preset": "alter-lite", "seed": 0,
"stages": {"stage1": {"average": 61.5, "seconds": 2.0, "trainable_parameters": 5, "steps": 3, "best_step": 3, "scores": {"mood": 61.5},
"test": null}}, "released": "stage1", "splits": {}, "baselines": {}, "parameters": {}, "environment": {}}"""


def test_results_of_an_earlier_version_are_read(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text(BEFORE)
    found = read_results(path)
    [stage] = found.stages.values()
    assert (stage.peak_memory_bytes, stage.taken_from, found.rows) == (None, "", {})
    write_results(found, path)
    assert read_results(path) == found


def test_results_say_what_they_always_said(run: Run) -> None:
    content = json.loads((run.folder / "results.json").read_text())
    old = json.loads(BEFORE)
    assert old.keys() <= content.keys()
    assert old["stages"]["stage1"].keys() <= content["stages"]["stage1"].keys()
    assert isinstance(run.results, Results)


def test_a_finished_run_of_an_earlier_version_is_returned_on_resume(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage2": None}})
    run = train(recipe, output_dir=tmp_path / "run")
    (run.folder / "gates.json").unlink()
    content = json.loads((run.folder / "results.json").read_text())
    del content["rows"]
    (run.folder / "results.json").write_text(json.dumps(content))
    again = train(changed(recipe, {}), output_dir=run.folder, resume=True)
    assert again.results.rows == {}
    assert again.results.splits == run.results.splits
