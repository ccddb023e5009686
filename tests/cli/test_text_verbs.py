"""The verbs on models that write text, and what each of them says where a base model and a task do not fit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import Alter
from tests.recipes import TEXT_TASKS, write_recipe, write_text_recipe

from alter.metrics import METRICS
from alter.recipe import load_recipe
from alter.results import SplitScores
from alter.score import evaluate_model
from alter.training.run import train

TEXTS = ("the good help", "we love the bank")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a recipe folder on a T5 with a short run in `run`, whose labels are written too; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("texts")
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 1}}}
    recipe = write_text_recipe(folder, settings=settings)
    train(load_recipe(recipe, ["tasks.mood.decoding=generate"]), output_dir=folder / "run")
    return folder


@pytest.fixture(scope="module")
def written(template: Path) -> Path:
    """Return the finished run."""
    return template / "run"


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return recipes of one label task and, on models that write, of one generation."""
    folder = tmp_path_factory.mktemp("bases")
    tasks = ("mood", "echo")
    found = {name: write_text_recipe(folder / name, name, tasks=tasks) for name in ("t5", "bart", "gpt2")}
    return {**found, "bert": write_recipe(folder / "bert", tasks=["mood"])}


class TestTrain:
    def test_it_trains_and_says_what_came_of_it(self, alter: Alter, template: Path, tmp_path: Path) -> None:
        outcome = alter.works("train", template / "recipe.yaml", "-o", tmp_path / "new", "--json")
        assert outcome.json == json.loads((tmp_path / "new" / "results.json").read_text())
        assert list(outcome.json["splits"]["test"]["tasks"]) == list(TEXT_TASKS)
        echo = outcome.json["splits"]["test"]["tasks"]["echo"]
        assert (echo["metric"], sorted(echo["metrics"])) == ("rougeL", ["exact_match", "rougeL"])
        shown = alter.works("train", template / "recipe.yaml", "-o", tmp_path / "new", "--resume")
        assert f"{echo['score']:.1f}" in shown.out
        assert "rougeL" in shown.out

    def test_cut_targets_are_warned_of(self, alter: Alter, template: Path, tmp_path: Path) -> None:
        overrides = ["max_target_length=2", "stages.stage2=null", "stages.stage1.max_steps=1"]
        outcome = alter.works("train", template / "recipe.yaml", *overrides, "-o", tmp_path / "new")
        told = " ".join(outcome.err.split())
        assert (
            "training rows of task 'mood' are longer than max_target_length=2 tokens and were cut; raise max_target_length"
            in told
        )


class TestValidate:
    def test_a_generation_is_summed_up_with_examples(self, alter: Alter, template: Path) -> None:
        outcome = alter.works("validate", template / "recipe.yaml")
        rows = lines_of(template / "echo-train.jsonl")
        assert "echo (generation" in outcome.out
        assert "base (encoder-decoder, family t5): reads and writes: every task is answered by text" in outcome.out
        for row in rows[:3]:
            assert row["text"] in outcome.out
            assert row["target"] in outcome.out
        assert rows[3]["text"] not in outcome.out
        found = alter.works("validate", template / "recipe.yaml", "--json").json
        assert found["valid"] is True
        assert found["summaries"]["echo"]["labels"] == {}
        assert found["summaries"]["echo"]["examples"] == [[row["text"], None, row["target"]] for row in rows[:3]]

    def test_every_bad_row_is_told_by_file_and_line(self, alter: Alter, template: Path, tmp_path: Path) -> None:
        recipe = write_text_recipe(tmp_path, tasks=["echo"])
        wrong = tmp_path / "echo-train.jsonl"
        rows = [{"text": "good"}, {"text": "bad", "target": ""}, {"text": "no", "target": "no", "references": 3}]
        wrong.write_text("".join(json.dumps(row) + "\n" for row in rows))
        outcome = alter("validate", recipe)
        assert outcome.code == 2
        for line, what in ((1, "the row has no target"), (2, "the target is empty"), (3, "references is 3")):
            assert f"problem: {wrong}:{line}: task 'echo': {what}" in outcome.err
        told = alter.refuses("train", recipe, "-o", tmp_path / "new")
        assert f"{wrong}:1: task 'echo': the row has no target" in told


