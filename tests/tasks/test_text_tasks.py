"""Tasks as text: targets, references, conversations, and what settings of a task go together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic
import pytest

from alter.errors import ConfigError, DataError
from alter.recipe import Recipe
from alter.tasks.example import Example
from alter.tasks.read import check_templates, infer_labels, load_split, target_text, unlabelled
from alter.tasks.spec import GenerationSettings, Source, TaskSpec
from alter.tasks.validate import validate_recipe

USER = {"role": "user", "content": "who are you"}
ANSWER = {"role": "assistant", "content": "a helper"}
SYSTEM = {"role": "system", "content": "be brief"}


def written(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def in_file(folder: Path, *rows: dict[str, Any], **settings: Any) -> TaskSpec:
    path = written(folder / "rows.jsonl", list(rows))
    return TaskSpec(**{"name": "headline", "kind": "generation", "source": Source(train=str(path)), **settings})


def loaded(folder: Path, *rows: dict[str, Any], **settings: Any) -> list[Example]:
    return load_split(in_file(folder, *rows, **settings), "train")


def problem(folder: Path, *rows: dict[str, Any], **settings: Any) -> str:
    """Return the error of the last row, which must be told by its file and line."""
    task = in_file(folder, *rows, **settings)
    with pytest.raises(DataError) as caught:
        load_split(task, "train")
    start = f"{folder / 'rows.jsonl'}:{len(rows)}: task 'headline': "
    assert str(caught.value).startswith(start)
    return str(caught.value).removeprefix(start)


def chat(*messages: Any, **columns: Any) -> dict[str, Any]:
    return {"messages": list(messages), **columns}


class TestTargets:
    def test_a_label_s_text_is_made_by_the_template_of_the_label_alone(self) -> None:
        assert target_text(TaskSpec(name="a"), "yes") == "yes"
        assert target_text(TaskSpec(name="a", target="it is {{ label | upper }}"), "yes") == "it is YES"

    @pytest.mark.parametrize(("number", "text"), [(3.0, "3"), (2.5, "2.5"), (-0.25, "-0.25")])
    def test_a_number_is_written_as_briefly_as_it_can_be(self, number: float, text: str) -> None:
        assert target_text(TaskSpec(name="a", kind="regression"), number) == text
        assert target_text(TaskSpec(name="a", kind="regression", target="{{ label }} stars"), number) == f"{text} stars"

    @pytest.mark.parametrize("kind", ["classification", "regression"])
    def test_the_template_of_a_label_reads_nothing_else_of_the_row(self, kind: Any) -> None:
        task = TaskSpec(name="a", kind=kind, target="{{ label }} of {{ text }}")
        with pytest.raises(ConfigError, match=r"task 'a': target: .* reads \['text'\], but the text of a label may read `label`"):
            check_templates(task)

    def test_rows_are_not_read_with_such_a_template(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="or set kind: generation"):
            loaded(tmp_path, {"text": "a", "label": "x"}, kind="classification", target="{{ text }}")

    def test_a_generation_s_template_reads_every_column(self, tmp_path: Path) -> None:
        rows = [{"text": "a", "target": "t", "author": "me"}]
        [example] = loaded(tmp_path, *rows, target="{{ label }} by {{ author }}")
        assert (example.text, example.label, example.references) == ("a", "t by me", ("t by me",))

    def test_a_generation_s_template_need_not_read_the_label(self, tmp_path: Path) -> None:
        [example] = loaded(tmp_path, {"text": "a", "title": " b "}, target="{{ title }}")
        assert example.label == "b"

    def test_a_template_that_is_no_template_is_told(self) -> None:
        with pytest.raises(ConfigError, match=r"task 'a': target: '\{\{ label ' is not a valid template"):
            check_templates(TaskSpec(name="a", kind="generation", target="{{ label "))
        with pytest.raises(ConfigError, match=r"task 'a': system: .* is not a valid template"):
            check_templates(TaskSpec(name="a", kind="generation", chat=True, system="{{ }"))

    @pytest.mark.parametrize("column", ["target", "output", "completion", "label"])
    def test_the_target_s_usual_names(self, tmp_path: Path, column: str) -> None:
        assert loaded(tmp_path, {"text": "a", column: "b"})[0].label == "b"

    @pytest.mark.parametrize("column", ["target", "output", "completion"])
    def test_a_row_with_a_label_too_means_the_text(self, tmp_path: Path, column: str) -> None:
        row = {"text": "a", "label": 3, column: "b"}
        assert loaded(tmp_path, row)[0].label == "b"
        assert loaded(tmp_path, row, columns={"label": "label"})[0].label == "3"
        # What is asked of a classification is the label.
        assert loaded(tmp_path, row, kind="classification")[0].label == "3"

    def test_a_row_without_a_target_is_told_with_its_columns(self, tmp_path: Path) -> None:
        told = problem(tmp_path, {"text": "a", "target": "b"}, {"text": "c", "titel": "d"})
        assert told.startswith(
            "the row has no 'target' (its columns: text, titel), which rows before it have (the first is line 1)"
        )

    def test_rows_none_of_which_has_a_target_are_told_how_to_name_it(self, tmp_path: Path) -> None:
        told = problem(tmp_path, {"text": "c", "titel": "d"})
        assert told == "the row has no target; name its column under columns.label (the row's columns: text, titel)"

    @pytest.mark.parametrize("value", ["", "  ", None])
    def test_an_empty_target_is_told(self, tmp_path: Path, value: str | None) -> None:
        assert "the target is empty (label=" in problem(tmp_path, {"text": "a", "target": value})

    def test_a_template_s_words_around_an_empty_target_are_no_target(self, tmp_path: Path) -> None:
        assert "the target is empty" in problem(tmp_path, {"text": "a", "target": ""}, target="Title: {{ label }}")

    def test_a_generation_has_no_labels_to_infer(self, tmp_path: Path) -> None:
        task = in_file(tmp_path, {"text": "a", "target": "b"})
        assert infer_labels(task, load_split(task, "train")) == []


class TestReferences:
    def test_by_default_the_target_alone_counts_as_right(self, tmp_path: Path) -> None:
        assert [row.references for row in loaded(tmp_path, {"text": "a", "target": "b"})] == [("b",)]

    @pytest.mark.parametrize(
        ("given", "kept"), [("c", ("c",)), (["c"], ("c",)), (["b", "c"], ("b", "c")), (None, ("b",)), ([], ("b",))]
    )
    def test_a_row_may_bring_one_or_several(self, tmp_path: Path, given: Any, kept: tuple[str, ...]) -> None:
        [example] = loaded(tmp_path, {"text": "a", "target": "b", "references": given})
        assert (example.label, example.references) == ("b", kept)

    def test_they_may_stand_in_another_column(self, tmp_path: Path) -> None:
        row = {"text": "a", "target": "b", "refs": ["c", "d"]}
        assert loaded(tmp_path, row, columns={"references": "refs"})[0].references == ("c", "d")

    @pytest.mark.parametrize("given", [3, {"a": "b"}, ["b", 4], ["b", ""], [["b"]]])
    def test_anything_else_is_told(self, tmp_path: Path, given: Any) -> None:
        told = problem(tmp_path, {"text": "a", "target": "b", "references": given})
        assert told == f"references is {given!r}; it must be a list of texts that count as right"


class TestChats:
    def test_an_input_becomes_a_user_s_message(self, tmp_path: Path) -> None:
        [example] = loaded(tmp_path, {"text": "a", "target": "b"}, chat=True, input="Say: {{ text }}")
        assert example.messages == (("user", "Say: a"),)
        assert (example.text, example.label) == ("Say: a", "b")

    def test_a_pair_is_one_message(self, tmp_path: Path) -> None:
        [example] = loaded(tmp_path, {"text": "a", "text_pair": "b", "target": "c"}, chat=True)
        assert example.messages == (("user", "a\nb"),)

    def test_a_system_message_stands_before_it_and_may_read_the_row(self, tmp_path: Path) -> None:
        [example] = loaded(tmp_path, {"text": "a", "tone": "kind", "target": "b"}, chat=True, system="Be {{ tone }}.")
        assert example.messages == (("system", "Be kind."), ("user", "a"))

    def test_a_system_message_that_reads_a_column_which_is_not_there_is_told(self, tmp_path: Path) -> None:
        told = problem(tmp_path, {"text": "a", "target": "b"}, chat=True, system="Be {{ tone }}.")
        assert told.startswith("system: 'Be {{ tone }}.' reads the column 'tone'")

    def test_a_conversation_s_last_answer_is_the_target(self, tmp_path: Path) -> None:
        row = chat(SYSTEM, USER, ANSWER, {"role": "user", "content": "more"}, {"role": "assistant", "content": "no"})
        [example] = loaded(tmp_path, row, chat=True, system="is not read")
        assert example.messages == (("system", "be brief"), ("user", "who are you"), ("assistant", "a helper"), ("user", "more"))
        assert (example.label, example.references) == ("no", ("no",))
        assert example.text == "be brief\nwho are you\na helper\nmore"

    def test_conversations_may_stand_in_another_column_and_beside_plain_rows(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [{"turns": [USER, ANSWER]}, {"turns": [], "text": "a", "target": "b"}]
        first, second = loaded(tmp_path, *rows, chat=True, columns={"messages": "turns"})
        assert (first.messages, first.label) == ((("user", "who are you"),), "a helper")
        assert (second.messages, second.label) == ((("user", "a"),), "b")

    def test_references_of_a_conversation(self, tmp_path: Path) -> None:
        assert loaded(tmp_path, chat(USER, ANSWER, references=["x", "y"]), chat=True)[0].references == ("x", "y")

    def test_a_conversation_may_be_classified(self, tmp_path: Path) -> None:
        [example] = loaded(tmp_path, chat(USER, label="polite"), chat=True, kind="classification")
        assert (example.messages, example.label) == ((("user", "who are you"),), "polite")

    def test_a_task_that_is_no_chat_reads_no_messages(self, tmp_path: Path) -> None:
        assert loaded(tmp_path, chat(USER, ANSWER, text="a", target="b"))[0].messages == ()
        assert "reads the column 'text'" in problem(tmp_path, chat(USER, ANSWER))

    @pytest.mark.parametrize(
        "wrong",
        [
            {"role": "bot", "content": "a"}, {"content": "a"}, {"role": "user"}, {"role": "user", "content": ""},
            {"role": "user", "content": " "}, {"role": "user", "content": ["a"]}, "hello", None,
        ],
    )  # fmt: skip
    def test_a_message_of_another_form_is_told_with_its_place(self, tmp_path: Path, wrong: Any) -> None:
        told = problem(tmp_path, chat(USER, ANSWER), chat(SYSTEM, wrong, ANSWER), chat=True)
        start = f"messages[1] is {wrong!r}; a message is {{'role': 'system' | 'user' | 'assistant'"
        assert told.startswith(start)

    def test_messages_that_are_no_list_are_told(self, tmp_path: Path) -> None:
        assert problem(tmp_path, {"messages": "hello"}, chat=True).startswith("messages[0] is 'hello'; a message is ")

    @pytest.mark.parametrize("messages", [[ANSWER], [SYSTEM, ANSWER], [SYSTEM]])
    def test_a_conversation_begins_with_the_user(self, tmp_path: Path, messages: list[Any]) -> None:
        told = problem(tmp_path, chat(*messages), chat=True)
        assert told == "messages holds no user's message before the answer; a conversation begins with the user's"

    def test_a_conversation_to_learn_from_ends_with_the_answer(self, tmp_path: Path) -> None:
        assert problem(tmp_path, chat(USER), chat=True) == (
            "the last of messages is not the assistant's, so the row has no target; end it with the answer"
        )

    def test_a_row_to_be_answered_needs_no_answer_and_does_not_show_one(self) -> None:
        task = TaskSpec(name="a", kind="generation", chat=True, system="Be brief.")
        asked = (("user", "who are you"),)
        assert unlabelled(task, chat(USER)).messages == unlabelled(task, chat(USER, ANSWER)).messages == asked
        assert unlabelled(task, "hello").messages == (("system", "Be brief."), ("user", "hello"))
        assert unlabelled(task, "hello").label is None


def refused(**settings: Any) -> str:
    with pytest.raises(pydantic.ValidationError) as caught:
        TaskSpec(name="a", **settings)
    return str(caught.value)


class TestSettings:
    @pytest.mark.parametrize(
        ("kind", "names"),
        [
            ("classification", ["accuracy", "f1_macro"]),
            ("regression", ["pearson", "spearmanr"]),
            ("generation", ["rougeL", "exact_match"]),
        ],
    )
    def test_metrics_by_default(self, kind: Any, names: list[str]) -> None:
        task = TaskSpec(name="a", kind=kind)
        assert (task.metric_names, task.primary_metric) == (names, names[0])

    @pytest.mark.parametrize(
        ("kind", "metric", "instead"),
        [
            ("generation", "accuracy", "rougeL or bleu"),
            ("generation", "pearson", "rougeL or bleu"),
            ("classification", "rougeL", "accuracy or f1_macro"),
            ("regression", "bleu", "pearson or spearmanr"),
        ],
    )
    def test_a_metric_of_another_kind_is_refused(self, kind: Any, metric: str, instead: str) -> None:
        told = refused(kind=kind, metrics=[metric])
        assert f"the metric {metric} scores " in told
        assert f"this task's kind is {kind}; use e.g. {instead}" in told

    def test_labels_are_for_classifications(self) -> None:
        assert "a generation task has no labels; drop `labels`" in refused(kind="generation", labels=["x", "y"])

    def test_a_system_message_needs_a_chat(self) -> None:
        assert "system is set, but chat is false" in refused(kind="generation", system="Be brief.")
        assert TaskSpec(name="a", kind="generation", chat=True, system="Be brief.").system == "Be brief."

    def test_numbers_are_written_without_being_told_to(self) -> None:
        assert "decoding: generate is for classifications" in refused(kind="regression", decoding="generate")

    @pytest.mark.parametrize(
        ("settings", "told"),
        [
            ({"temperature": 0.5}, "temperature is set, but do_sample is false"),
            ({"top_k": 4}, "top_k is set, but do_sample is false"),
            ({"top_p": 0.9}, "top_p is set, but do_sample is false"),
            ({"length_penalty": 2.0}, "length_penalty is set, but num_beams is 1"),
            ({"num_beams": 0}, "num_beams"),
            ({"max_new_tokens": 0}, "max_new_tokens"),
            ({"top_p": 0.0}, "top_p"),
            ({"nmu_beams": 2}, "nmu_beams"),
        ],
    )
    def test_settings_that_nothing_reads_or_that_do_not_exist_are_refused(self, settings: dict[str, Any], told: str) -> None:
        assert told in refused(kind="generation", generation=settings)

    def test_settings_that_are_read_are_taken(self) -> None:
        sampled = {"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.9}
        for given in (sampled, {"num_beams": 4, "length_penalty": 2.0}):
            settings = GenerationSettings.model_validate(given)
            assert TaskSpec(name="a", generation=settings).generation.model_dump(exclude_defaults=True) == given


class TestValidate:
    def recipe(self, folder: Path, train: list[dict[str, Any]], **settings: Any) -> Recipe:
        source = {
            "train": str(written(folder / "train.jsonl", train)),
            "validation": str(written(folder / "validation.jsonl", [{"text": "held out", "target": "held"}])),
        }
        task = TaskSpec.model_validate({"name": "headline", "kind": "generation", "source": source, **settings})
        return Recipe.model_construct(name="r", model_name_or_path="m", stages={}, tasks=[task])

    def test_a_generation_is_summed_up_with_three_examples(self, tmp_path: Path) -> None:
        rows = [{"text": f"text {number}", "target": f"target {number}"} for number in range(5)]
        report = validate_recipe(self.recipe(tmp_path, rows, input="Sum up: {{ text }}", target="T: {{ label }}"))
        assert (report.problems, report.warnings) == ([], [])
        summary = report.summaries["headline"]
        assert (summary.kind, summary.labels, summary.label_range) == ("generation", {}, None)
        assert summary.rows == {"train": 5, "validation": 1, "test": 0}
        assert summary.examples == [(f"Sum up: text {number}", None, f"T: target {number}") for number in range(3)]

    def test_every_bad_row_is_told_by_file_and_line(self, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [
            {"text": "a", "target": "b"}, {"text": "c"}, {"text": "d", "target": " "}, {"text": "e"},
            {"text": "f", "target": "g", "references": 3}, {"messages": [ANSWER]}, {"messages": [{"role": "bot", "content": "a"}]},
        ]  # fmt: skip
        report = validate_recipe(self.recipe(tmp_path, rows, chat=True))
        assert not report.is_valid
        path = tmp_path / "train.jsonl"
        starts = {
            2: "the row has no 'target'", 3: "the target is empty", 5: "references is 3", 6: "messages holds no user's message",
            7: "messages[0] is ",
        }  # fmt: skip
        assert len(report.problems) == len(starts)
        for told, (line, start) in zip(report.problems, starts.items(), strict=True):
            assert told.startswith(f"{path}:{line}: task 'headline': {start}")
        assert report.problems[0].endswith("(the same in 1 more: line 4)")
        assert report.summaries["headline"].rows["train"] == 1

    def test_a_wrong_template_is_told_and_its_rows_are_not_read(self, tmp_path: Path) -> None:
        report = validate_recipe(
            self.recipe(tmp_path, [{"text": "a", "target": "b"}], kind="classification", target="{{ text }}")
        )
        assert [told.split(": '")[0] for told in report.problems] == ["task 'headline': target"]
        assert report.summaries == {}

    def test_texts_that_stand_in_training_too_are_warned_of(self, tmp_path: Path) -> None:
        report = validate_recipe(self.recipe(tmp_path, [{"text": "held out", "target": "other"}]))
        assert len(report.warnings) == 1
        assert "1 of 1 validation row stands in train with the same text" in report.warnings[0]
