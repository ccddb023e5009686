"""`alter compare`: arms are listed and run, tables and JSON are printed, and mistakes are told."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.command import Alter, another_writer, run_process

from alter.cli.compare import _show
from alter.comparison import read_comparison

FAST = ["stages.stage1.max_steps=1", "stages.stage2.max_steps=1"]
ARMS = ["--arm", "majority", "--arm", "multi-full", "--arm", "alter-lite"]


@pytest.fixture(scope="module")
def made(toy_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small comparison, made through the command itself; its printed page lies beside."""
    folder = tmp_path_factory.mktemp("compare")
    done = run_process("compare", toy_template / "recipe.yaml", *FAST, "-o", folder / "out", *ARMS)
    assert done.code == 0, done.err
    (folder / "printed.txt").write_text(done.out)
    (folder / "noted.txt").write_text(done.err)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


# ---- what it prints ------------------------------------------------------------------------------------------------


def test_arms_are_listed_without_a_folder_and_without_training(alter: Alter, toy: Path) -> None:
    outcome = alter.works("compare", toy / "recipe.yaml", "--list-arms")
    assert "arms for recipe" in outcome.out or "arms for toy" in outcome.out
    lines = outcome.out.splitlines()
    named = {line.split()[0] for line in lines[2:] if line.strip()}
    assert {"majority", "single-full", "stage1", "alter", "alter-lite", "gate-uniform", "wrong-task"} <= named
    assert "gate-task-shared" not in named, "the recipe's own gate"
    assert any("one fine-tuned model for all tasks" in line for line in lines)
    assert not [path for path in toy.iterdir() if path.name == "arms"]


def test_the_arms_that_are_listed_are_those_that_would_run(alter: Alter, toy: Path, tmp_path: Path) -> None:
    file = tmp_path / "arms.yaml"
    file.write_text("small: {mta: {adapter: {r: 2}}}\n")
    outcome = alter.works(
        "compare",
        toy / "recipe.yaml",
        "stages.stage2=null",
        "--arms-file",
        file,
        "--arm",
        "small",
        "--arm",
        "multi-full",
        "--list-arms",
    )
    named = [line.split()[0] for line in outcome.out.splitlines()[2:] if line.strip()]
    assert named[-2:] == ["multi-full", "small"]
    assert "mta.adapter.r=2" in outcome.out


def test_the_tables_say_what_the_file_says(made: Path) -> None:
    found = read_comparison(made / "out")
    out = (made / "printed.txt").read_text()
    assert list(found.arms) == ["majority", "multi-full", "stage1", "alter-lite"]
    for name, arm in found.arms.items():
        [line] = [line for line in out.splitlines() if line.split()[:1] == [name]]
        assert f"{arm.summary['test'].average.mean:.1f}" in line
        assert f"{arm.summary['validation'].average.mean:.1f}" in line
    for one in found.differences:
        assert one.question in out
    assert f"{made / 'out' / 'compare.json'}" in out


def test_what_an_arm_cost_is_a_mean_over_seeds_as_in_compare_md(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = read_comparison(made / "out")
    arm = found.arms["alter-lite"]
    runs = [
        run.model_copy(update={"budget": run.budget.model_copy(update={"relative_time": time, "stored_bytes": 2_000_000})})
        for run, time in ((arm.runs[0], 1.0), (arm.runs[0].model_copy(update={"seed": 1}), 4.0))
    ]
    _show(found.model_copy(update={"arms": {"alter-lite": arm.model_copy(update={"runs": runs})}, "differences": []}))
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.split()[:1] == ["alter-lite"]]
    assert "2.50" in line.split()


def test_each_arm_is_told_as_it_begins_on_standard_error(made: Path) -> None:
    noted = (made / "noted.txt").read_text()
    for number, name in enumerate(("majority", "multi-full", "stage1", "alter-lite"), start=1):
        assert f"{number}/4  {name}, seed 0: " in noted
    assert "resampling test rows" in noted
    assert "stage1: 1 step" in noted


def test_json_is_the_file_and_nothing_else(alter: Alter, toy_template: Path, copy: Path) -> None:
    outcome = alter.works("compare", toy_template / "recipe.yaml", *FAST, "-o", copy, *ARMS, "--resume", "--json")
    content = json.loads((copy / "compare.json").read_text())
    assert outcome.json == content
    assert next(iter(outcome.json)) == "schema"
    assert outcome.json["arms"]["majority"]["summary"]["test"]["average"]["sd"] is None


