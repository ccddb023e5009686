"""Wrong rows and files of rows: each verb that reads them names the file, the line, the value, what is allowed and the remedy."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.cli.command import Alter, run_process
from tests.recipes import write_jsonl

GOOD = b'{"text": "good help", "label": "pleased"}\n{"text": "bad help", "label": "upset"}\n'
NUMBERS = b'{"text": "one help", "label": 1}\n{"text": "two help", "label": 2}\n'


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A wrong file and what its message must say."""

    content: bytes | None
    says: tuple[str, ...]
    task: str = "mood"
    ending: str = ".jsonl"
    place: str = ":3: "


LABELLED = {
    "bad JSON": Bad(
        content=GOOD + b'{"text": "good", "label": \n',
        says=(
            'not valid JSON at column 27 (Expecting value), after \'{"text": "good", "label": \'',
            "each row must be one JSON object",
        ),
    ),
    "a row that is no object": Bad(content=GOOD + b'["good", "pleased"]\n', says=("must be a JSON object", "this is a list")),
    "no label": Bad(
        content=GOOD + b'{"text": "good"}\n',
        says=("the row has no 'label' (its columns: text)", "the first is line 1", "fill it in"),
    ),
    "a label under another name": Bad(
        content=b'{"text": "good", "gold": "pleased"}\n' * 2,
        place=":1: ",
        says=("the row has no label", "columns.label", "the row's columns: gold, text"),
    ),
    "no text": Bad(content=GOOD + b'{"words": "good", "label": "upset"}\n', says=("task 'mood'", "text", "label, words")),
    "an unknown label": Bad(
        content=GOOD + b'{"text": "good", "label": "pleesed"}\n',
        says=("unknown label 'pleesed'", "allowed: pleased, upset", "Did you mean 'pleased'?", "Mend the row"),
    ),
    "an empty label": Bad(
        content=GOOD + b'{"text": "good", "label": ""}\n', says=("the label is empty ('')", "Fill it or remove")
    ),
    "an empty text": Bad(
        content=GOOD + b'{"text": " ", "label": "upset"}\n', says=("the input is empty (text=' ')", "remove the row")
    ),
    "no number": Bad(
        task="stars",
        content=NUMBERS + b'{"text": "three", "label": "many"}\n',
        says=("the label 'many' is no finite number", "a regression needs one, such as 3.5", "mend the row"),
    ),
    "not a number": Bad(
        task="stars", content=NUMBERS + b'{"text": "three", "label": NaN}\n', says=("the label nan is no finite number",)
    ),
    "not UTF-8": Bad(
        content=GOOD + b'{"text": "gr\xfc\xdfe", "label": "upset"}\n',
        says=("not UTF-8", "invalid start byte", "save the file as UTF-8"),
    ),
    "too few columns": Bad(
        ending=".csv", content=b"text,label\ngood,pleased\nbad\n", says=("too few columns: 1", "the header has 2 (text, label)")
    ),
    "an empty file": Bad(content=b"", place=": ", says=("holds no rows", "needs at least one")),
    "a missing file": Bad(content=None, place=": ", says=("no such file", "did you mean 'mood-bad.jsonl'")),
    "half a gzip file": Bad(
        ending=".jsonl.gz",
        content=gzip.compress(GOOD * 400)[:60],
        place=": ",
        says=("not a whole gzip file", "copy or download it again"),
    ),
    "no gzip file": Bad(
        ending=".jsonl.gz", content=GOOD, place=": ", says=("not a whole gzip file", "copy or download it again")
    ),
    "an unknown ending": Bad(
        ending=".jsnl",
        content=GOOD,
        place=": ",
        says=("unknown ending '.jsnl'", "allowed: .csv, .json, .jsonl", "Did you mean '.json"),
    ),
}