class TestEvaluate:
    def test_predictions_are_written_with_what_was_wanted(
        self, alter: Alter, template: Path, written: Path, tmp_path: Path
    ) -> None:
        alter.works("evaluate", written, "--predictions-dir", tmp_path)
        rows, given = lines_of(template / "echo-test.jsonl"), lines_of(tmp_path / "echo.jsonl")
        assert len(given) == len(rows)
        for row, line in zip(rows, given, strict=True):
            assert set(line) == {"input", "prediction", "target", "score", "gate_weights", *({"references"} & set(row))}
            assert (line["input"], line["target"]) == (row["text"], row["target"])
            assert line.get("references") == row.get("references")
            assert isinstance(line["prediction"], str)
            assert 0 < line["score"] <= 1
            assert list(line["gate_weights"]) == [*TEXT_TASKS, "shared-0", "shared-1"]
        for task in ("mood", "stars"):
            rows = lines_of(template / f"{task}-test.jsonl")
            given = lines_of(tmp_path / f"{task}.jsonl")
            assert [(row["text"], row["label"]) for row in rows] == [(line["input"], line["target"]) for line in given]

    def test_scores_are_those_of_the_predictions(self, written: Path, tmp_path: Path) -> None:
        scores = evaluate_model(written, predictions_dir=tmp_path)
        given = lines_of(tmp_path / "echo.jsonl")
        references = [line.get("references", [line["target"]]) for line in given]
        for metric, score in scores.tasks["echo"].metrics.items():
            expected = METRICS.get(metric)([line["prediction"] for line in given], references, labels=None)
            assert score == pytest.approx(100 * expected)

    def test_writing_predictions_changes_no_score(self, written: Path, tmp_path: Path) -> None:
        plain = evaluate_model(written)
        assert plain.tasks["mood"].num_invalid > 0, "every answer is a label: proves little"
        assert plain.tasks["stars"].num_invalid > 0, "every answer is a number: proves little"
        assert_same(plain, evaluate_model(written, predictions_dir=tmp_path))
        assert_same(plain, evaluate_model(written, predictions_dir=tmp_path, batch_size=5))

    def test_what_is_no_label_or_number_is_shown_as_it_was_written(self, written: Path, tmp_path: Path) -> None:
        scores = evaluate_model(written, predictions_dir=tmp_path, tasks=["mood", "stars"])
        mood = [line["prediction"] for line in lines_of(tmp_path / "mood.jsonl")]
        assert sum(given not in ("pleased", "upset") for given in mood) == scores.tasks["mood"].num_invalid
        stars = [line["prediction"] for line in lines_of(tmp_path / "stars.jsonl")]
        assert sum(isinstance(given, str) for given in stars) == scores.tasks["stars"].num_invalid

    def test_ids_of_what_is_no_label_or_number_count_as_wrong(self, written: Path, tmp_path: Path) -> None:
        tasks = ["mood", "stars"]
        scores = evaluate_model(written, predictions_dir=tmp_path, predictions_format="ids", tasks=tasks)
        assert (tmp_path / "mood.txt").read_text().split().count("-1") == scores.tasks["mood"].num_invalid
        numbers = [float(line) for line in (tmp_path / "stars.txt").read_text().split()]
        assert sum(math.isnan(number) for number in numbers) == scores.tasks["stars"].num_invalid

    def test_texts_have_no_ids(self, alter: Alter, written: Path, tmp_path: Path) -> None:
        told = alter.refuses("evaluate", written, "--predictions-dir", tmp_path / "out", "--predictions-format", "ids")
        assert "task 'echo' writes text, which has no ids; write its predictions as jsonl, or choose other tasks" in told
        assert not (tmp_path / "out").exists()
        options = ["--predictions-dir", tmp_path / "out", "--predictions-format", "ids", "--task", "mood"]
        alter.works("evaluate", written, *options)
        assert [path.name for path in (tmp_path / "out").iterdir()] == ["mood.txt"]


def assert_same(one: SplitScores, other: SplitScores) -> None:
    assert one.average == pytest.approx(other.average)
    for task, score in one.tasks.items():
        assert score.metrics == pytest.approx(other.tasks[task].metrics)
        assert (score.num_invalid, score.num_examples) == (other.tasks[task].num_invalid, other.tasks[task].num_examples)
        assert score.constant_prediction == other.tasks[task].constant_prediction


