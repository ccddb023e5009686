"""Which folders and files a report is made of, what it does without, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.reporting.folders import copy_run, figures_of, reading_of, spaced, tables_of, write_run

from alter.comparison import Comparison, write_comparison
from alter.errors import CheckpointError, ConfigError
from alter.reporting.blocks import Report
from alter.reporting.json_text import to_json
from alter.reporting.markdown_text import to_markdown
from alter.reporting.page import to_html
from alter.reporting.run import gather, write_report
from alter.results import read_results, write_results

Compared = tuple[Path, Comparison]


def test_a_trained_run_is_reported_with_its_own_numbers(runs: dict[int, Path]) -> None:
    report = gather([runs[0]])
    results = read_results(runs[0] / "results.json")
    table = tables_of(report, "scores")["Scores on test rows, in percent; the best in bold"]
    released = table[0].index(f"stage {results.released[5:]} (released)")
    assert {row[0]: row[released] for row in table[1:]} == {
        **{task: f"{score.score:.1f}" for task, score in results.splits["test"].tasks.items()},
        "average": f"{results.splits['test'].average:.1f}",
    }
    rows = [json.loads(line) for line in (runs[0] / "predictions" / "test" / "mood.jsonl").read_text().splitlines()]
    right = sum(row["prediction"] == row["target"] for row in rows)
    assert f"mood: {right} of {len(rows)} right on test rows" in figures_of(report, "confusions")[0].title
    gates = json.loads((runs[0] / "gates.json").read_text())
    weights = gates["stages"]["stage2"][0]
    assert figures_of(report, "gates")[1].values[0] == pytest.approx(
        [sum(site) / len(weights) for site in zip(*weights, strict=True)]
    )


def test_seeds_of_a_trained_recipe_are_one_arm(runs: dict[int, Path]) -> None:
    report = gather(list(runs.values()))
    averages = [read_results(run / "results.json").splits["test"].average for run in runs.values()]
    assert f"{sum(averages) / 2:.1f}" in reading_of(report, "scores")
    assert "2 runs of 1 recipe on 4 tasks" in reading_of(report, "overview")
    assert len(figures_of(report, "curves")[-1].series) == 2


def test_a_run_that_writes_text_is_reported(texts: Path) -> None:
    page = to_html(gather([texts]))
    assert "least like what was right first" in page
    assert "rougeL" in page


def test_a_run_of_an_earlier_version_says_what_it_lacks(tmp_path: Path, runs: dict[int, Path]) -> None:
    copy_run(runs[0], tmp_path / "run")
    (tmp_path / "run" / "gates.json").unlink()
    shutil.rmtree(tmp_path / "run" / "predictions")
    report = gather([tmp_path / "run"])
    assert "there is no gates.json: its run is of an earlier version of alter" in reading_of(report, "gates")
    assert "there is no gates.json" in reading_of(report, "affinity")
    assert "No answers are there (predictions/)" in reading_of(report, "confusions")
    assert "No answers are there (predictions/)" in reading_of(report, "worst")
    assert len(tables_of(report, "scores")) == 2
    assert to_html(report).count("<section") == len(report.sections)


def test_results_alone_are_enough(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"mood": 50.0})
    (run / "recipe.yaml").unlink()
    report = gather([run])
    assert "There is no metrics.jsonl of hand" in reading_of(report, "curves")
    assert "no classification task" not in reading_of(report, "confusions")
    assert "50.0" in to_html(report)


def test_a_run_without_any_split_or_stage_says_so(tmp_path: Path) -> None:
    report = gather([write_run(tmp_path / "run", {"mood": 50.0}, splits={}, stages={}, released="")])
    assert "No split was scored" in reading_of(report, "scores")
    assert "No arm's budget was written down" in reading_of(report, "budget")
    assert to_html(report)


def test_a_comparison_whose_run_directories_were_deleted_keeps_its_tables(tmp_path: Path, compared: Compared) -> None:
    (tmp_path / "compare.json").write_bytes((compared[0] / "compare.json").read_bytes())
    report = gather([tmp_path])
    assert tables_of(report, "scores") == tables_of(gather([compared[0]]), "scores")
    assert "No run directories are here, so there are no curves, gate maps, affinities" in reading_of(report, "overview")
    bare = ("curves", "gates", "affinity", "confusions", "worst")
    assert [section["blocks"] for section in to_json(report)["sections"] if section["key"] in bare] == [[]] * 5
    assert not any(f'id="{key}"' in to_html(report) for key in bare), "they keep their place in JSON alone"
    assert "Worst answers" not in to_markdown(report)
    said = reading_of(report, "environment")
    assert "The last call of alter compare ran with alter 0.1.0, torch 2.0; arms may come from other environments." in said


def test_a_page_does_not_hang_on_when_files_were_written(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"mood": 50.0})
    before = to_markdown(gather([run]))
    os.utime(run / "results.json", (1, 1))
    assert to_markdown(gather([run])) == before


def test_arms_of_another_program_are_named_with_the_environment(tmp_path: Path, compared: Compared) -> None:
    other = compared[1].arms["majority"].model_copy(update={"family": "peer"})
    write_comparison(compared[1].model_copy(update={"arms": {**compared[1].arms, "adapters-fusion": other}}), tmp_path)
    said = "Trained by another program, whose versions are not known here: adapters-fusion."
    assert said in reading_of(gather([tmp_path]), "environment")
    assert "All run directories that were read have alter " in reading_of(gather([compared[0]]), "environment")


def test_one_file_is_one_file(tmp_path: Path, compared: Compared) -> None:
    (tmp_path / "compare.json").write_bytes((compared[0] / "compare.json").read_bytes())
    assert "### 1 file read" in to_markdown(gather([tmp_path]))


def without(found: Comparison, folder: Path, *arms: str) -> Report:
    """Return the report of a comparison whose arms of these names have no run, and one more with a better validation average."""
    best = found.arms["multi-full"].model_copy(update={"family": "own"})
    worse = best.model_copy(update={"summary": found.arms["majority"].summary})
    gone = {name: found.arms[name].model_copy(update={"runs": [], "summary": {}, "failed": "seed 0: no"}) for name in arms}
    more = {"worse": worse, "best": best} if "multi-full" not in arms else {}
    write_comparison(found.model_copy(update={"arms": {**found.arms, **gone, **more}}), folder)
    return gather([folder])


def test_the_arm_that_is_looked_at_closely_is_named_with_the_reason(tmp_path: Path, compared: Compared) -> None:
    said = "Looked at closely is alter-lite, the recipe as it stands."
    report = gather([compared[0]])
    for key in ("confusions", "worst"):
        assert reading_of(report, key).startswith(said)
    lacking = "alter-lite, the recipe as it stands, has no run;"
    report = without(compared[1], tmp_path / "one", "alter-lite")
    assert reading_of(report, "short").startswith(
        f"Looked at closely is best: {lacking} of the method's variants it has the best average on validation rows."
    )
    report = without(compared[1], tmp_path / "other", "alter-lite", "multi-full")
    assert f"single-full: {lacking} of the arms it has the best" in reading_of(report, "short")
    report = without(compared[1], tmp_path / "none", *compared[1].arms)
    assert "Looked at closely" not in to_markdown(report)
    assert to_html(report)


def test_runs_of_several_machines_are_told_apart_whatever_the_last_call_s_was(tmp_path: Path, compared: Compared) -> None:
    shutil.copytree(compared[0], tmp_path / "moved")
    path = tmp_path / "moved" / "arms" / "alter-lite" / "seed1" / "results.json"
    results = read_results(path)
    write_results(results.model_copy(update={"environment": {**results.environment, "processors": "999"}}), path)
    report = gather([tmp_path / "moved"])
    assert "Not all numbers came from the same environment: processors differ." in reading_of(report, "environment")
    table = tables_of(report, "environment")["Versions and machine"]
    assert table[0] == ["", "alter-lite, seed 0", "alter-lite, seed 1"]
    assert ["processors", results.environment["processors"], "999"] in table


def test_a_comparison_and_a_run_stand_below_each_other(compared: Compared, runs: dict[int, Path]) -> None:
    report = gather([compared[0], runs[0]])
    assert report.title == "Report: comparison toy and toy"
    assert len(tables_of(report, "scores")) == 4
    page = to_html(report)
    assert page.count("<summary><h3>Comparison toy</h3></summary>") == len(report.sections)


def test_every_file_that_was_read_is_listed(compared: Compared) -> None:
    files = {row[0] for row in tables_of(gather([compared[0]]), "environment")["Files"][1:]}
    assert str(compared[0] / "compare.json") in files
    for name in (
        "results.json",
        "recipe.yaml",
        "metrics.jsonl",
        "gates.json",
        "model/alter_config.json",
        "predictions/test/mood.jsonl",
    ):
        assert str(compared[0] / "arms/alter-lite/seed1" / name) in files


def test_the_example_of_the_how_to_page_runs_as_it_is(
    tmp_path: Path, runs: dict[int, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_run(runs[0], tmp_path / "runs" / "demo")
    monkeypatch.chdir(tmp_path)
    page = Path(__file__).parents[2] / "docs" / "how-to" / "report.md"
    [code] = re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    exec(code, {})  # noqa: S102 - our own page
    assert (tmp_path / "report.html").exists()
    assert (tmp_path / "report.md").exists()


def test_markdown_has_the_same_tables(compared: Compared) -> None:
    report = gather([compared[0]])
    text = spaced(to_markdown(report))
    for key in ("scores", "answers", "budget"):
        for table in tables_of(report, key).values():
            for row in table[1:]:
                cells = [cell.replace("_", "\\_") for cell in row]
                assert f"| {' | '.join(cells)} |" in text.replace("**", "")
    assert "- Figure: Training loss" in text
    assert "<" not in text


def test_json_has_numbers_that_are_not_rounded(compared: Compared) -> None:
    content = json.loads(json.dumps(to_json(gather([compared[0]])), allow_nan=False))
    sections = {section["key"]: section for section in content["sections"]}
    table = sections["scores"]["blocks"][0]
    row = dict(zip(table["columns"], table["rows"][0], strict=True))
    summary = compared[1].arms["alter-lite"].summary["test"]
    assert row["alter-lite"] == {"mean": summary.tasks["mood"].mean, "sd": summary.tasks["mood"].sd, "seeds": 2}
    assert {block["kind"] for block in sections["worst"]["blocks"]} == {"examples"}


def nothing(folder: Path) -> None:
    shutil.rmtree(folder)


def empty(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            path.unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("x")


def unfinished(folder: Path) -> None:
    (folder / "results.json").unlink()


def unfinished_comparison(folder: Path) -> None:
    empty(folder)
    (folder / "arms").mkdir()


def written(name: str, text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(text)

    return spoil


GATES = '{"tasks": ["a"], "adapters": ["a", "b"], "sites": [0], "stages": {"stage1": [[[1.0]]]}}'
REFUSED = {
    "no folder": (nothing, "no such folder; give the --output-dir of a finished `alter train` or `alter compare`"),
    "another folder": (empty, "is no run directory and no comparison (results.json and compare.json are missing)"),
    "a file": (a_file, "is a file; give the --output-dir"),
    "an unfinished run": (unfinished, "holds an unfinished run (results.json is missing); finish it with `alter train"),
    "an unfinished comparison": (unfinished_comparison, "holds an unfinished comparison (compare.json is missing)"),
    "damaged results": (written("results.json", "{"), "results.json: not valid JSON"),
    "foreign results": (written("results.json", '{"a": 1}'), "not a results file of schema 1"),
    "a damaged comparison": (written("compare.json", "["), "compare.json: cannot be read"),
    "a damaged journal": (
        written("metrics.jsonl", '{"event": "step", "stage": "stage1", "step": 1}\n{"ev'),
        "metrics.jsonl:2: Invalid JSON",
    ),
    "an odd journal": (
        written("metrics.jsonl", '{"event": "step"}'),
        "metrics.jsonl:1: stage: Field required; the file is damaged",
    ),
    "damaged gates": (written("gates.json", "nothing"), "gates.json: Invalid JSON"),
    "gates that do not fit": (written("gates.json", GATES), "stages.stage1 does not fit 1 tasks, 1 sites and 2 adapters"),
    "damaged answers": (
        written("predictions/test/mood.jsonl", "[1]"),
        "predictions/test/mood.jsonl:1: Input should be an object",
    ),
    "a damaged recipe": (written("recipe.yaml", "tasks: 3"), "recipe.yaml: its tasks are no list of tasks"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_reported_is_refused_with_place_and_remedy(tmp_path: Path, case: str) -> None:
    run = write_run(tmp_path / "run", {"mood": 50.0}, answers={"mood": []})
    spoil, says = REFUSED[case]
    spoil(run)
    with pytest.raises(CheckpointError) as caught:
        gather([run])
    assert str(caught.value).startswith(str(run))
    assert says in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"mood": 50.0})
    (run / "gates.json").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match="not UTF-8 text"):
        gather([run])


def test_no_folder_at_all_is_refused() -> None:
    with pytest.raises(ConfigError, match="no folder is given"):
        gather([])


@pytest.mark.parametrize("option", ["html", "markdown"])
def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path, option: str) -> None:
    report = gather([write_run(tmp_path / "run", {"mood": 50.0})])
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match=r"the report cannot be written .*; name another file with --"):
        write_report(report, **{option: tmp_path / "taken"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run", "taken"]
