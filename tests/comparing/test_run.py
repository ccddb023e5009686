"""A comparison from beginning to end: what it leaves, what it costs, how it goes on, and what it refuses."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.cli.command import another_writer
from tests.comparing.conftest import ASKED, HOT, Compared
from tests.recipes import StopAt, StopError, changed, toy, toy_texts

import alter.comparing.run
import alter.results
import alter.tensors
from alter.backbones._codec import codec_for
from alter.backbones._load import load_base
from alter.comparing.bootstrap import scorer
from alter.comparing.choice import choose, own_arms
from alter.comparing.collect import Done, answered_by
from alter.comparing.run import compare
from alter.comparison import Comparison, read_comparison
from alter.errors import CheckpointError, ConfigError, TrainingError
from alter.evaluation import evaluate
from alter.model import MTAModel
from alter.recipe import Recipe, load_recipe
from alter.training.observer import Silent
from alter.training.prepare import eval_sets, read_rows
from alter.training.run import train


class Count(Silent):
    """Counts the stages that are trained."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int]] = []

    def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
        self.stages.append((stage, first_step))


def go(recipe: Recipe, folder: Path, arms: list[str], **more: Any) -> Comparison:
    return compare(recipe, output_dir=folder, arms=arms, **more)


# ---- what it leaves ------------------------------------------------------------------------------------------------


def test_the_file_says_what_was_returned(compared: Compared) -> None:
    assert read_comparison(compared.folder).model_dump_json() == compared.result.model_dump_json()
    assert list(compared.result.arms) == [
        "majority", "untrained", "single-full", "single-lora", "multi-full", "shared-lora", "stage1", "stage2-alone", "alter-lite",
        "gate-uniform", "adamix", "hyperformer", "zeroed-shared", "no-task", "hot",
    ]  # fmt: skip
    assert (compared.result.recipe, compared.result.preset, compared.result.seeds) == ("toy", "alter-lite", [0])
    assert {"alter", "torch", "processors"} <= compared.result.environment.keys()


def test_the_folder_holds_what_is_promised(compared: Compared) -> None:
    top = {path.name for path in compared.folder.iterdir() if not path.name.startswith(".")}
    assert top == {"compare.json", "compare.md", "recipe.yaml", "arms"}
    assert load_recipe(compared.folder / "recipe.yaml") == compared.recipe
    arms = compared.folder / "arms"
    run = {"recipe.yaml", "results.json", "metrics.jsonl", "checkpoints", "model", "predictions", "gates.json"}
    for arm in ("multi-full/seed0", "stage1/seed0", "single-full/seed0/mood", "single-lora/seed0/stars", "alter-lite/seed0"):
        assert {path.name for path in (arms / arm).iterdir() if not path.name.startswith(".")} == run, arm
    for arm in ("majority/seed0", "untrained/seed0", "zeroed-shared/seed0"):
        assert {path.name for path in (arms / arm).iterdir()} == {"results.json", "predictions"}, arm
    assert [path.name for path in compared.folder.rglob(".*") if path.name != ".lock"] == []


def test_no_optimizer_states_are_left_and_stage_1_stays_for_others_to_stand_on(compared: Compared) -> None:
    left = {path.parent.parent.parent.name: path.name for path in compared.folder.rglob("checkpoints/*")}
    left.pop("hot", None)  # what a failed arm saved before it failed
    assert left == {"stage1": "best-stage1.safetensors"}


def test_every_arm_was_scored_on_both_splits(compared: Compared) -> None:
    for name, arm in compared.result.arms.items():
        if name == "hot":
            continue
        [run] = arm.runs
        assert list(run.splits) == ["validation", "test"], name
        for split, scores in run.splits.items():
            assert list(scores.tasks) == ["mood", "stars"]
            assert scores.average == pytest.approx(sum(score.score for score in scores.tasks.values()) / 2)
            assert arm.summary[split].average.mean == scores.average
            place = compared.folder / run.answers[split]
            for task in scores.tasks:
                path = Path(str(place).replace("{task}", task)) / f"{task}.jsonl"
                lines = [json.loads(line) for line in path.read_text().splitlines()]
                assert len(lines) == 12
                assert all({"input", "prediction", "target"} <= line.keys() for line in lines)


