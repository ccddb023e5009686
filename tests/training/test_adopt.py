"""Stage 1 taken from another run (`stage1_from`): the same parameters, the same second stage, and refusals where it would not fit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes import StopAt, StopError, changed, journal, toy, toy_rows, toy_texts, weights, write_jsonl
from tests.tiny import save_tiny
from tests.training.test_stages import Watch

from alter.errors import CheckpointError, ConfigError
from alter.recipe import Recipe
from alter.results import Results
from alter.tensors import load_tensors
from alter.training.run import Run, train

SETTINGS: dict[str, Any] = {
    "heads": {"dropout": 0.3},
    "train": {"save_steps": 1, "test_stages": "all"},
    "stages": {
        "stage1": {"max_steps": 3, "eval_steps": 1},
        "stage2": {"max_steps": 3, "eval_steps": 1, "learning_rates": {"adapters": 0.01, "heads": 0.01}},
    },
}


@pytest.fixture(scope="module", params=["alter-lite", "alter"])
def recipe(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy(tmp_path_factory.mktemp("toy"), dropout=0.1, settings={**SETTINGS, "preset": request.param})


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train both stages in one run."""
    return train(recipe, output_dir=tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture(scope="module")
def first(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Train stage 1 alone."""
    return train(changed(recipe, {"stages": {"stage2": None}}), output_dir=tmp_path_factory.mktemp("runs") / "first")


@pytest.fixture(scope="module")
def lite(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy(tmp_path_factory.mktemp("toy"), tasks=["mood", "stars"], settings=SETTINGS)


@pytest.fixture(scope="module")
def source(lite: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(changed(lite, {"stages": {"stage2": None}}), output_dir=tmp_path_factory.mktemp("runs") / "source").folder


def second(recipe: Recipe, source: Path, settings: dict[str, Any] | None = None) -> Recipe:
    """Return a recipe that takes its stage 1 from a run."""
    return changed(changed(recipe, settings or {}), {"stage1_from": str(source)})


def best(run: Run, stage: str) -> dict[str, torch.Tensor]:
    return load_tensors(run.folder / "checkpoints" / f"best-{stage}.safetensors")


def of_stage(run: Run, stage: str) -> list[dict[str, Any]]:
    return [line for line in journal(run) if line["stage"] == stage]


def timeless(results: Results) -> dict[str, Any]:
    content = results.model_dump()
    for stage in content["stages"].values():
        del stage["seconds"], stage["peak_memory_bytes"]
    return content


# ---- the same first stage, and the same second one -----------------------------------------------------------------


def test_stage_1_is_bit_for_bit_the_other_run_s_and_stage_2_is_what_one_run_would_have_trained(
    recipe: Recipe, whole: Run, first: Run, tmp_path: Path
) -> None:
    watch = Watch()
    run = train(second(recipe, first.folder), output_dir=tmp_path / "run", observer=watch)
    assert [stage for stage, _, _ in watch.started] == ["stage2"]
    assert not of_stage(run, "stage1")
    theirs, mine = best(first, "stage1"), best(run, "stage1")
    shipped = {name for name in theirs if ".gate." not in name}
    assert {name for name in shipped if not torch.equal(theirs[name], mine[name])} == set()
    # With one seed and one set of settings shared adapters and gates begin alike, and so does every random number after that.
    assert of_stage(run, "stage2") == of_stage(whole, "stage2")
    for stage in ("stage1", "stage2"):
        one, other = best(run, stage), best(whole, stage)
        assert one.keys() == other.keys()
        assert {name for name in one if not torch.equal(one[name], other[name])} == set()
    assert weights(run) == weights(whole)
    results = timeless(run.results)
    assert results["stages"]["stage1"].pop("taken_from") == str(first.folder)
    expected = timeless(whole.results)
    assert expected["stages"]["stage1"].pop("taken_from") == ""
    if run.results.released == "stage2":  # the run that trained stage 1 has its test scores
        assert results["stages"]["stage1"].pop("test") is None
        assert expected["stages"]["stage1"].pop("test") is not None
    assert results == expected


def test_what_stage_1_cost_is_told_and_who_spent_it(lite: Recipe, source: Path, tmp_path: Path) -> None:
    run = train(second(lite, source), output_dir=tmp_path / "run")
    theirs = json.loads((source / "results.json").read_text())["stages"]["stage1"]
    mine = run.results.stages["stage1"]
    assert (mine.average, mine.seconds, mine.steps, mine.best_step) == tuple(
        theirs[key] for key in ("average", "seconds", "steps", "best_step")
    )
    assert (theirs["taken_from"], mine.taken_from) == ("", str(source))


def test_a_second_stage_on_a_second_stage_s_first_names_the_run_that_trained_it(
    lite: Recipe, source: Path, tmp_path: Path
) -> None:
    one = train(second(lite, source), output_dir=tmp_path / "one")
    two = train(second(lite, one.folder, {"stages": {"stage2": {"max_steps": 1}}}), output_dir=tmp_path / "two")
    assert two.results.stages["stage1"].taken_from == str(source)
    taken, mine = load_tensors(source / "checkpoints" / "best-stage1.safetensors"), best(two, "stage1")
    assert all(torch.equal(mine[name], taken[name]) for name in taken)


def test_other_gates_shared_adapters_and_seeds_stand_on_the_same_stage_1(lite: Recipe, source: Path, tmp_path: Path) -> None:
    taken = load_tensors(source / "checkpoints" / "best-stage1.safetensors")
    others: dict[str, dict[str, Any]] = {
        "gate": {"mta": {"gate": {"kind": "linear", "over": "all"}}},
        "shared": {"mta": {"num_shared": 3}},
        "none": {"mta": {"num_shared": 0, "gate": {"kind": "selector"}}, "stages": {"stage2": {"trains": ["gate", "heads"]}}},
        "seed": {"seed": 5},
    }
    for name, settings in others.items():
        run = train(second(lite, source, settings), output_dir=tmp_path / name)
        mine = best(run, "stage1")
        same = [
            key for key in mine if ".selector." in key or ".bank.adapters.0" in key or ".bank.adapters.1" in key or "heads" in key
        ]
        assert len(same) > 8
        assert all(torch.equal(mine[key], taken[key]) for key in same)
        assert run.results.stages["stage2"].steps == 3


def test_where_stage_2_ruins_it_the_stage_1_that_was_taken_is_released(lite: Recipe, source: Path, tmp_path: Path) -> None:
    absurd = {"adapters": 30.0, "heads": 30.0, "gate": 30.0}
    stage2 = {"learning_rates": absurd, "lr_scheduler_type": "constant", "max_steps": 2}
    run = train(second(lite, source, {"stages": {"stage2": stage2}}), output_dir=tmp_path / "run")
    theirs = Results.model_validate({**_content(source), "schema_version": 1})
    assert run.results.released == "stage1"
    assert run.results.splits == theirs.splits
    assert run.load().model.router == "selector"


def _content(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "results.json").read_text())
    del content["schema"]
    return dict(content)


def test_models_that_write_take_a_stage_1_too(tmp_path: Path) -> None:
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 2}}}
    recipe = toy_texts(tmp_path, tasks=["mood", "echo"], settings=settings)
    both = train(recipe, output_dir=tmp_path / "both")
    one = train(changed(recipe, {"stages": {"stage2": None}}), output_dir=tmp_path / "one")
    run = train(second(recipe, one.folder), output_dir=tmp_path / "run")
    assert weights(run) == weights(both)
    assert run.results.splits == both.results.splits


def test_a_stage_2_that_trains_the_backbone_too_stands_on_a_stage_1_that_did_not(
    lite: Recipe, source: Path, tmp_path: Path
) -> None:
    stage2 = {"trains": ["backbone", "shared_adapters", "gate", "heads"]}
    run = train(second(lite, source, {"stages": {"stage2": stage2}}), output_dir=tmp_path / "run")
    whole = train(changed(lite, {"stages": {"stage2": stage2}}), output_dir=tmp_path / "whole")
    assert weights(run) == weights(whole)


# ---- going on ------------------------------------------------------------------------------------------------------


def test_a_run_broken_off_after_every_step_equals_one_that_never_stopped(recipe: Recipe, first: Run, tmp_path: Path) -> None:
    given = second(recipe, first.folder)
    expected = train(given, output_dir=tmp_path / "expected")
    folder, stops = tmp_path / "run", []
    while True:
        try:
            run = train(given, output_dir=folder, resume=folder.exists(), observer=StopAt(1))
        except StopError as stop:
            stops.append(str(stop))
        else:
            break
    assert stops == ["stage2, step 2", "stage2, step 3"]
    assert weights(run) == weights(expected)
    assert journal(run) == journal(expected)
    assert timeless(run.results) == timeless(expected.results)


def test_once_begun_the_other_run_is_needed_no_more(lite: Recipe, source: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    given = second(lite, copy)
    with pytest.raises(StopError):
        train(given, output_dir=tmp_path / "run", observer=StopAt(1))
    shutil.rmtree(copy)
    run = train(given, output_dir=tmp_path / "run", resume=True)
    expected = train(second(lite, source), output_dir=tmp_path / "expected")
    assert weights(run) == weights(expected)


def test_broken_off_before_its_first_checkpoint_it_is_taken_again(lite: Recipe, source: Path, tmp_path: Path) -> None:
    given = second(lite, source)
    with pytest.raises(StopError):
        train(given, output_dir=tmp_path / "run", observer=StopAt(0))
    run = train(given, output_dir=tmp_path / "run", resume=True)
    assert weights(run) == weights(train(given, output_dir=tmp_path / "expected"))


# ---- refusals ------------------------------------------------------------------------------------------------------


def refusal(recipe: Recipe, folder: Path, kind: type[Exception] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        train(recipe, output_dir=folder)
    return str(caught.value)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"mta": {"adapter": {"r": 8}}}, "mta.adapter"),
        ({"mta": {"adapter": {"kind": "bottleneck"}}}, "mta.adapter"),
        ({"mta": {"num_adapters": 1}}, "mta.num_adapters"),
        ({"mta": {"sites": "last"}}, "mta.sites"),
        ({"mta": {"selector": {"kind": "selector"}}}, "mta.selector"),
        ({"heads": {"pooling": "cls"}}, "heads"),
        ({"max_length": 16}, "max_length"),
    ],
)
def test_another_model_is_refused_with_both_values(
    lite: Recipe, source: Path, tmp_path: Path, settings: dict[str, Any], name: str
) -> None:
    message = refusal(second(lite, source, settings), tmp_path / "run")
    assert message.startswith(f"stage1_from is {source}, and its {name} is (")
    assert message.endswith("; give both the same, or drop stage1_from to train stage 1 here")


def test_other_tasks_are_refused(source: Path, tmp_path: Path) -> None:
    for tasks in (["mood"], ["stars", "mood"], ["mood", "stars", "topic"]):
        folder = tmp_path / "-".join(tasks)
        message = refusal(second(toy(folder, tasks=tasks, settings=SETTINGS), source), folder / "run")
        assert f"its tasks is (['mood', 'stars']), but this recipe's is ({tasks})" in message


def test_labels_in_another_order_are_refused_for_a_head_s_outputs_would_change_places(
    lite: Recipe, source: Path, tmp_path: Path
) -> None:
    content = lite.model_dump()
    content["tasks"][0]["labels"] = ["upset", "pleased"]
    message = refusal(second(Recipe.model_validate(content), source), tmp_path / "run")
    assert "its tasks.mood.labels is (['pleased', 'upset']), but this recipe's is (['upset', 'pleased'])" in message


def test_another_metric_is_refused_for_the_stages_are_compared_by_it(lite: Recipe, source: Path, tmp_path: Path) -> None:
    content = lite.model_dump()
    content["tasks"][0]["metrics"] = ["f1_macro"]
    message = refusal(second(Recipe.model_validate(content), source), tmp_path / "run")
    assert "its tasks.mood.metrics is ([]), but this recipe's is (['f1_macro'])" in message


def test_numbers_of_another_scale_are_refused(source: Path, tmp_path: Path) -> None:
    other = toy(tmp_path, tasks=["mood", "stars"], settings=SETTINGS)
    rows = [{**row, "label": 10 * float(row["label"])} for row in toy_rows("stars", 24, seed="train")]
    write_jsonl(tmp_path / "stars-train.jsonl", rows)
    assert "its mean and deviation of the numbers of stars is ((2.0, 0.8" in refusal(second(other, source), tmp_path / "run")


def test_another_base_is_refused(lite: Recipe, source: Path, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", "bert", num_layers=3)
    message = refusal(second(lite.model_copy(update={"model_name_or_path": str(base)}), source), tmp_path / "run")
    assert message.startswith(f"stage1_from is {source}, and its base model is (")


def test_a_stage_1_under_the_gate_is_refused_for_gates_begin_afresh(lite: Recipe, tmp_path: Path) -> None:
    stage1 = {"router": "gate", "trains": ["task_adapters", "gate", "heads"], "max_steps": 1}
    under_gate = changed(lite, {"stages": {"stage1": stage1}})
    source = train(changed(under_gate, {"stages": {"stage2": None}}), output_dir=tmp_path / "source").folder
    assert "its stages.stage1.router is (gate), but this recipe's is (selector)" in refusal(
        second(lite, source), tmp_path / "run"
    )
    assert "whose stage 1 weighs by its gate (router: gate)" in refusal(second(under_gate, source), tmp_path / "run")


def test_a_backbone_that_stage_1_trained_needs_a_stage_that_may_change_it(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood", "stars"], settings={**SETTINGS, "preset": "alter"})
    source = train(changed(recipe, {"stages": {"stage2": None}}), output_dir=tmp_path / "source").folder
    frozen = changed(recipe, {"stages": {"stage1": {"trains": ["task_adapters", "selector", "heads"]}}})
    message = refusal(second(frozen, source), tmp_path / "run")
    assert message.endswith("add backbone to stages.stage1.trains")


def test_an_unfinished_run_has_no_stage_1_to_give(lite: Recipe, tmp_path: Path) -> None:
    with pytest.raises(StopError):
        train(lite, output_dir=tmp_path / "stopped", observer=StopAt(4))  # its stage 1 is over, and its stage 2 has begun
    for folder in (tmp_path / "stopped", tmp_path / "nowhere"):
        message = refusal(second(lite, folder), tmp_path / "run", CheckpointError)
        assert message == f"{folder / 'results.json'}: no such file; the run has not finished, or this is no run directory"
        shutil.rmtree(tmp_path / "run")


def test_a_run_without_a_stage_1_is_refused(lite: Recipe, tmp_path: Path) -> None:
    other = train(changed(lite, {"stages": {"stage1": {"num_train_epochs": 0}}}), output_dir=tmp_path / "other").folder
    message = refusal(second(lite, other), tmp_path / "run", CheckpointError)
    assert message == f"stage1_from is {other}, whose run has no stage 1 to take; name a run that trained one"


def test_a_run_whose_checkpoints_were_deleted_is_refused_by_the_file_that_is_gone(
    lite: Recipe, source: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(source, tmp_path / "copy"))
    shutil.rmtree(copy / "checkpoints")
    assert "best-stage1.safetensors: no such file" in refusal(second(lite, copy), tmp_path / "run", CheckpointError)
