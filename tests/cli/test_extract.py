"""`alter extract` as users type it."""

from __future__ import annotations

from pathlib import Path

from tests.cli.command import Alter


def test_a_task_is_taken_out_scored_and_answers(alter: Alter, finished: Path, tmp_path: Path) -> None:
    shown = alter.works("extract", finished, "--task", "mood", "-o", tmp_path / "mood", "--split", "test").out
    assert "stars" in shown
    assert "dropped" in shown
    assert "3 of 4 adapters kept, at 2 of 2 sites" in shown or "1 of 4 adapters kept, at 2 of 2 sites" in shown
    assert "parameters beside the base: " in shown
    for split in ("validation", "test"):
        [line] = [line for line in shown.splitlines() if "rows: " in line and f" {split} " in line]
        before, after = line.rsplit(": ", 1)[1].split(" -> ")
        assert before == after
    assert f"next:  alter predict {tmp_path / 'mood'} --text '...'" in shown
    [answer] = alter.works("predict", tmp_path / "mood", "--text", "a good day", "--json").json_lines
    [expected] = alter.works("predict", finished, "--task", "mood", "--text", "a good day", "--json").json_lines
    assert (answer["task"], answer["label"]) == ("mood", expected["label"])
    scores = alter.works("evaluate", tmp_path / "mood", "--recipe", finished / "recipe.yaml", "--json").json
    assert list(scores["tasks"]) == ["mood"]


def test_json_says_what_was_kept(alter: Alter, finished: Path, tmp_path: Path) -> None:
    told = alter.works("extract", finished, "-t", "stars", "-o", tmp_path / "stars", "--threshold", "0", "--json").json
    assert told["kept"]["stars"] == "stars"
    assert "mood" in told["dropped"]
    assert told["folder"] == str(tmp_path / "stars")
    assert told["scores"]["validation"]["num_examples"] == 12


def test_a_model_without_a_recipe_is_not_scored_and_says_so(alter: Alter, run: Path, tmp_path: Path) -> None:
    (run / "recipe.yaml").unlink()
    outcome = alter.works("extract", run, "-t", "mood", "-o", tmp_path / "out")
    assert "warning: not scored: " in outcome.err
    assert "no recipe.yaml beside the model" in outcome.err
    assert "rows: " not in outcome.out


def test_mistakes_are_told(alter: Alter, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "no task is given; add one, e.g. --task intent" in alter.refuses("extract", finished, "-o", out)
    assert "no place for the smaller model is given; add one, e.g. --output-dir" in alter.refuses(
        "extract", finished, "-t", "mood"
    )
    assert "Did you mean 'mood'?" in alter.refuses("extract", finished, "-t", "moood", "-o", out)
    assert "is there already" in alter.refuses("extract", finished, "-t", "mood", "-o", tmp_path)
    assert "no such folder" in alter.refuses("extract", tmp_path / "none", "-t", "mood", "-o", out)
    assert "nowhere.yaml: no such file" in alter.refuses("extract", finished, "-t", "mood", "-o", out, "--recipe", "nowhere.yaml")
    assert not out.exists()