def test_tasks_are_described(compared: Compared) -> None:
    mood, stars = compared.result.tasks.values()
    assert (mood.kind, mood.labels, mood.metric) == ("classification", ["pleased", "upset"], "accuracy")
    assert (stars.kind, stars.labels, stars.metric) == ("regression", None, "pearson")
    assert mood.rows == stars.rows == {"train": 24, "validation": 12, "test": 12}


def test_folders_are_where_an_arm_s_runs_are(compared: Compared) -> None:
    found = {name: arm.runs[0].folders for name, arm in compared.result.arms.items() if arm.runs}
    assert found["majority"] == []
    assert found["single-full"] == ["arms/single-full/seed0/mood", "arms/single-full/seed0/stars"]
    assert found["alter-lite"] == ["arms/alter-lite/seed0"]
    assert found["zeroed-shared"] == ["arms/alter-lite/seed0"], "the run whose model was changed"


def test_the_untrained_arm_is_the_base_with_the_heads_that_training_begins_with(compared: Compared) -> None:
    recipe = compared.recipe
    rows = read_rows(recipe)
    base, tokenizer = load_base(recipe.model_name_or_path)
    codec = codec_for(base, tokenizer, recipe, name=recipe.model_name_or_path, revision=None)
    torch.manual_seed(recipe.seed)
    plain = recipe.mta.model_copy(update={"sites": "none", "num_shared": 0})
    fresh = MTAModel(base, task_names=["mood", "stars"], settings=plain, num_outputs=[2, 1], heads=recipe.heads)
    scores, _ = evaluate(fresh, eval_sets(rows, "test", codec=codec), codec=codec, batch_size=8)
    [run] = compared.result.arms["untrained"].runs
    assert run.splits["test"].tasks["mood"].metrics == pytest.approx(scores.tasks["mood"].metrics)
    assert run.splits["test"].average == pytest.approx(scores.average, abs=1e-3)
    assert (run.budget.steps, run.folders) == (None, [])


def test_the_method_and_the_gates_stand_on_one_stage_1(compared: Compared) -> None:
    stage1 = compared.result.arms["stage1"].runs[0]
    for name in ("alter-lite", "gate-uniform", "stage2-alone"):
        [run] = compared.result.arms[name].runs
        assert run.stages["stage1"].validation == stage1.stages["stage1"].validation
        results = json.loads((compared.folder / run.folders[0] / "results.json").read_text())
        assert results["stages"]["stage1"]["taken_from"] == str((compared.folder / "arms/stage1/seed0").resolve())
        assert results["stages"]["stage1"]["steps"] == 2
        assert run.stages["stage2"].test is not None


def test_what_zeroed_shared_adapters_change_follows_from_the_method_s_own_model(compared: Compared) -> None:
    method, changed_model = (compared.result.arms[name].runs[0] for name in ("alter-lite", "zeroed-shared"))
    assert (changed_model.released, changed_model.stages) == ("", {})
    difference = next(one for one in compared.result.differences if one.against == "zeroed-shared")
    assert difference.difference == pytest.approx(method.splits["test"].average - changed_model.splits["test"].average)


# ---- what it says --------------------------------------------------------------------------------------------------


def test_every_question_has_its_difference_and_an_interval_about_it(compared: Compared) -> None:
    asked = [(one.arm, one.against, one.split) for one in compared.result.differences]
    against = [
        "single-full",
        "multi-full",
        "single-lora",
        "shared-lora",
        "stage1",
        "stage2-alone",
        "zeroed-shared",
        "no-task",
        "gate-uniform",
        "adamix",
        "hyperformer",
    ]
    assert asked == [("alter-lite", other, "test") for other in against]
    for one in compared.result.differences:
        averages = [compared.result.arms[name].runs[0].splits["test"].average for name in (one.arm, one.against)]
        assert one.difference == pytest.approx(averages[0] - averages[1])
        assert one.by_seed == [pytest.approx(one.difference)]
        assert one.low <= one.high


def test_the_page_has_every_arm_and_every_question(compared: Compared) -> None:
    page = (compared.folder / "compare.md").read_text(encoding="utf-8")
    for name in compared.result.arms:
        assert f"\n| {name} | " in page or f"- {name}: " in page, name
    for one in compared.result.differences:
        assert one.question in page
    assert (
        page.index("## Test rows")
        < page.index("## Validation rows")
        < page.index("## Questions")
        < page.index("## Without figures")
    )