def test_seeds_and_overrides_hold_for_all_arms(alter: Alter, toy: Path, tmp_path: Path) -> None:
    arguments = ["--arm", "multi-full", "--arm", "majority", "--seed", "4", "--seed", "7", "--json"]
    outcome = alter.works("compare", toy / "recipe.yaml", *FAST, "max_length=16", "-o", tmp_path / "out", *arguments)
    assert outcome.json["seeds"] == [4, 7]
    for arm in outcome.json["arms"].values():
        assert [run["seed"] for run in arm["runs"]] == [4, 7]
    recipe = (tmp_path / "out" / "arms" / "multi-full" / "seed7" / "recipe.yaml").read_text()
    assert "max_length: 16" in recipe
    assert "seed: 7" in recipe
    assert outcome.json["arms"]["multi-full"]["runs"][1]["budget"]["relative_time"] == 1.0


def test_an_arm_that_failed_is_warned_of_and_the_command_works(alter: Alter, toy: Path, tmp_path: Path) -> None:
    file = tmp_path / "arms.yaml"
    file.write_text(
        "hot:\n  stages:\n    stage1: {max_steps: 30, lr_scheduler_type: constant, learning_rates: {adapters: 1e30}}\n    stage2: null\n"
    )
    outcome = alter.works(
        "compare", toy / "recipe.yaml", "-o", tmp_path / "out", "--arms-file", file, "--arm", "hot", "--arm", "majority"
    )
    assert "warning: the arm 'hot' failed: seed 0: stage1, step" in " ".join(outcome.err.split())
    assert "majority" in outcome.out


# ---- mistakes ------------------------------------------------------------------------------------------------------


def test_a_folder_is_needed(alter: Alter, toy: Path) -> None:
    message = alter.refuses("compare", toy / "recipe.yaml")
    assert "no folder for the comparison is given; add one, e.g. --output-dir runs/" in message


@pytest.mark.parametrize("more", [["--list-arms"], []])
def test_an_unknown_arm_gets_the_nearest_name(alter: Alter, toy: Path, tmp_path: Path, more: list[str]) -> None:
    message = alter.refuses("compare", toy / "recipe.yaml", "-o", tmp_path / "out", "--arm", "mutli-full", *more)
    assert "unknown arm 'mutli-full'; allowed: " in message
    assert "Did you mean 'multi-full'?" in message


def test_an_arm_that_says_nothing_is_refused(alter: Alter, toy: Path, tmp_path: Path) -> None:
    message = alter.refuses("compare", toy / "recipe.yaml", "stages.stage2=null", "-o", tmp_path / "out", "--arm", "one-go")
    assert "the arm 'one-go' (what both stages train, under the gate, in one stage) says nothing about this recipe" in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "arms.yaml: no such file"),
        ("- r8", "arms.yaml: holds a list"),
        ("r8: 8", "arms.yaml: must be a mapping of arm names to settings over the recipe"),
        ("stage1: {seed: 1}", "arms.yaml: the names ['stage1'] are taken by arms of our own; choose others"),
        ("r8: {mta: {adaptor: {r: 8}}}", "arm r8: unknown key 'mta.adaptor'"),
    ],
)
def test_an_arms_file_that_is_none_is_refused_before_anything_is_trained(
    alter: Alter, toy: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    file = tmp_path / "arms.yaml"
    if content is not None:
        file.write_text(content)
    assert message in alter.refuses("compare", toy / "recipe.yaml", "-o", tmp_path / "out", "--arms-file", file)
    assert not (tmp_path / "out").exists()


def test_a_seed_twice_and_a_seed_below_zero_are_refused(alter: Alter, toy: Path, tmp_path: Path) -> None:
    assert "give each seed once, from 0" in alter.refuses(
        "compare", toy / "recipe.yaml", "-o", tmp_path / "out", "--seed", "1", "--seed", "1"
    )
    assert "Invalid value for '--seed'" in alter.refuses("compare", toy / "recipe.yaml", "-o", tmp_path / "out", "--seed", "-1")


def test_a_finished_comparison_is_not_overwritten_and_another_recipe_does_not_go_on_with_it(
    alter: Alter, toy_template: Path, copy: Path
) -> None:
    before = (copy / "compare.json").read_bytes()
    command = ["compare", toy_template / "recipe.yaml", *FAST, "-o", copy, *ARMS]
    assert "holds finished work; add --resume to go on with it" in alter.refuses(*command)
    assert "other settings than this recipe (max_length)" in alter.refuses(*command, "max_length=16", "--resume")
    assert (copy / "compare.json").read_bytes() == before


def test_a_second_writer_is_told_who_the_first_is(alter: Alter, toy_template: Path, copy: Path) -> None:
    with another_writer(copy):
        message = alter.refuses("compare", toy_template / "recipe.yaml", *FAST, "-o", copy, *ARMS, "--resume")
    assert "another process (pid 4711)" in message


def test_a_mistake_is_json_where_json_was_asked_for(alter: Alter, toy: Path) -> None:
    outcome = alter("compare", toy / "recipe.yaml", "--arm", "mutli-full", "--json")
    assert outcome.code == 2
    assert outcome.error["error"] == "ConfigError"
    assert outcome.error["message"].startswith("unknown arm 'mutli-full'")