def with_bad_file(toy: Path, bad: Bad, split: str) -> tuple[Path, str]:
    """Give the recipe a wrong file for one split; return the recipe, and how a message names the place."""
    path = toy / f"{bad.task}-bad{bad.ending}"
    if bad.content is None:
        (toy / "mood-bad.jsonl").write_bytes(GOOD)
        path = toy / "mood-bda.jsonl"
    else:
        path.write_bytes(bad.content)
    recipe = yaml.safe_load((toy / "recipe.yaml").read_text())
    for block in recipe["tasks"]:
        if block["name"] == "mood":
            block["labels"] = ["pleased", "upset"]
        if block["name"] == bad.task:
            block["source"][split] = path.name
    (toy / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return toy / "recipe.yaml", f"{path}{bad.place}"


@pytest.mark.parametrize("case", LABELLED)
@pytest.mark.parametrize("split", ["train", "test"])
def test_validate_names_place_value_and_remedy(alter: Alter, toy: Path, case: str, split: str) -> None:
    bad = LABELLED[case]
    recipe, place = with_bad_file(toy, bad, split)
    outcome = alter("validate", recipe)
    assert outcome.code == 2
    told = [line for line in outcome.err.splitlines() if line.startswith(f"problem: {place}")]
    assert len(told) == 1, outcome.err
    for words in bad.says:
        assert words in told[0]
    assert "run alter validate again" in outcome.err


@pytest.mark.parametrize("case", LABELLED)
def test_train_names_place_value_and_remedy_before_anything_is_trained(alter: Alter, toy: Path, case: str) -> None:
    bad = LABELLED[case]
    recipe, place = with_bad_file(toy, bad, "train")
    told = alter.refuses("train", recipe, "-o", toy / "new")
    for words in (f"error: {place}", *bad.says):
        assert words in told
    assert not (toy / "new" / "checkpoints").exists()
    assert not (toy / "new" / "model").exists()


@pytest.mark.parametrize("case", LABELLED)
def test_evaluate_names_place_value_and_remedy(alter: Alter, toy: Path, finished: Path, case: str) -> None:
    bad = LABELLED[case]
    recipe, place = with_bad_file(toy, bad, "test")
    told = alter.refuses("evaluate", finished, "--recipe", recipe)
    for words in (f"error: {place}", *bad.says):
        assert words in told


@pytest.mark.parametrize("verb", ["train", "evaluate"])
def test_a_bad_row_is_one_json_error_where_json_was_asked_for(alter: Alter, toy: Path, finished: Path, verb: str) -> None:
    recipe, place = with_bad_file(toy, LABELLED["an empty text"], "test")
    arguments = {"train": [recipe, "-o", toy / "new"], "evaluate": [finished, "--recipe", recipe]}[verb]
    outcome = alter(verb, *arguments, "--json")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["error"] == "DataError"
    assert outcome.error["message"].startswith(place)


def test_validate_tells_problems_as_json_on_standard_output(alter: Alter, toy: Path) -> None:
    recipe, place = with_bad_file(toy, LABELLED["an empty text"], "train")
    outcome = alter("validate", recipe, "--json")
    assert outcome.code == 2
    assert outcome.json["valid"] is False
    assert [problem[: len(place)] for problem in outcome.json["problems"]] == [place]


def test_all_problems_of_all_files_are_told_at_once(alter: Alter, toy: Path) -> None:
    with_bad_file(toy, LABELLED["no number"], "train")
    recipe, _ = with_bad_file(toy, LABELLED["an unknown label"], "test")
    outcome = alter("validate", recipe)
    assert "stars-bad.jsonl:3: " in outcome.err
    assert "mood-bad.jsonl:3: " in outcome.err
    assert "2 tasks read, 0 warnings, 2 problems; mend them and run alter validate again" in outcome.err


def test_a_row_of_an_unknown_task_is_a_problem_with_its_line(alter: Alter, toy: Path) -> None:
    rows = [json.loads(line) for line in (toy / "mood-train.jsonl").read_text().splitlines()]
    write_jsonl(toy / "mood-train.jsonl", [*rows, {"text": "good", "label": "upset", "task_name": "moood"}])
    outcome = alter("validate", toy / "recipe.yaml")
    assert outcome.code == 2
    told = f"{toy / 'mood-train.jsonl'}:25: 1 row names the task 'moood', which the recipe does not have; allowed: mood, stars."
    assert told in outcome.err
    assert "Did you mean 'mood'?" in outcome.err


def test_a_task_without_rows_in_a_shared_file_is_told_the_names_there(alter: Alter, toy: Path) -> None:
    for split in ("train", "validation", "test"):
        rows = [json.loads(line) for line in (toy / f"mood-{split}.jsonl").read_text().splitlines()]
        write_jsonl(toy / f"mood-{split}.jsonl", [{**row, "task_name": "moods"} for row in rows])
    told = alter.refuses("train", toy / "recipe.yaml", "-o", toy / "new")
    assert "task 'mood': none of the 24 rows is of this task; the tasks they name: moods" in told


def test_a_label_that_only_test_rows_have_is_a_warning_in_validate(alter: Alter, toy: Path) -> None:
    write_jsonl(toy / "mood-test.jsonl", [{"text": "good", "label": "pleased"}, {"text": "so so", "label": "torn"}])
    outcome = alter.works("validate", toy / "recipe.yaml")
    assert (
        f"{toy / 'mood-test.jsonl'}:2: task 'mood': the label 'torn' stands in 1 test row and in no training row" in outcome.err
    )


UNLABELLED: dict[str, tuple[str, bytes | None, tuple[str, ...]]] = {
    "bad JSON": ("in.jsonl", b'{"text": "good"}\n{"text": \n', (":2: not valid JSON", "each row must be one JSON object")),
    "no text": ("in.jsonl", b'{"text": "good"}\n\n{"words": "good"}\n', (":3: task 'mood'", "text", "words")),
    "an empty text": ("in.jsonl", b'{"text": "good"}\n\n{"text": ""}\n', (":3: task 'mood': the input is empty (text='')",)),
    "not UTF-8": ("in.jsonl", b'{"text": "gr\xfc\xdfe"}\n', (":1: not UTF-8", "save the file as UTF-8")),
    "an empty file": ("in.jsonl", b"", (": holds no rows",)),
    "a missing file": ("in.jsonl", None, (": no such file",)),
    "half a gzip file": ("in.jsonl.gz", gzip.compress(GOOD * 400)[:60], (": not a whole gzip file", "copy or download it again")),
    "an unknown ending": ("in.docx", b"good", (": unknown ending '.docx'", "allowed: .csv")),
    "texts that are not UTF-8": ("in.txt", b"good\ngr\xfc\xdfe\n", (": cannot be read (not UTF-8", "one text a line")),
    "no texts": ("in.txt", b"\n \n", (": holds no text", "one text a line")),
    "missing texts": ("in.txt", None, (": cannot be read (No such file or directory)", "one text a line")),
}


@pytest.mark.parametrize("case", UNLABELLED)
def test_predict_names_place_value_and_remedy(alter: Alter, toy: Path, finished: Path, case: str) -> None:
    name, content, says = UNLABELLED[case]
    path = toy / name
    if content is not None:
        path.write_bytes(content)
    (toy / "out.jsonl").write_text("kept\n")
    told = alter.refuses("predict", finished, "--input", path, "--output", toy / "out.jsonl")
    for words in (f"error: {path}{says[0]}", *says[1:]):
        assert words in told
    assert (toy / "out.jsonl").read_text() == "kept\n"


def test_an_empty_text_of_predict_is_told_by_its_number(alter: Alter, finished: Path) -> None:
    told = alter.refuses("predict", finished, "--text", "good", "--text", " ")
    assert "--text 2: task 'mood': the input is empty (text=' '); fill" in told


@pytest.mark.parametrize("given", [b"", b"gr\xfc\xdfe\n"], ids=["empty", "not UTF-8"])
def test_standard_input_without_readable_text_is_an_error(finished: Path, given: bytes) -> None:
    outcome = run_process("predict", finished, "--input", "-", "--json", stdin=given)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.error["message"].startswith("standard input")


LONG = "good help " * 40


def cut(verb: str, toy: Path, finished: Path) -> list[object]:
    for split in ("validation", "test"):
        write_jsonl(toy / f"mood-{split}.jsonl", [{"text": LONG, "label": "pleased"}, {"text": "bad", "label": "upset"}])
    return {
        "train": ["train", toy / "recipe.yaml", "-o", toy / "new"],
        "evaluate": ["evaluate", finished, "--recipe", toy / "recipe.yaml"],
        "predict": ["predict", finished, "--task", "mood", "--text", LONG, "--text", "good"],
    }[verb]


CUT: dict[str, str] = {
    "train": "warning: task 'mood': 1 of 2 test texts is longer than max_length and was cut; raise max_length",
    "evaluate": "warning: task 'mood': 1 of 2 test texts is longer than max_length and was cut; raise max_length",
    "predict": "warning: 1 of 2 inputs is longer than 32 tokens (the model's max_length) and was cut",
}


@pytest.mark.parametrize("verb", CUT)
def test_an_over_long_text_is_cut_counted_and_warned_of(alter: Alter, toy: Path, finished: Path, verb: str) -> None:
    outcome = alter.works(*cut(verb, toy, finished), "--json")
    assert CUT[verb] in outcome.err
    if verb == "predict":
        assert [line.get("truncated", False) for line in outcome.json_lines] == [True, False]
    else:
        splits = outcome.json.get("splits", {"test": outcome.json})
        assert splits["test"]["tasks"]["mood"]["num_truncated"] == 1