class TestPredict:
    def test_a_table_shows_what_was_written(self, alter: Alter, written: Path) -> None:
        arguments = ["predict", written, "--task", "echo", *(part for text in TEXTS for part in ("--text", text))]
        found = alter.works(*arguments, "--json").json_lines
        assert [line["input"] for line in found] == list(TEXTS)
        for line in found:
            assert set(line) == {"input", "task", "text", "score"}
            assert line["task"] == "echo"
        shown = [line.split("\u2502") for line in alter.works(*arguments).out.splitlines() if "\u2502" in line][-2:]
        for cells, line in zip(shown, found, strict=True):
            assert [cell.strip() for cell in cells] == [line["input"], "echo", line["text"], f"{line['score']:.2f}"]

    def test_all_tasks_answer_in_their_own_way(self, alter: Alter, written: Path) -> None:
        found = alter.works("predict", written, "--text", TEXTS[0], "--gate-weights", "--json").json_lines
        assert [line["task"] for line in found] == list(TEXT_TASKS)
        for line in found:
            assert {"text", "score", "gate_weights"} <= set(line)
            assert list(line["gate_weights"]) == [*TEXT_TASKS, "shared-0", "shared-1"]

    def test_rows_of_a_file_are_answered(self, alter: Alter, template: Path, written: Path, tmp_path: Path) -> None:
        arguments = ["--task", "echo", "--input", template / "echo-test.jsonl", "--output", tmp_path / "out.jsonl"]
        alter.works("predict", written, *arguments)
        evaluate_model(written, predictions_dir=tmp_path, tasks=["echo"])
        given, scored = lines_of(tmp_path / "out.jsonl"), lines_of(tmp_path / "echo.jsonl")
        assert [line["text"] for line in given] == [line["prediction"] for line in scored]


WRONG: dict[str, tuple[str, list[str], str]] = {
    "a generation on an encoder": (
        "bert", ["tasks.mood.kind=generation"],
        "task 'mood' is a generation, and this base model is an encoder, which writes no text; choose a base model that writes",
    ),
    "a target on an encoder": (
        "bert", ["tasks.mood.target=it is {{ label }}"],
        "task 'mood' sets target, which only a base model that writes reads; drop it",
    ),
    "a chat on an encoder": (
        "bert", ["tasks.mood.chat=true", "tasks.mood.system=be brief"],
        "task 'mood' sets chat, system, which only a base model that writes reads; drop it",
    ),
    "decoding on an encoder": (
        "bert", ["tasks.mood.decoding=generate", "tasks.mood.generation.max_new_tokens=3"],
        "task 'mood' sets decoding, generation, which only a base model that writes reads; drop it",
    ),
    "packing on an encoder": (
        "bert", ["train.packing=true"],
        "train.packing is for decoder-only models, and this base model is an encoder; set train.packing: false",
    ),
    "packing on an encoder-decoder": (
        "t5", ["train.packing=true"],
        "train.packing is for decoder-only models, and this base model is an encoder-decoder; set train.packing: false",
    ),
    "targets longer than an encoder-decoder's positions": (
        "bart", ["max_target_length=200"],
        "max_target_length is 200, but this base model has 160 positions; set max_target_length: 160",
    ),
    "inputs and targets longer than a decoder's positions": (
        "gpt2", ["max_target_length=150"],
        "max_length and max_target_length together are 166, but this base model has 160 positions; set max_length: 10",
    ),
    "a chat without a template": (
        "t5", ["tasks.echo.chat=true"],
        "task 'echo' is a chat, but the tokenizer of this base model has no chat template; drop `chat`",
    ),
    "a chat without a template on a decoder": (
        "gpt2", ["tasks.mood.chat=true"],
        "task 'mood' is a chat, but the tokenizer of this base model has no chat template; drop `chat`",
    ),
    "the text of a label that reads the row": (
        "t5", ["tasks.mood.target='{{ text }}'"],
        "the text of a label may read `label` alone",
    ),
    "a temperature without sampling": (
        "t5", ["tasks.echo.generation.temperature=0.5"],
        "temperature is set, but do_sample is false, so nothing reads it; set do_sample: true",
    ),
    "a metric of labels for texts": (
        "t5", ["tasks.echo.metrics=[accuracy]"],
        "the metric accuracy scores classification, and this task's kind is generation; use e.g. rougeL or bleu",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_before_training(alter: Alter, bases: dict[str, Path], tmp_path: Path, case: str) -> None:
    base, overrides, says = WRONG[case]
    assert says in alter.refuses("train", bases[base], *overrides, "-o", tmp_path / "new")
    assert not (tmp_path / "new" / "model").exists()
