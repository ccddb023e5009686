"""Rows become examples: columns, inputs, labels, caps, and a message for everything that does not fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alter.errors import ConfigError, DataError, TaskError
from alter.tasks.example import Example
from alter.tasks.read import canonical, infer_labels, load_split, load_tasks, render_inputs
from alter.tasks.spec import Source, TaskSpec


def spec(name: str = "intent", **settings: Any) -> TaskSpec:
    return TaskSpec(name=name, **{"source": Source(train="unused.jsonl"), **settings})


def in_file(path: Path, rows: list[dict[str, Any]], name: str = "intent", split: str = "train", **settings: Any) -> TaskSpec:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return spec(name, source=Source(**{split: str(path)}), **settings)


def problem(task: TaskSpec, split: str = "train") -> str:
    with pytest.raises(DataError) as caught:
        load_split(task, split)
    return str(caught.value)


def all_problems(task: TaskSpec) -> tuple[list[Example], list[str]]:
    problems: list[DataError] = []
    examples = load_split(task, "train", on_problem=problems.append)
    return examples, [str(error) for error in problems]


@pytest.mark.parametrize("column", ["text", "input", "sentence", "source", "prompt", "content", "sentence1"])
def test_usual_names_count_as_text(column: str) -> None:
    assert canonical({column: "a"}, spec())["text"] == "a"


@pytest.mark.parametrize("column", ["label", "target", "output", "completion"])
def test_usual_names_count_as_label(column: str) -> None:
    assert canonical({"text": "a", column: "x"}, spec())["label"] == "x"


def test_usual_names_of_pairs_and_tasks() -> None:
    row = canonical({"sentence1": "a", "sentence2": "b", "task": "t", "extra": 1}, spec())
    assert (row["text"], row["text_pair"], row["task_name"], row["extra"]) == ("a", "b", "t", 1)
    assert "text_pair" not in canonical({"text": "a", "hypothesis": "b"}, spec())
    assert canonical({"text": "a", "hypothesis": "b"}, spec(columns={"text_pair": "hypothesis"}))["text_pair"] == "b"


def test_the_first_usual_name_wins() -> None:
    assert canonical({"source": "no", "input": "yes"}, spec())["text"] == "yes"


def test_columns_come_before_usual_names() -> None:
    task = spec(columns={"text": "Body Text", "label": "gold"})
    row = canonical({"text": "no", "Body Text": "yes", "label": "no", "gold": "g"}, task)
    assert (row["text"], row["label"]) == ("yes", "g")


def test_a_column_that_is_taken_is_nothing_else() -> None:
    row = canonical({"sentence1": "p", "sentence2": "q"}, spec(columns={"text": "sentence2", "text_pair": "sentence1"}))
    assert (row["text"], row["text_pair"]) == ("q", "p")
    # The label stands in `text`: the input must not read it.
    assert "text" not in canonical({"text": "gold", "other": "x"}, spec(columns={"label": "text"}))


def test_other_names_in_columns_serve_templates() -> None:
    task = spec(columns={"title": "Title (en)"}, input="{{ title }}: {{ text }}")
    assert render_inputs(task, {"Title (en)": "T", "text": "x"}) == ("T: x", None)


def test_a_mapped_column_that_the_file_lacks_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    task = in_file(path, [{"body": "a", "label": "x"}], columns={"text": "bdy"})
    assert problem(task) == (
        f"{path}:1: task 'intent': columns.text is 'bdy', and the row has no such column; "
        f"allowed: body, label. Did you mean 'body'?"
    )


LACKING: dict[str, tuple[dict[str, Any], str, str]] = {
    "a mapped column": ({"columns": {"label": "gold"}}, "gold", "label, text"),
    "the label": ({}, "label", "gold, text"),
    "the text": ({"columns": {"label": "gold"}}, "text", "gold, label"),
    "a column of the template": ({"input": "{{ title }} {{ text }}"}, "title", "gold, label, text"),
    "the column of task names": ({"columns": {"task_name": "kind"}}, "kind", "gold, label, text, title"),
}


@pytest.mark.parametrize("case", LACKING)
def test_a_row_that_lacks_what_other_rows_have_is_the_one_that_is_wrong(tmp_path: Path, case: str) -> None:
    settings, column, others = LACKING[case]
    path = tmp_path / "a.jsonl"
    whole = {"text": "a", "label": "x", "gold": "x", "title": "t", "kind": "intent"}
    short = {name: whole[name] for name in others.split(", ")}
    _, problems = all_problems(in_file(path, [whole, whole, short, short], **settings))
    told = f"task 'intent': the row has no '{column}' (its columns: {others}), which rows before it have (the first is line 1); "
    assert problems == [f"{path}:{line}: {told}fill it in, or remove the row" for line in (3, 4)]


def test_a_first_row_that_lacks_a_column_cannot_know_of_others(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"text": "a"}, {"text": "b", "gold": "x"}, {"text": "c"}]
    _, problems = all_problems(in_file(path, rows, columns={"label": "gold"}))
    assert problems == [
        f"{path}:1: task 'intent': columns.label is 'gold', and the row has no such column; allowed: text.",
        f"{path}:3: task 'intent': the row has no 'gold' (its columns: text), which rows before it have (the first is line 2); "
        f"fill it in, or remove the row",
    ]


def test_examples_carry_everything(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rows = [{"sentence1": "a", "sentence2": "b", "label": True}, {"sentence1": "c", "sentence2": "d", "label": 1}]
    task = in_file(path, rows, input="say: {{ text }}")
    assert load_split(task, "train") == [
        Example(task="intent", text="say: a", text_pair="b", label="true", place=f"{path}:1"),
        Example(task="intent", text="say: c", text_pair="d", label="1", place=f"{path}:2"),
    ]


def test_a_regression_reads_numbers(tmp_path: Path) -> None:
    rows = [{"text": "a", "label": value} for value in (1, 2.5, "-3.25", " 4e1 ")]
    examples = load_split(in_file(tmp_path / "a.jsonl", rows, kind="regression"), "train")
    assert [example.label for example in examples] == [1.0, 2.5, -3.25, 40.0]
    assert all(type(example.label) is float for example in examples)


@pytest.mark.parametrize("value", [None, "", "high", True, float("nan"), float("inf"), [1], 10**400])
def test_a_regression_label_that_is_no_finite_number_is_told(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.jsonl"
    message = problem(in_file(path, [{"text": "a", "label": 1.0}, {"text": "b", "label": value}], kind="regression"))
    assert message.startswith(f"{path}:2: task 'intent': the label {value!r} is no finite number; ")
    assert message.endswith("a regression needs one, such as 3.5; mend the row")


@pytest.mark.parametrize("value", [None, "", "  ", float("nan")])
def test_an_empty_label_is_told(tmp_path: Path, value: object) -> None:
    path = tmp_path / "a.jsonl"
    message = problem(in_file(path, [{"text": "a", "label": value}], labels=["no", "yes"]))
    assert message.startswith(f"{path}:1: task 'intent': the label is empty ({value!r}); allowed: no, yes.")
    assert message.endswith("Fill it or remove the row")


def test_a_label_that_is_a_list_is_told(tmp_path: Path) -> None:
    message = problem(in_file(tmp_path / "a.jsonl", [{"text": "a", "label": ["x", "y"]}]))
    assert "the label is a list (['x', 'y']); allowed: any text. A row has one label" in message


def test_a_row_without_a_label_names_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    message = problem(in_file(path, [{"text": "a", "gold": "x"}]))
    assert message == (
        f"{path}:1: task 'intent': the row has no label; name its column under columns.label (the row's columns: gold, text)"
    )


def test_an_unknown_label_names_the_allowed_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    message = problem(in_file(path, [{"text": "a", "label": "postive"}], labels=["positive", "negative"]))
    assert message == (
        f"{path}:1: task 'intent': unknown label 'postive'; allowed: negative, positive. Did you mean 'positive'? "
        f"Mend the row, or add it to `labels`"
    )


@pytest.mark.parametrize("value", [None, "", " \n"])
@pytest.mark.parametrize("template", ["{{ text }}", "Question: {{ text }}"])
def test_an_empty_text_is_told_even_between_fixed_words(tmp_path: Path, template: str, value: object) -> None:
    path = tmp_path / "a.jsonl"
    message = problem(in_file(path, [{"text": value, "label": "x"}], input=template))
    assert message == f"{path}:1: task 'intent': the input is empty (text={value!r}); fill the row's text or remove the row"


def test_a_template_with_one_filled_column_is_no_empty_text() -> None:
    task = spec(input="{% if text %}{{ text }}{% else %}{{ title }}{% endif %}")
    assert render_inputs(task, {"text": None, "title": "T"}) == ("T", None)


def test_an_empty_pair_is_none_unless_the_task_asks_for_it() -> None:
    row = {"text": "a", "text_pair": None, "second": ""}
    assert render_inputs(spec(), row) == ("a", None)
    with pytest.raises(DataError, match="the text_pair is empty"):
        render_inputs(spec(columns={"text_pair": "second"}), row)
    with pytest.raises(DataError, match="the input_pair is empty"):
        render_inputs(spec(input_pair="{{ second }}"), row)


def test_half_a_character_is_told(tmp_path: Path) -> None:
    message = problem(in_file(tmp_path / "a.jsonl", [{"text": "ok \ud83d", "label": "x"}]))
    assert "the input holds half a character ('\\ud83d' at 3); write the file as UTF-8 again" in message


def test_an_undefined_column_is_told_with_place_and_task(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    message = problem(in_file(path, [{"text": "a", "label": "x"}], input="{{ txt }}"))
    assert message.startswith(f"{path}:1: task 'intent': input: '{{{{ txt }}}}' reads the column 'txt'")
    assert "allowed: label, text. Did you mean 'text'?" in message


def test_a_broken_template_is_told_before_the_file_is_read() -> None:
    with pytest.raises(ConfigError, match=r"^task 'intent': input_pair: "):
        load_split(spec(input_pair="{{ a "), "train")


def test_inputs_of_unlabelled_rows() -> None:
    task = spec(columns={"text": "body", "label": "gold", "task_name": "kind"}, input="mail: {{ text }}")
    assert render_inputs(task, "hello") == ("mail: hello", None)
    assert render_inputs(task, {"body": "hello"}) == ("mail: hello", None)
    assert render_inputs(task, {"text": "hello"}) == ("mail: hello", None)
    with pytest.raises(DataError, match=r"columns\.text is 'body', and the row has no such column; allowed: other"):
        render_inputs(task, {"other": "hello"})
    with pytest.raises(DataError, match=r"^task 'intent': the input is empty"):
        render_inputs(task, " ")


def test_a_plain_text_is_no_pair() -> None:
    with pytest.raises(DataError, match=r"reads the column 'text_pair', which the row does not have; allowed: text\."):
        render_inputs(spec(columns={"text_pair": "second"}), "hello")


def test_one_file_feeds_many_tasks(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    rows = [
        {"task_name": "intent", "text": "a", "label": "x"},
        {"task_name": "urgency", "text": "b", "label": "high"},
        {"text": "c", "label": "x"},
        {"task_name": "other", "text": "d", "label": "?"},
    ]
    intent = in_file(path, rows)
    urgency = spec("urgency", source=intent.source)
    assert [example.text for example in load_split(intent, "train")] == ["a", "c"]
    others: list[tuple[str, str]] = []
    loaded = load_tasks([intent, urgency], "train", on_other=lambda name, place: others.append((name, place)))
    assert {name: [example.text for example in examples] for name, examples in loaded.items()} == {
        "intent": ["a", "c"],
        "urgency": ["b", "c"],
    }
    assert others == [("other", f"{path}:4")]


def test_the_column_of_task_names_may_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    rows = [{"kind": 1, "text": "a", "label": "x"}, {"kind": 2, "text": "b", "label": "y"}]
    task = in_file(path, rows, name="2", columns={"task_name": "kind"})
    assert [example.text for example in load_split(task, "train")] == ["b"]
    lacking = in_file(path, rows, columns={"task_name": "knd"})
    examples, problems = all_problems(lacking)
    assert examples == []
    assert problems[0] == (
        f"{path}:1: task 'intent': columns.task_name is 'knd', and the row has no such column; "
        f"allowed: kind, label, text. Did you mean 'kind'?"
    )
    assert len(problems) == 2


def test_rows_of_other_tasks_need_not_fit(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"task": "intent", "body": "a", "label": "x"},
        {"task": "stars", "review": "b", "score": 4},
    ]
    assert len(load_split(in_file(tmp_path / "all.jsonl", rows, columns={"text": "body"}), "train")) == 1


def test_no_rows_of_the_task_is_told(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    task = in_file(path, [{"task": "intnt", "text": "a", "label": "x"}, {"task": "urgency", "text": "a", "label": "x"}])
    assert problem(task) == (
        f"{path}: task 'intent': none of the 2 rows is of this task; the tasks they name: intnt, urgency. Did you mean 'intnt'? "
        f"Give the task the name that its rows have, or name their column under columns.task_name"
    )


def test_every_problem_is_told_and_the_good_rows_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    good = json.dumps({"text": "a", "label": "x"})
    path.write_text(f'{good}\n{{"text": "", "label": "x"}}\nbroken\n{{"text": "b", "label": "z"}}\n{good}\n')
    task = spec(source=Source(train=str(path)), labels=["x", "y"])
    examples, problems = all_problems(task)
    assert [example.place for example in examples] == [f"{path}:1", f"{path}:5"]
    assert [text.split(": ")[0] for text in problems] == [f"{path}:2", f"{path}:3", f"{path}:4"]
    assert problems[1].endswith("[read for task intent]")
    assert problem(task) == problems[0]


def test_a_file_problem_is_told_once_and_alone(tmp_path: Path) -> None:
    task = spec(source=Source(train=str(tmp_path / "none.jsonl")))
    examples, problems = all_problems(task)
    assert examples == []
    assert len(problems) == 1
    assert "no such file" in problems[0]


def test_splits_without_a_source(tmp_path: Path) -> None:
    task = in_file(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}], split="validation")
    assert len(load_split(task, "validation")) == 1
    assert load_split(task, "test") == []
    with pytest.raises(TaskError, match=r"task 'intent' has no training rows: source\.train is missing; name a file there"):
        load_split(task, "train")
    # A task from a model directory has no source at all.
    assert load_split(spec(source=None), "test") == []
    with pytest.raises(TaskError, match=r"task 'intent' has no training rows"):
        load_split(spec(source=None), "train")
    with pytest.raises(TaskError, match=r"unknown split 'tset'; allowed: test, train, validation\. Did you mean 'test'\?"):
        load_split(task, "tset")


def numbered(count: int) -> list[dict[str, Any]]:
    return [{"text": f"row {number}", "label": "xy"[number % 2]} for number in range(count)]


def test_a_cap_keeps_a_seeded_sample_in_order(tmp_path: Path) -> None:
    task = in_file(tmp_path / "a.jsonl", numbered(100), cap=20)
    kept = [int(example.text.split()[1]) for example in load_split(task, "train", seed=3)]
    assert len(set(kept)) == 20
    assert kept == sorted(kept)
    assert kept == [int(example.text.split()[1]) for example in load_split(task, "train", seed=3)]
    assert kept != [int(example.text.split()[1]) for example in load_split(task, "train", seed=4)]
    # Not the file's head: a sorted file would lose its last labels.
    assert kept != list(range(20))


def test_a_cap_differs_between_tasks_and_spares_small_ones(tmp_path: Path) -> None:
    first = in_file(tmp_path / "a.jsonl", numbered(100), cap=20)
    second = spec("urgency", source=first.source, cap=20)
    loaded = load_tasks([first, second], "train")
    assert [example.text for example in loaded["intent"]] != [example.text for example in loaded["urgency"]]
    assert len(load_split(first.model_copy(update={"cap": 100}), "train")) == 100


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_cap_never_cuts_validation_or_test(tmp_path: Path, split: str) -> None:
    assert len(load_split(in_file(tmp_path / "a.jsonl", numbered(30), split=split, cap=5), split)) == 30


def test_a_test_cap_keeps_the_same_rows_for_every_seed(tmp_path: Path) -> None:
    task = in_file(tmp_path / "a.jsonl", numbered(100), split="test", test_cap=20)
    kept = [example.text for example in load_split(task, "test", seed=3)]
    assert len(set(kept)) == 20
    assert kept == [example.text for example in load_split(task, "test", seed=4)]
    assert kept != [f"row {number}" for number in range(20)]


def test_a_cap_is_the_same_in_every_process(tmp_path: Path) -> None:
    task = in_file(tmp_path / "a.jsonl", numbered(100), cap=5)
    path = str(tmp_path / "a.jsonl")
    code = (
        "from alter.tasks.read import load_split; from alter.tasks.spec import Source, TaskSpec\n"
        f"spec = TaskSpec(name='intent', source=Source(train={path!r}), cap=5)\n"
        "print([e.text for e in load_split(spec, 'train', seed=7)])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": number}
        ).stdout.strip()
        for number in ("1", "2")
    }
    assert seen == {str([example.text for example in load_split(task, "train", seed=7)])}


def example(label: str | float) -> Example:
    return Example(task="intent", text="a", label=label, place="a.jsonl:1")


def test_labels_are_those_of_the_spec_or_of_the_rows() -> None:
    assert infer_labels(spec(), [example("b"), example("a"), example("b")]) == ["a", "b"]
    assert infer_labels(spec(labels=["z", "a"]), [example("a")]) == ["z", "a"]
    assert infer_labels(spec(kind="regression"), [example(1.0)]) == []


def test_too_few_labels_are_told() -> None:
    with pytest.raises(TaskError) as caught:
        infer_labels(spec(), [example("a"), example("a")])
    assert str(caught.value) == (
        "a.jsonl:1: task 'intent': the 2 training rows hold only the label 'a'; a classification needs at least 2. "
        "Add rows, or list `labels`"
    )
    with pytest.raises(TaskError, match="task 'intent': the 0 training rows hold no label"):
        infer_labels(spec(), [])


def test_too_many_labels_are_told() -> None:
    assert len(infer_labels(spec(), [example(str(number)) for number in range(1000)])) == 1000
    what = r"1001 different labels \('0', '1', '10', \.\.\.\), and at most 1000 are allowed; set kind: regression"
    with pytest.raises(TaskError, match=what):
        infer_labels(spec(), [example(str(number)) for number in range(1001)])


def test_rows_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "set"
    folder.mkdir()
    in_file(folder / "train.jsonl", numbered(3))
    task = spec(source=Source(hub=str(folder)))
    assert [item.place for item in load_split(task, "train")] == [f"{folder}/train:{number}" for number in (1, 2, 3)]
    assert load_split(task, "test") == []
    mixed = spec(source=Source(hub=str(folder), test=str(folder / "train.jsonl")))
    assert load_split(mixed, "test")[0].place == f"{folder / 'train.jsonl'}:1"


def test_a_hub_without_the_training_split_or_the_set_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    folder = tmp_path / "set"
    folder.mkdir()
    in_file(folder / "test.jsonl", numbered(3))
    assert "has no split 'train'; allowed: test." in problem(spec(source=Source(hub=str(folder))))
    missing = spec(source=Source(hub="no-such-owner/no-such-set"))
    assert "cannot be read from the hub" in problem(missing, "test")