def test_stage_1_of_the_table_is_the_one_that_was_built_on(compared: Compared) -> None:
    page = (compared.folder / "compare.md").read_text(encoding="utf-8")
    table = page.split("## Stage by stage")[1].split("##")[0]
    own = compared.result.arms["stage1"].runs[0].splits["test"].average
    others = [compared.result.arms[name].runs[0].splits["test"].average for name in ("multi-full", "shared-lora")]
    assert all(f"{own:.1f}" != f"{other:.1f}" for other in others), "else this would show nothing"
    for name in ("alter-lite", "gate-uniform"):
        [line] = [line for line in table.splitlines() if line.startswith(f"| {name} |")]
        assert line.split(" | ")[3] == f"{own:.1f}"


# ---- an arm that fails ---------------------------------------------------------------------------------------------


def test_an_arm_that_diverges_is_noted_and_the_others_go_on(compared: Compared) -> None:
    arm = compared.result.arms["hot"]
    assert (arm.runs, arm.summary, arm.family) == ([], {}, "own")
    assert arm.failed.startswith("seed 0: stage1, step ")
    assert "Lower stages.stage1.learning_rates" in arm.failed
    assert any(line.startswith("hot, seed 0 failed: stage1, step") for line in compared.told)
    begun = [
        line.partition("  ")[0]
        for line in compared.told
        if line.endswith(tuple(arm.title for arm in compared.result.arms.values()))
    ]
    assert begun == [f"{number}/15" for number in range(1, 16)]


