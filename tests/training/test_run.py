from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipes import changed, journal, steps, toy, weights, write_jsonl

from alter.errors import CheckpointError, ConfigError, DataError
from alter.recipe import Recipe, load_recipe
from alter.results import read_results
from alter.training.run import Run, train

LITE_FILES = {
    "README.md", "alter_config.json", "gates.safetensors", "heads.safetensors",
    *(f"adapters/{task}/{name}" for task in ("mood", "topic", "stars", "reply")
      for name in ("adapter_config.json", "adapter_model.safetensors")),
    *(f"shared/{number}/{name}" for number in (0, 1) for name in ("adapter_config.json", "adapter_model.safetensors")),
}  # fmt: skip


@pytest.fixture(scope="module", params=["alter-lite", "alter"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy(tmp_path_factory.mktemp("toy"), settings={"preset": request.param})


@pytest.fixture(scope="module")
def run(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(recipe, output_dir=tmp_path_factory.mktemp("runs") / "run")


def test_the_same_seed_gives_the_same_run_bit_for_bit(recipe: Recipe, run: Run, tmp_path: Path) -> None:
    again = train(recipe, output_dir=tmp_path / "again")
    assert len(steps(run)) == 5
    assert journal(run) == journal(again)
    assert weights(run) == weights(again)


def test_another_seed_gives_another_run(recipe: Recipe, run: Run, tmp_path: Path) -> None:
    other = train(changed(recipe, {"seed": 1}), output_dir=tmp_path / "other")
    assert all(mine["loss"] != theirs["loss"] for mine, theirs in zip(steps(run), steps(other), strict=True))


def test_the_run_directory_holds_what_is_promised(recipe: Recipe, run: Run) -> None:
    top = {path.name for path in run.folder.iterdir() if not path.name.startswith(".")}
    assert top == {"recipe.yaml", "results.json", "metrics.jsonl", "checkpoints", "model", "predictions", "gates.json"}
    predictions = {str(path.relative_to(run.folder / "predictions")) for path in (run.folder / "predictions").rglob("*.jsonl")}
    assert predictions == {f"{split}/{task.name}.jsonl" for split in ("validation", "test") for task in recipe.tasks}
    files = {str(path.relative_to(run.folder / "model")) for path in (run.folder / "model").rglob("*") if path.is_file()}
    assert files == (LITE_FILES if recipe.preset == "alter-lite" else LITE_FILES | {"backbone.safetensors"})
    checkpoints = sorted(path.name for path in (run.folder / "checkpoints").iterdir())
    assert checkpoints == ["best-stage1.safetensors", "best-stage2.safetensors", "stage1-000003", "stage2-000002"]


def test_no_draft_is_left_behind(run: Run) -> None:
    hidden = sorted(path.name for path in run.folder.rglob(".*"))
    assert hidden == [".lock"]


def test_recipe_yaml_reloads_to_the_same_recipe(recipe: Recipe, run: Run) -> None:
    assert load_recipe(run.folder / "recipe.yaml") == recipe


def test_results_json_has_schema_1_and_says_what_the_run_reached(recipe: Recipe, run: Run) -> None:
    content = json.loads((run.folder / "results.json").read_text())
    assert next(iter(content)) == "schema"
    assert content["schema"] == 1
    assert (content["recipe"], content["seed"], content["preset"]) == ("toy", 0, recipe.preset)
    assert content["stages"].keys() == {"stage1", "stage2"}
    assert content["stages"]["stage1"]["steps"] == 3
    assert content["splits"].keys() == {"validation", "test"}
    for split in content["splits"].values():
        scores = split["tasks"]
        assert list(scores) == ["mood", "topic", "stars", "reply"]
        assert {score["num_examples"] for score in scores.values()} == {12}
        assert split["average"] == pytest.approx(sum(score["score"] for score in scores.values()) / 4)
    assert content["splits"]["validation"]["average"] == pytest.approx(content["stages"][content["released"]]["average"])
    assert read_results(run.folder / "results.json") == run.results


def test_the_journal_has_a_line_per_step_and_per_validation(run: Run) -> None:
    lines = journal(run)
    assert [(line["event"], line["stage"], line["step"]) for line in lines] == [
        ("step", "stage1", 1), ("step", "stage1", 2), ("step", "stage1", 3), ("validation", "stage1", 3),
        ("step", "stage2", 1), ("step", "stage2", 2), ("validation", "stage2", 2),
    ]  # fmt: skip
    for line in steps(run):
        assert line["loss"] > 0
        assert line["grad_norm"] > 0
        assert set(line["losses"]) <= {"mood", "topic", "stars", "reply"}


def test_the_released_model_predicts(run: Run) -> None:
    [prediction] = run.load().predict("mood", ["they love it"])
    assert prediction.label in ("pleased", "upset")


def test_a_recipe_without_stage_2_reloads_without_it(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage2": None}})
    run = train(recipe, output_dir=tmp_path / "run")
    assert list(run.results.stages) == ["stage1"]
    assert run.results.released == "stage1"
    assert load_recipe(run.folder / "recipe.yaml") == recipe
    assert train(run.folder / "recipe.yaml", output_dir=run.folder, resume=True).results == run.results


def test_stage_2_alone_is_released_where_stage_1_is_skipped(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"stages": {"stage1": {"num_train_epochs": 0}}})
    run = train(recipe, output_dir=tmp_path / "run")
    assert list(run.results.stages) == ["stage2"]
    assert run.results.released == "stage2"
    assert run.load().model.router == "gate"


def test_a_recipe_with_nothing_to_train_is_refused(tmp_path: Path) -> None:
    settings = {"stages": {"stage1": {"num_train_epochs": 0}, "stage2": {"num_train_epochs": 0}}}
    with pytest.raises(ConfigError, match=r"nothing to train; raise stages\.stage1\.num_train_epochs"):
        train(toy(tmp_path, tasks=["mood"], settings=settings), output_dir=tmp_path / "run")


def test_overrides_beside_a_resolved_recipe_are_refused(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="hand the overrides to load_recipe"):
        train(recipe, output_dir=tmp_path / "run", overrides=["seed=3"])


def test_overrides_of_a_recipe_file_count(tmp_path: Path) -> None:
    toy(tmp_path, tasks=["mood"])
    run = train(
        tmp_path / "recipe.yaml",
        output_dir=tmp_path / "run",
        overrides=["seed=3", "stages.stage1.max_steps=1", "stages.stage2.num_train_epochs=0"],
    )
    assert (run.results.seed, run.results.stages["stage1"].steps) == (3, 1)


def test_a_max_length_beyond_the_base_s_positions_is_refused(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"max_length": 512})
    with pytest.raises(ConfigError, match="max_length is 512, but this base model has 160 positions; set max_length: 160"):
        train(recipe, output_dir=tmp_path / "run")


def test_a_family_that_counts_positions_from_behind_its_padding_has_fewer(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], family="roberta", settings={"max_length": 160})
    with pytest.raises(ConfigError, match="this base model has 159 positions"):
        train(recipe, output_dir=tmp_path / "run")


def test_a_family_without_absolute_positions_has_no_such_limit(tmp_path: Path) -> None:
    settings = {"max_length": 512, "stages": {"stage1": {"max_steps": 1}, "stage2": None}}
    assert train(
        toy(tmp_path, tasks=["mood"], family="modernbert", settings=settings), output_dir=tmp_path / "run"
    ).results.stages


def test_bad_rows_are_told_with_file_and_line_before_training(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"])
    rows: list[dict[str, Any]] = [{"text": "good", "label": "pleased"}, {"text": "", "label": "upset"}]
    path = write_jsonl(tmp_path / "mood-train.jsonl", rows)
    with pytest.raises(DataError, match=f"{path}:2"):
        train(recipe, output_dir=tmp_path / "run")


def test_a_task_without_validation_rows_is_refused(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"])
    source = recipe.tasks[0].source
    assert source is not None
    task = recipe.tasks[0].model_copy(update={"source": source.model_copy(update={"validation": None})})
    with pytest.raises(DataError, match=r"task 'mood' has no validation rows; name a file under source\.validation"):
        train(recipe.model_copy(update={"tasks": [task]}), output_dir=tmp_path / "run")


def test_a_finished_run_is_not_overwritten(recipe: Recipe, run: Run) -> None:
    before = weights(run)
    with pytest.raises(CheckpointError, match="holds a finished run; choose another --output-dir, or delete it first"):
        train(recipe, output_dir=run.folder)
    assert weights(run) == before


def test_resuming_a_finished_run_returns_it(recipe: Recipe, run: Run) -> None:
    stamp = (run.folder / "results.json").stat().st_mtime_ns
    assert train(recipe, output_dir=run.folder, resume=True).results == run.results
    assert (run.folder / "results.json").stat().st_mtime_ns == stamp


def test_test_scores_of_every_stage_come_where_they_are_asked_for(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood", "stars"], settings={"train": {"test_stages": "all"}})
    run = train(recipe, output_dir=tmp_path / "run")
    stages = run.results.stages
    assert all(stage.test is not None and stage.test.tasks["mood"].num_examples == 12 for stage in stages.values())
    assert stages[run.results.released].test == run.results.splits["test"]


def test_stages_have_no_test_scores_where_there_are_no_test_rows(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"], settings={"train": {"test_stages": "all"}})
    source = recipe.tasks[0].source
    assert source is not None
    task = recipe.tasks[0].model_copy(update={"source": source.model_copy(update={"test": None})})
    run = train(recipe.model_copy(update={"tasks": [task]}), output_dir=tmp_path / "run")
    assert [stage.test for stage in run.results.stages.values()] == [None, None]
    assert list(run.results.splits) == ["validation"]
