"""Validation reads everything and tells every problem at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipes import write_recipe

from alter.errors import ConfigError, DataError
from alter.recipe import Recipe, load_recipe
from alter.tasks.spec import TaskSpec
from alter.tasks.validate import TaskSummary, ValidationReport, validate_recipe
from alter.training.prepare import read_rows


def rows_file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def recipe(*tasks: dict[str, Any]) -> Recipe:
    """Return a recipe of these tasks; which adapters it names is no matter of validation.

    A task that says nothing of validation rows gets good ones of its own: a number, or the labels x and y.
    """
    for task in tasks:
        source = task["source"]
        if "hub" not in source and "validation" not in source:
            held_out = [("held out", 1.0)] if task.get("kind") == "regression" else [("held out", "x"), ("held out too", "y")]
            folder = Path(source.get("train") or source["test"]).parent
            source["validation"] = rows_file(folder / f"held-out-{len(held_out)}.jsonl", labelled(*held_out))
    return Recipe.model_construct(
        name="r", model_name_or_path="m", stages={}, tasks=[TaskSpec.model_validate(task) for task in tasks]
    )


def labelled(*pairs: tuple[str, object], **extra: object) -> list[dict[str, Any]]:
    return [{"text": text, "label": label, **extra} for text, label in pairs]


def test_a_good_recipe_is_summed_up(tmp_path: Path) -> None:
    train = rows_file(tmp_path / "train.jsonl", labelled(("a", "x"), ("b", "y"), ("c", "x"), ("d", "x")))
    test = rows_file(tmp_path / "test.jsonl", labelled(("e", "y")))
    numbers = rows_file(tmp_path / "numbers.jsonl", [{"text": "n", "text_pair": "m", "label": value} for value in (3, 1.5)])
    report = validate_recipe(
        recipe(
            {"name": "intent", "source": {"train": train, "test": test}, "input": "say: {{ text }}", "cap": 2},
            {"name": "near", "source": {"train": numbers}, "kind": "regression"},
        )
    )
    assert report.is_valid
    assert report == ValidationReport(
        problems=[],
        warnings=[],
        summaries={
            "intent": TaskSummary(
                name="intent",
                kind="classification",
                rows={"train": 4, "validation": 2, "test": 1},
                cap=2,
                labels={"train": {"x": 3, "y": 1}, "validation": {"x": 1, "y": 1}, "test": {"y": 1}},
                label_range=None,
                examples=[("say: a", None, "x"), ("say: b", None, "y"), ("say: c", None, "x")],
            ),
            "near": TaskSummary(
                name="near",
                kind="regression",
                rows={"train": 2, "validation": 1, "test": 0},
                cap=None,
                labels={},
                label_range=(1.5, 3.0),
                examples=[("n", "m", 3.0), ("n", "m", 1.5)],
            ),
        },
    )


def test_every_problem_of_every_file_is_told(tmp_path: Path) -> None:
    train = tmp_path / "train.jsonl"
    train.write_text('{"text": "a", "label": "x"}\nbroken\n{"text": "", "label": "y"}\n{"text": "b", "label": "z"}\n')
    validation = rows_file(tmp_path / "validation.jsonl", labelled(("c", "yy")))
    numbers = rows_file(tmp_path / "numbers.jsonl", labelled(("d", "many")))
    report = validate_recipe(
        recipe(
            {"name": "a", "source": {"train": str(train), "validation": validation}, "labels": ["x", "y"]},
            {"name": "b", "source": {"train": numbers}, "kind": "regression"},
            {"name": "c", "source": {"train": str(tmp_path / "trian.jsonl")}},
            {"name": "d", "source": {"train": str(train)}, "input": "{{ text "},
            {"name": "e", "source": {"test": validation}},
        )
    )
    assert not report.is_valid
    starts = [
        "task 'd': input: '{{ text ' is not a valid template, line 1: ",
        "task 'e' has no training rows: source.train is missing; name a file there",
        f"{train}:2: not valid JSON at column 1 (Expecting value), before 'broken'; ",
        f"{train}:3: task 'a': the input is empty (text='')",
        f"{train}:4: task 'a': unknown label 'z'; allowed: x, y.",
        f"{numbers}:1: task 'b': the label 'many' is no finite number",
        f"{tmp_path / 'trian.jsonl'}: no such file; did you mean 'train.jsonl'? [read for task c]",
        f"{validation}:1: task 'a': unknown label 'yy'; allowed: x, y. Did you mean 'y'?",
    ]
    assert len(report.problems) == len(starts)
    for problem, start in zip(report.problems, starts, strict=True):
        assert problem.startswith(start)
    assert "[read for task a]" in report.problems[2]
    assert report.summaries["a"].rows == {"train": 1, "validation": 0, "test": 0}


def test_the_same_problem_in_many_rows_is_told_once_with_its_lines(tmp_path: Path) -> None:
    good = labelled(("a", "x"), ("b", "y"))
    train = rows_file(tmp_path / "train.jsonl", good + labelled(*[("c", "z")] * 14))
    report = validate_recipe(recipe({"name": "a", "source": {"train": train}, "labels": ["x", "y"]}))
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{train}:3: task 'a': unknown label 'z'")
    assert report.problems[0].endswith("(the same in 13 more: line 4, 5, 6, 7, 8, 9, 10, 11, 12, ...)")


def test_the_same_fault_in_json_is_told_once_whatever_stands_around_it(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    lines = ["one, two", "three, four", '{"text": "a", "label": }', '{"text": "b", "label": }', '{"text": "long", "label": }']
    path.write_text("\n".join(lines))
    report = validate_recipe(recipe({"name": "a", "source": {"train": str(path)}}))
    remedy = """; each row must be one JSON object such as {"text": "..."} [read for task a]"""
    assert report.problems == [
        f"{path}:1: not valid JSON at column 1 (Expecting value), before 'one, two'{remedy} (the same in 1 more: line 2)",
        f"{path}:3: not valid JSON at column 24 (Expecting value), after '{lines[2][:23]}' and before '}}'{remedy} "
        f"(the same in 1 more: line 4)",
        f"{path}:5: not valid JSON at column 27 (Expecting value), after '{lines[4][:26]}' and before '}}'{remedy}",
    ]


def test_a_broken_file_of_two_splits_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text('broken\nbroken\n{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}\n')
    report = validate_recipe(recipe({"name": "a", "source": {"train": str(path), "test": str(path)}}))
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{path}:1: not valid JSON")
    assert report.problems[0].endswith("(the same in 1 more: line 2)")


def test_a_problem_of_a_shared_file_names_its_tasks(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text('{"task": "a", "text": "a", "label": "x"}\nbroken\n')
    tasks = [{"name": f"t{number}", "source": {"train": str(path)}} for number in range(6)]
    report = validate_recipe(recipe(*tasks))
    told = [text for text in report.problems if "not valid JSON" in text]
    assert len(told) == 1
    assert told[0].endswith("[read for task t0, t1, t2, t3, t4, ...]")


def test_labels_that_cannot_be_inferred_are_a_problem(tmp_path: Path) -> None:
    one = rows_file(tmp_path / "one.jsonl", labelled(("a", "x"), ("b", "x")))
    many = rows_file(tmp_path / "many.jsonl", labelled(*[(f"t{n}", f"l{n}") for n in range(1001)]))
    report = validate_recipe(recipe({"name": "a", "source": {"train": one}}, {"name": "b", "source": {"train": many}}))
    assert report.problems[0].startswith(f"{one}:1: task 'a': the 2 training rows hold only the label 'x'")
    assert report.problems[1].startswith(f"{many}:1: task 'b': 1001 different labels")


def test_unknown_task_names_are_told_once_each(tmp_path: Path) -> None:
    rows = [
        {"task_name": name, "text": f"row {number}", "label": "xy"[number % 2]}
        for number, name in enumerate(["intent", "intent", "intnet", "urgency", "urgency", "intnet", "weather"])
    ]
    path = rows_file(tmp_path / "all.jsonl", rows)
    tasks = [{"name": name, "source": {"train": path, "validation": path}} for name in ("intent", "urgency")]
    report = validate_recipe(recipe(*tasks))
    assert report.problems == [
        f"{path}:3: 2 rows name the task 'intnet', which the recipe does not have; "
        f"allowed: intent, urgency. Did you mean 'intent'?",
        f"{path}:7: 1 row names the task 'weather', which the recipe does not have; allowed: intent, urgency.",
    ]


def test_a_task_of_the_recipe_is_known_in_files_that_it_does_not_read(tmp_path: Path) -> None:
    shared = rows_file(tmp_path / "all.jsonl", labelled(("a", "x"), ("b", "y"), task="a") + labelled(("c", "x"), task="b"))
    own = rows_file(tmp_path / "own.jsonl", labelled(("d", "x"), ("e", "y")))
    report = validate_recipe(recipe({"name": "a", "source": {"train": shared}}, {"name": "b", "source": {"train": own}}))
    assert report.problems == []


def test_a_task_without_validation_rows_is_a_problem_that_training_tells_too(tmp_path: Path) -> None:
    train = rows_file(tmp_path / "train.jsonl", labelled(("a", "x"), ("b", "y")))
    given = recipe({"name": "a", "source": {"train": train, "validation": None}})
    problem = "task 'a' has no validation rows; name a file under source.validation: the best checkpoint is chosen on it"
    assert validate_recipe(given).problems == [problem]
    with pytest.raises(DataError) as caught:
        read_rows(given)
    assert str(caught.value) == problem


def test_training_refuses_unknown_task_names_as_validation_does(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "all.jsonl", labelled(("a", "x"), ("b", "y"), task="a") + labelled(("c", "x"), task="aa"))
    given = recipe({"name": "a", "source": {"train": path, "validation": path}})
    problem = f"{path}:3: 1 row names the task 'aa', which the recipe does not have; allowed: a."
    assert [text[: len(problem)] for text in validate_recipe(given).problems] == [problem]
    with pytest.raises(DataError) as caught:
        read_rows(given)
    assert [str(caught.value)] == validate_recipe(given).problems


def test_a_recipe_may_be_given_by_its_path(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    assert validate_recipe(path) == validate_recipe(str(path)) == validate_recipe(load_recipe(path))
    assert validate_recipe(path).is_valid
    with pytest.raises(ConfigError, match=r"nothing\.yaml"):
        validate_recipe(tmp_path / "nothing.yaml")


def test_a_task_without_rows_is_a_problem(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "all.jsonl", labelled(("a", "x"), ("b", "y"), task="a"))
    report = validate_recipe(recipe({"name": "a", "source": {"train": path}}, {"name": "b", "source": {"train": path}}))
    assert len(report.problems) == 1
    assert report.problems[0].startswith(f"{path}: task 'b': none of the 2 rows is of this task; the tasks they name: a.")


def test_rows_that_stand_in_train_too_are_a_warning(tmp_path: Path) -> None:
    train = rows_file(tmp_path / "train.jsonl", labelled(("a", "x"), ("b", "y"), ("c", "x")))
    validation = rows_file(tmp_path / "validation.jsonl", labelled(("new", "x"), ("b", "x"), ("a", "x")))
    test = rows_file(tmp_path / "test.jsonl", [{"text": "a", "text_pair": "other", "label": "x"}])
    source = {"train": train, "validation": validation, "test": test}
    report = validate_recipe(recipe({"name": "t", "source": source, "cap": 1}))
    assert report.is_valid
    assert report.warnings == [
        f"{validation}:2: task 't': 2 of 3 validation rows stand in train with the same text; scores on such rows tell little",
        "task 't': 1 label of its training rows ('y') stands in no validation row; the best step is chosen without looking at it: "
        "add such validation rows",
    ]


def test_one_row_that_stands_in_train_too_is_told_of_as_one(tmp_path: Path) -> None:
    train = rows_file(tmp_path / "train.jsonl", labelled(("a", "x"), ("b", "y")))
    test = rows_file(tmp_path / "test.jsonl", labelled(("a", "x")))
    report = validate_recipe(recipe({"name": "t", "source": {"train": train, "test": test}}))
    assert report.warnings == [
        f"{test}:1: task 't': 1 of 1 test row stands in train with the same text; scores on such rows tell little"
    ]


def test_labels_that_validation_never_shows_are_one_warning_per_task(tmp_path: Path) -> None:
    rows = labelled(*((f"text {number}", f"l{number:02}") for number in range(15)))
    train = rows_file(tmp_path / "train.jsonl", rows)
    validation = rows_file(tmp_path / "validation.jsonl", labelled(("held out", "l00"), ("held out too", "l02")))
    tasks = [
        {"name": "many", "source": {"train": train, "validation": validation}},
        {"name": "two", "source": {"train": rows_file(tmp_path / "two.jsonl", rows[:3]), "validation": validation}},
        {"name": "texts", "kind": "generation", "source": {"train": train, "validation": validation}},
    ]
    report = validate_recipe(recipe(*tasks))
    assert report.is_valid
    many, two = report.warnings
    listed = ", ".join(f"'l{number:02}'" for number in (1, *range(3, 12)))
    assert many.startswith(f"task 'many': 13 labels of its training rows ({listed}, ...) stand in no validation row; ")
    assert many.endswith("the best step is chosen without looking at them: add such validation rows")
    assert two.startswith("task 'two': 1 label of its training rows ('l01') stands in no validation row; ")


def test_answers_longer_than_the_recipe_allows_are_warned_of(tmp_path: Path) -> None:
    path = rows_file(tmp_path / "train.jsonl", [{"text": "a", "target": "b"}])
    source = {"train": path, "validation": rows_file(tmp_path / "validation.jsonl", [{"text": "c", "target": "d"}])}
    tasks = [
        {"name": f"up-to-{most}", "kind": "generation", "source": source, "generation": {"max_new_tokens": most}}
        for most in (64, 65)
    ]
    report = validate_recipe(recipe(*tasks))
    assert report.is_valid
    assert report.warnings == [
        "task 'up-to-65': generation.max_new_tokens is 65, but max_target_length is 64, so its answers end after 64 tokens; raise "
        "max_target_length, or lower max_new_tokens"
    ]


@pytest.mark.parametrize("labels", [None, ["x", "y", "z"]])
def test_labels_that_training_never_shows_are_a_warning(tmp_path: Path, labels: list[str] | None) -> None:
    train = rows_file(tmp_path / "train.jsonl", labelled(("a", "x"), ("b", "y")))
    test = rows_file(tmp_path / "test.jsonl", labelled(("c", "x"), ("d", "z"), ("e", "z")))
    report = validate_recipe(recipe({"name": "t", "source": {"train": train, "test": test}, "labels": labels}))
    assert report.is_valid
    assert report.warnings == [
        f"{test}:2: task 't': the label 'z' stands in 2 test rows and in no training row; the model cannot learn it"
    ]


def test_new_numbers_of_a_regression_are_no_warning(tmp_path: Path) -> None:
    train = rows_file(tmp_path / "train.jsonl", labelled(("a", 1), ("b", 2)))
    test = rows_file(tmp_path / "test.jsonl", labelled(("c", 3)))
    report = validate_recipe(recipe({"name": "t", "source": {"train": train, "test": test}, "kind": "regression"}))
    assert (report.problems, report.warnings) == ([], [])


def test_a_hub_data_set_without_a_validation_split_is_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    rows_file(folder / "train.jsonl", labelled(("a", "x"), ("b", "y")))
    report = validate_recipe(recipe({"name": "t", "source": {"hub": str(folder), "splits": ["train", "validation"]}}))
    assert len(report.problems) == 1
    assert report.problems[0].startswith("task 't' has no validation rows; name a file under source.validation")


def test_a_hub_data_set_without_a_split_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    rows_file(folder / "train.jsonl", labelled(("a", "x"), ("b", "y")))
    rows_file(folder / "validation.jsonl", labelled(("c", "x"), ("d", "y")))
    tasks = [{"name": "t", "source": {"hub": str(folder)}}, {"name": "u", "source": {"hub": "no-one/nothing"}}]
    report = validate_recipe(recipe(*tasks))
    assert report.warnings == [f"task 't': {folder} has no split 'test' (it has train, validation): no test rows are used"]
    assert report.summaries["t"].rows == {"train": 2, "validation": 2, "test": 0}
    assert len(report.problems) == 1
    assert report.problems[0].startswith("no-one/nothing: cannot be read from the hub (")
    assert report.problems[0].endswith("[read for task u]")