def test_what_stands_on_an_arm_that_failed_fails_for_this_seed_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = toy(
        tmp_path / "toy", tasks=["mood", "stars"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": {"max_steps": 1}}}
    )
    real = alter.comparing.run.train

    def train_or_fail(given: Recipe, **arguments: Any) -> Any:
        if given.seed == 0 and given.name == "toy-stage1":
            raise TrainingError("it diverged")
        return real(given, **arguments)

    monkeypatch.setattr(alter.comparing.run, "train", train_or_fail)
    found = go(recipe, tmp_path / "out", ["gate-task", "wrong-task", "majority"], seeds=[0, 1])
    assert found.arms["stage1"].failed == "seed 0: it diverged"
    for name in ("alter-lite", "gate-task"):
        assert found.arms[name].failed == "seed 0: needs the arm stage1 with this seed, which failed; see its message"
    assert found.arms["wrong-task"].failed == "seed 0: needs the arm alter-lite with this seed, which failed; see its message"
    assert {name: [run.seed for run in arm.runs] for name, arm in found.arms.items()} == {
        "majority": [0, 1], "stage1": [1], "alter-lite": [1], "gate-task": [1], "wrong-task": [1],
    }  # fmt: skip
    # With the cause gone the same command makes up for it.
    monkeypatch.setattr(alter.comparing.run, "train", real)
    mended = go(recipe, tmp_path / "out", ["gate-task", "wrong-task"], seeds=[0, 1], resume=True)
    assert {name: [run.seed for run in arm.runs] for name, arm in mended.arms.items()} == {name: [0, 1] for name in found.arms}
    assert {arm.failed for arm in mended.arms.values()} == {""}
    for arm in mended.arms.values():
        assert arm.summary["test"].average.seeds == 2
    assert all(len(one.by_seed) == 2 for one in mended.differences)


def test_where_all_arms_fail_the_first_message_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(recipe: Recipe, **arguments: Any) -> None:
        raise TrainingError("it diverged")

    monkeypatch.setattr(alter.comparing.run, "train", fail)
    with pytest.raises(TrainingError, match=r"^all arms failed; the first: seed 0: it diverged$"):
        go(toy(tmp_path / "toy", tasks=["mood"]), tmp_path / "out", ["multi-full", "shared-lora"])


def full(name: str, real: Callable[[int], None]) -> Callable[[int], None]:
    """Return fsync on a disk that is full for files of this name."""

    def fsync(handle: int) -> None:
        if name in str(Path(f"/proc/self/fd/{handle}").resolve()):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    return fsync


@pytest.mark.parametrize("name", ["predictions/test/.mood", ".gates.json", ".results.json", ".compare.json", ".compare.md"])
def test_a_full_disk_stops_the_comparison_with_a_remedy_and_it_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe = toy(tmp_path / "toy", tasks=["mood"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
    monkeypatch.setattr(alter.results.os, "fsync", full(name, alter.results.os.fsync))
    told: list[str] = []
    with pytest.raises(TrainingError, match=r"the disk is full \(\d+ MiB free\); nothing already saved is lost.* --resume"):
        go(recipe, tmp_path / "out", ["multi-full", "shared-lora"], told=told.append)
    monkeypatch.undo()
    assert not any("failed" in line for line in told), "a full disk is no arm's fault, and the next arm would fare no better"
    assert [line.split("  ")[1].split(",")[0] for line in told if "/" in line.split("  ")[0]] == (
        ["multi-full", "shared-lora"] if "compare" in name else ["multi-full"]
    )
    assert not (tmp_path / "out" / "compare.json").exists()
    found = go(recipe, tmp_path / "out", ["multi-full", "shared-lora"], resume=True)
    assert all(arm.runs and not arm.failed for arm in found.arms.values())


def test_a_full_disk_at_weights_stops_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    recipe = toy(tmp_path / "toy", tasks=["mood"])
    monkeypatch.setattr(alter.tensors, "save_file", save)
    told: list[str] = []
    with pytest.raises(TrainingError, match="the disk is full"):
        go(recipe, tmp_path / "out", ["multi-full", "shared-lora"], told=told.append)
    assert len(told) == 1


# ---- going on ------------------------------------------------------------------------------------------------------


def test_finished_arms_are_not_run_again(compared: Compared, copied: Path) -> None:
    stamps = {path: path.stat().st_mtime_ns for path in copied.rglob("results.json")}
    count = Count()
    asked = [name for name in ASKED if name != "hot"]
    again = go(compared.recipe, copied, asked, resume=True, observer=count)
    assert count.stages == []
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("results.json")} == stamps
    same = {"arms": {name for name in compared.result.arms if name != "hot"}}
    assert again.model_dump()["arms"].keys() == same["arms"]
    for name in same["arms"]:
        assert again.arms[name].model_dump_json() == compared.result.arms[name].model_dump_json()
    assert again.differences == compared.result.differences


def test_further_arms_and_seeds_are_added_and_what_was_there_stays_in_the_file(compared: Compared, copied: Path) -> None:
    count = Count()
    own = own_arms({"narrow": {"mta": {"adapter": {"r": 2}}, "stages": {"stage2": None}}}, where="arms.yaml")
    found = go(compared.recipe, copied, ["narrow", "gate-task"], own=own, resume=True, observer=count)
    assert sorted(count.stages) == [("stage1", 0), ("stage2", 0)], "the own arm's one stage, and a second one on what is there"
    asked = {"narrow", "gate-task"}
    before = {name for name in compared.result.arms if name != "hot"}
    assert set(found.arms) == asked | before
    assert list(found.arms)[-1] == "narrow"
    count = Count()
    more = go(compared.recipe, copied, ["majority", "multi-full"], seeds=[1], resume=True, observer=count)
    assert count.stages == [("stage1", 0)]
    assert more.seeds == [0, 1]
    seeds = {name: [run.seed for run in arm.runs] for name, arm in more.arms.items()}
    assert (seeds["majority"], seeds["multi-full"], seeds["alter-lite"]) == ([0, 1], [0, 1], [0])
    page = (copied / "compare.md").read_text(encoding="utf-8")
    assert "| arm | seeds | average |" in page, "averages over other seeds do not compare"
    assert "| majority | 0, 1 |" in page
    assert "| alter-lite | 0 |" in page
    assert "narrow" not in more.arms, "an arm of one's own is known by its file only"
    assert more.arms["multi-full"].summary["test"].average.seeds == 2
    [difference] = [one for one in more.differences if one.against == "multi-full"]
    assert len(difference.by_seed) == 1, "the method has one seed"
    assert read_comparison(copied).model_dump_json() == more.model_dump_json()


def test_a_recipe_whose_first_stage_is_skipped_is_compared_too(tmp_path: Path) -> None:
    stages = {"stage1": {"num_train_epochs": 0}, "stage2": {"max_steps": 1}}
    recipe = toy(tmp_path / "toy", tasks=["mood", "stars"], settings={"stages": stages})
    assert [arm.name for arm in choose(recipe, ["alter-lite"])] == ["alter-lite"]
    with pytest.raises(ConfigError, match="says nothing about this recipe, which has no stage 1"):
        choose(recipe, ["stage1"])
    found = go(recipe, tmp_path / "out", ["alter-lite", "multi-full"])
    assert {name: bool(arm.runs) for name, arm in found.arms.items()} == {"alter-lite": True, "multi-full": True}
    assert "## Stage by stage" not in (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("steps", [1, 3, 5])
def test_an_arm_that_was_broken_off_goes_on_where_it_was(tmp_path: Path, steps: int) -> None:
    settings = {"train": {"save_steps": 1}, "stages": {"stage1": {"max_steps": 3}, "stage2": {"max_steps": 3}}}
    recipe = toy(tmp_path / "toy", tasks=["mood", "stars"], settings=settings)
    with pytest.raises(StopError):
        go(recipe, tmp_path / "out", ["alter-lite"], observer=StopAt(steps))
    # The folder may be moved in between.
    (tmp_path / "out").rename(tmp_path / "moved")
    count = Count()
    found = go(recipe, tmp_path / "moved", ["alter-lite"], resume=True, observer=count)
    assert count.stages == {1: [("stage1", 1), ("stage2", 0)], 3: [("stage2", 0)], 5: [("stage2", 2)]}[steps]
    whole = go(recipe, tmp_path / "whole", ["alter-lite"])
    for name, arm in found.arms.items():
        assert arm.runs[0].splits == whole.arms[name].runs[0].splits
        assert arm.runs[0].stages == whole.arms[name].runs[0].stages


def test_another_recipe_is_refused_and_its_settings_named(compared: Compared, copied: Path) -> None:
    other = changed(compared.recipe, {"max_length": 16})
    with pytest.raises(CheckpointError, match=r"other settings than this recipe \(max_length\)"):
        go(other, copied, ["multi-full"], resume=True)


def test_without_resume_a_comparison_is_never_gone_on_with(compared: Compared, copied: Path) -> None:
    before = (copied / "compare.json").read_bytes()
    with pytest.raises(
        CheckpointError, match=r"holds finished work; add --resume to go on with it, or choose another --output-dir"
    ):
        go(compared.recipe, copied, ["multi-full"])
    (copied / "compare.json").unlink()
    with pytest.raises(CheckpointError, match=r"holds an unfinished run; add --resume"):
        go(compared.recipe, copied, ["multi-full"])
    assert before


def test_a_second_writer_is_refused(compared: Compared, copied: Path) -> None:
    with another_writer(copied), pytest.raises(CheckpointError, match=r"another process \(pid 4711\)"):
        go(compared.recipe, copied, ["multi-full"], resume=True)


def test_a_comparison_and_a_run_have_folders_of_their_own(compared: Compared, copied: Path, tmp_path: Path) -> None:
    saved = (copied / "recipe.yaml").read_bytes()
    for resume in (False, True):
        with pytest.raises(
            CheckpointError, match=r"holds work of another kind \(compare\.json is there\); choose another --output-dir"
        ):
            train(compared.recipe, output_dir=copied, resume=resume)
    assert (copied / "recipe.yaml").read_bytes() == saved
    run = Path(shutil.copytree(compared.folder / "arms" / "stage1" / "seed0", tmp_path / "run"))
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=r"holds work of another kind \(results\.json is there\)"):
            go(compared.recipe, run, ["multi-full"], resume=resume)


def test_there_is_nothing_to_resume_where_nothing_was_begun(compared: Compared, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nothing to resume in"):
        go(compared.recipe, tmp_path / "out", ["multi-full"], resume=True)


# ---- what it refuses before it begins ------------------------------------------------------------------------------


@pytest.mark.parametrize("seeds", [[], [0, 0], [-1]])
def test_seeds_are_given_once_each(compared: Compared, tmp_path: Path, seeds: list[int]) -> None:
    with pytest.raises(ConfigError, match="give each seed once, from 0"):
        go(compared.recipe, tmp_path / "out", ["multi-full"], seeds=seeds)
    assert not (tmp_path / "out").exists()


def test_no_arm_at_all_is_refused(compared: Compared, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="arms is empty; name at least one"):
        go(compared.recipe, tmp_path / "out", [])


def test_an_own_arm_has_the_recipe_s_tasks(compared: Compared, tmp_path: Path) -> None:
    block = compared.recipe.model_dump(mode="json")["tasks"][0]
    for tasks in ([{**block, "cap": 5}], [{**block, "name": "other"}]):
        own = own_arms({"few": {"tasks": tasks}}, where="arms.yaml")
        with pytest.raises(
            ConfigError, match=r"arm few: its tasks are \['\w+'\] and the recipe's \['mood', 'stars'\], .* give all"
        ):
            go(compared.recipe, tmp_path / "out", ["few"], own=own)
    assert not (tmp_path / "out").exists()


def test_an_arm_that_fits_no_recipe_is_told_before_any_arm_is_trained(compared: Compared, tmp_path: Path) -> None:
    own = own_arms({**HOT, "late": {"mta": {"gate": {"kind": "one_hot"}}}}, where="arms.yaml")
    with pytest.raises(ConfigError, match=r"arm late: .*gives shared adapters no weight"):
        go(compared.recipe, tmp_path / "out", ["multi-full", "late"], own=own)
    assert not (tmp_path / "out").exists()


# ---- other kinds of rows -------------------------------------------------------------------------------------------


def test_models_that_write_are_compared_too(tmp_path: Path) -> None:
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 1}}}
    content = toy_texts(tmp_path / "toy", tasks=["mood", "echo"], settings=settings).model_dump()
    content["tasks"][0]["decoding"] = "generate"  # after three steps most of what is written is no label
    recipe = Recipe.model_validate(content)
    arms = ["majority", "untrained", "tfidf", "multi-full", "shared-lora", "single-full", "alter-lite", "no-task", "wrong-task"]
    found = go(recipe, tmp_path / "out", arms)
    assert {name: bool(arm.runs) for name, arm in found.arms.items()} == dict.fromkeys([*arms, "stage1"], True)
    assert (found.tasks["echo"].kind, found.tasks["echo"].metric) == ("generation", "rougeL")
    assert found.arms["single-full"].runs[0].budget.trainable_parameters == 2 * (
        found.arms["multi-full"].runs[0].budget.trainable_parameters or 0
    ), "no heads: two tasks are two backbones"
    path = tmp_path / "out" / found.arms["alter-lite"].runs[0].answers["test"] / "echo.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert "references" in lines[0]
    rows = read_rows(recipe)
    for name in ("alter-lite", "wrong-task", "untrained", "majority"):
        scores = found.arms[name].runs[0].splits["test"].tasks
        assert scores["mood"].num_invalid > 0 or name == "majority"
        for spec in rows.specs:
            again = answered_by(Done(folders=[tmp_path / "out" / "arms" / name / "seed0"]), spec, "test")
            assert scorer(again)(np.arange(12)) == pytest.approx(scores[spec.name].score, abs=1e-9)
    assert {one.against for one in found.differences} == {
        "tfidf",
        "single-full",
        "multi-full",
        "shared-lora",
        "stage1",
        "no-task",
        "wrong-task",
    }


def test_without_test_rows_validation_rows_are_compared(tmp_path: Path) -> None:
    recipe = toy(tmp_path / "toy", tasks=["mood"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
    source = recipe.tasks[0].source
    assert source is not None
    task = recipe.tasks[0].model_copy(update={"source": source.model_copy(update={"test": None})})
    found = go(recipe.model_copy(update={"tasks": [task]}), tmp_path / "out", ["multi-full", "alter-lite", "majority"])
    assert {tuple(arm.summary) for arm in found.arms.values()} == {("validation",)}
    assert [(one.against, one.split) for one in found.differences] == [("multi-full", "validation")]
    page = (tmp_path / "out" / "compare.md").read_text(encoding="utf-8")
    assert "## Test rows" not in page
    assert "| alter-lite - multi-full | validation | " in page
