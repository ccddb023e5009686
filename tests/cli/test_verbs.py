"""Every verb does its work and says it twice: as text for people, as JSON for machines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Alter, run_process
from tests.recipes import write_jsonl

from alter.recipe import load_recipe
from alter.results import SplitScores, TaskScore

TEXTS = ("good help for you please", "we hate the bad start")


def results(run: Path) -> Any:
    return json.loads((run / "results.json").read_text())


class TestTrain:
    def test_it_writes_a_run_and_says_how_good_it_is_and_what_comes_next(self, alter: Alter, toy: Path) -> None:
        outcome = alter.works("train", toy / "recipe.yaml", "--output-dir", toy / "new run")
        assert {"recipe.yaml", "results.json", "metrics.jsonl", "checkpoints", "model"} <= {
            p.name for p in (toy / "new run").iterdir()
        }
        found = results(toy / "new run")
        for task in ("mood", "stars"):
            assert f"{found['splits']['test']['tasks'][task]['score']:.1f}" in outcome.out
        assert f"released: {found['released']}" in outcome.out
        assert "stage1: 3 steps" in outcome.err
        assert "stage2: 2 steps" in outcome.err
        # The commands that come next can be pasted, spaces in paths included.
        assert f"alter predict '{toy}/new run' --task mood --text '...'" in outcome.out
        assert f"alter evaluate '{toy}/new run' --split test" in outcome.out

    def test_one_task_and_one_step_are_told_as_one(self, alter: Alter, toy: Path) -> None:
        recipe = yaml.safe_load((toy / "recipe.yaml").read_text())
        (toy / "one.yaml").write_text(yaml.safe_dump({**recipe, "tasks": recipe["tasks"][:1]}))
        outcome = alter.works("train", toy / "one.yaml", "stages.stage2=null", "stages.stage1.max_steps=1", "-o", toy / "new")
        assert "toy: 1 task on " in outcome.err
        assert "stage1: 1 step, " in outcome.err
        assert "1 task read, 0 warnings" in alter.works("validate", toy / "one.yaml").err

    def test_the_training_loss_is_shown_at_each_validation(self, alter: Alter, toy: Path) -> None:
        outcome = alter.works("train", toy / "recipe.yaml", "-o", toy / "new")
        lines = [json.loads(line) for line in (toy / "new" / "metrics.jsonl").read_text().splitlines()]
        losses = {(line["stage"], line["step"]): line["loss"] for line in lines if line["event"] == "step"}
        validations = [(line["stage"], line["step"]) for line in lines if line["event"] == "validation"]
        shown = [line for line in outcome.err.splitlines() if line.startswith("  step ")]
        assert len(shown) == len(validations) > 1
        for line, place in zip(shown, validations, strict=True):
            assert f"  loss {losses[place]:.3f}  average " in line
        assert outcome.err.count("*: the stage's best so far") == 1

    def test_json_is_the_results_file_and_nothing_else(self, alter: Alter, toy: Path) -> None:
        outcome = alter.works("train", toy / "recipe.yaml", "-o", toy / "new", "--json")
        assert outcome.json == results(toy / "new")

    def test_overrides_reach_the_run(self, alter: Alter, toy: Path) -> None:
        overrides = ["seed=7", "stages.stage2=null", "stages.stage1.max_steps=1", "tasks.mood.cap=8"]
        outcome = alter.works("train", toy / "recipe.yaml", *overrides, "-o", toy / "new", "--json")
        assert outcome.json["seed"] == 7
        assert list(outcome.json["stages"]) == ["stage1"]
        assert outcome.json["stages"]["stage1"]["steps"] == 1
        assert load_recipe(toy / "new" / "recipe.yaml").tasks[0].cap == 8

    def test_an_unfinished_run_goes_on_with_resume(self, alter: Alter, stopped: Path, finished: Path) -> None:
        outcome = alter.works("train", stopped / "recipe.yaml", "-o", stopped, "--resume", "--json")
        assert "going on at step 2" in outcome.err
        assert outcome.json["splits"] == results(finished)["splits"]

    def test_a_finished_run_with_resume_is_shown_as_it_is(self, alter: Alter, run: Path) -> None:
        before = (run / "results.json").read_bytes()
        outcome = alter.works("train", run / "recipe.yaml", "-o", run, "--resume")
        assert "best validation average" in outcome.out
        assert (run / "results.json").read_bytes() == before

    def test_print_config_needs_no_run_directory_and_reads_back_as_the_same_recipe(self, alter: Alter, toy: Path) -> None:
        outcome = alter.works("train", toy / "recipe.yaml", "seed=3", "--print-config")
        (toy / "printed.yaml").write_text(outcome.out)
        assert load_recipe(toy / "printed.yaml") == load_recipe(toy / "recipe.yaml", ["seed=3"])

    def test_a_task_that_collapsed_is_warned_of(self, alter: Alter, toy: Path) -> None:
        rows = [json.loads(line) for line in (toy / "mood-train.jsonl").read_text().splitlines()]
        write_jsonl(toy / "mood-train.jsonl", [*({**row, "label": "pleased"} for row in rows), {"text": "bad", "label": "upset"}])
        overrides = ["stages.stage2=null", "stages.stage1.max_steps=10", "stages.stage1.learning_rates.heads=0.05"]
        outcome = alter.works("train", toy / "recipe.yaml", *overrides, "-o", toy / "new")
        assert results(toy / "new")["splits"]["validation"]["tasks"]["mood"]["constant_prediction"] == "pleased"
        assert "mood (always 'pleased')" in outcome.err
        assert "warning: task 'mood' answers 'pleased' to every row: it learned nothing. Lower stages.stage1" in outcome.err


class TestEvaluate:
    def test_it_scores_a_run_as_training_did(self, alter: Alter, finished: Path) -> None:
        outcome = alter.works("evaluate", finished, "--json")
        trained = results(finished)["splits"]["test"]
        assert outcome.json["split"] == "test"
        assert outcome.json["average"] == pytest.approx(trained["average"])
        assert outcome.json["tasks"] == trained["tasks"]

    def test_its_table_has_a_row_per_task_and_the_average(self, alter: Alter, finished: Path) -> None:
        outcome = alter.works("evaluate", finished / "model", "--split", "validation")
        rows = {line.split()[0] for line in outcome.out.splitlines() if line.strip()}
        assert {"mood", "stars", "average"} <= rows
        assert f"{results(finished)['splits']['validation']['average']:.1f}" in outcome.out

    @pytest.mark.parametrize("columns", [80, 200])
    def test_its_table_breaks_no_word_however_narrow_the_terminal_is(
        self, alter: Alter, finished: Path, monkeypatch: pytest.MonkeyPatch, columns: int
    ) -> None:
        names = ("intent", "area", "urgency", "sentiment", "next_action", "reply")
        metrics = {"f1_macro": 75.24, "accuracy": 81.5, "rougeL": 20.0, "bleu": 3.0}
        few, many = ["f1_macro", "accuracy"], [*metrics]
        tasks = {
            name: TaskScore(
                score=75.24, metric="f1_macro", metrics={metric: metrics[metric] for metric in (many if name == "reply" else few)},
                num_examples=120,
            )
            for name in names
        }  # fmt: skip
        scores = SplitScores(average=75.24, tasks=tasks)
        monkeypatch.setattr("alter.score.evaluate_model", lambda *_, **__: scores)
        monkeypatch.setenv("COLUMNS", str(columns))
        title, *lines = alter.works("evaluate", finished).out.rstrip().splitlines()
        assert title == f"{finished} on test rows"
        assert all(len(line) <= columns for line in lines)
        header = [cell.strip() for cell in lines[0].split("\u2503")]
        table = [[cell.strip() for cell in line.split("\u2502")] for line in lines[2:]]
        if columns == 200:
            assert header == ["task", "rows", "primary metric", "score", "accuracy", "bleu", "f1_macro", "rougeL"]
            assert table[0] == ["intent", "120", "f1_macro", "75.2", "81.5", "-", "75.2", "-"]
            assert [row[0] for row in table] == [*names, "average"]
        else:
            assert header == ["task", "metric", "rows", "score"]
            assert table[:2] == [["intent", "f1_macro (primary)", "120", "75.2"], ["", "accuracy", "", "81.5"]]
            assert table[-2:] == [["", "bleu", "", "3.0"], ["average", "of the primary metrics", "", "75.2"]]
            assert [row[0] for row in table if row[0]] == [*names, "average"]

    def test_one_task_can_be_chosen(self, alter: Alter, finished: Path) -> None:
        assert list(alter.works("evaluate", finished, "--task", "stars", "--json").json["tasks"]) == ["stars"]

    def test_other_rows_come_with_another_recipe(self, alter: Alter, toy: Path, finished: Path) -> None:
        write_jsonl(toy / "mood-test.jsonl", [{"text": text, "label": "upset"} for text in TEXTS])
        outcome = alter.works("evaluate", finished, "--recipe", toy / "recipe.yaml", "--task", "mood", "--json")
        assert outcome.json["tasks"]["mood"]["num_examples"] == 2

    def test_predictions_are_written_row_by_row(self, alter: Alter, toy: Path, finished: Path) -> None:
        outcome = alter.works("evaluate", finished, "--predictions-dir", toy / "answers")
        assert f"predictions: {toy / 'answers'}" in outcome.out
        rows = [json.loads(line) for line in (toy / "mood-test.jsonl").read_text().splitlines()]
        written = [json.loads(line) for line in (toy / "answers" / "mood.jsonl").read_text().splitlines()]
        assert [(row["text"], row["label"]) for row in rows] == [(line["input"], line["target"]) for line in written]

    def test_predictions_as_label_ids_follow_the_order_of_the_labels(self, alter: Alter, toy: Path, finished: Path) -> None:
        alter.works("evaluate", finished, "--predictions-dir", toy / "named")
        alter.works("evaluate", finished, "--predictions-dir", toy / "ids", "--predictions-format", "ids", "--json")
        named = [json.loads(line)["prediction"] for line in (toy / "named" / "mood.jsonl").read_text().splitlines()]
        ids = (toy / "ids" / "mood.txt").read_text().split()
        assert [["pleased", "upset"][int(number)] for number in ids] == named


class TestPredict:
    def test_a_text_is_answered_for_every_task(self, alter: Alter, finished: Path) -> None:
        outcome = alter.works("predict", finished, "--text", TEXTS[0])
        answers = [line.split("│") for line in outcome.out.splitlines() if "│" in line]
        assert [cells[0].strip() for cells in answers] == [TEXTS[0]] * 2
        assert [cells[1].strip() for cells in answers] == ["mood", "stars"]
        assert answers[0][2].strip() in ("pleased", "upset")
        assert float(answers[1][2]) == pytest.approx(2, abs=2)

    def test_json_is_one_object_a_line(self, alter: Alter, finished: Path) -> None:
        outcome = alter.works("predict", finished, "--task", "mood", "--text", TEXTS[0], "--text", TEXTS[1], "--json")
        assert [line["input"] for line in outcome.json_lines] == list(TEXTS)
        for line in outcome.json_lines:
            assert line["task"] == "mood"
            assert sum(line["scores"].values()) == pytest.approx(1)
            assert line["score"] == max(line["scores"].values()) == line["scores"][line["label"]]

    def test_rows_lines_and_texts_get_the_same_answers(self, alter: Alter, toy: Path, finished: Path) -> None:
        write_jsonl(toy / "in.jsonl", [{"text": text} for text in TEXTS])
        (toy / "in.csv").write_text("text\n" + "\n".join(TEXTS) + "\n")
        (toy / "in.txt").write_text("\n\n".join(TEXTS) + "\n")
        given = [["--text", TEXTS[0], "--text", TEXTS[1]], *(["--input", toy / f"in.{end}"] for end in ("jsonl", "csv", "txt"))]
        answers = [alter.works("predict", finished, *source, "--json").json_lines for source in given]
        for found in answers:
            assert [line.pop("input") for line in found]
        assert answers[1:] == [answers[0]] * 3

    def test_an_output_file_holds_what_json_prints(self, alter: Alter, toy: Path, finished: Path) -> None:
        printed = alter.works("predict", finished, "--text", TEXTS[0], "--json")
        outcome = alter.works("predict", finished, "--text", TEXTS[0], "--output", toy / "out.jsonl")
        assert (toy / "out.jsonl").read_text() == printed.out
        assert outcome.out == ""
        assert f"2 predictions: {toy / 'out.jsonl'}" in outcome.err

    def test_gate_weights_name_every_adapter(self, alter: Alter, finished: Path) -> None:
        [line] = alter.works("predict", finished, "--task", "mood", "--text", TEXTS[0], "--gate-weights", "--json").json_lines
        assert list(line["gate_weights"]) == ["mood", "stars", "shared-0", "shared-1"]
        shown = alter.works("predict", finished, "--task", "mood", "--text", TEXTS[0], "--gate-weights").out
        for name, weight in line["gate_weights"].items():
            assert name in shown
            assert f"{weight:.2f}" in shown

    def test_only_a_new_line_ends_a_text(self, alter: Alter, toy: Path, finished: Path) -> None:
        text = f"{TEXTS[0]}\u2028{TEXTS[1]}\x0c{TEXTS[1]}\x85end"
        (toy / "in.txt").write_bytes(f"{text}\r\n{TEXTS[1]}\n".encode())
        found = alter.works("predict", finished, "--task", "mood", "--input", toy / "in.txt", "--json").out
        assert [json.loads(line)["input"] for line in found.removesuffix("\n").split("\n")] == [text, TEXTS[1]]

    @pytest.mark.parametrize("verb", [("predict", "--text", TEXTS[0]), ("evaluate",)])
    def test_an_unknown_device_is_refused(self, alter: Alter, finished: Path, verb: tuple[str, ...]) -> None:
        assert "this machine has no device 'gpu'; allowed: cpu" in alter.refuses(verb[0], finished, *verb[1:], "--device", "gpu")
        alter.works(verb[0], finished, *verb[1:], "--device", "cpu")

    def test_brackets_in_a_text_are_text(self, alter: Alter, finished: Path) -> None:
        text = "[/red] good [bold]help[link=x]"
        assert text in alter.works("predict", finished, "--task", "mood", "--text", text).out

    def test_standard_input_and_output_of_a_process_are_clean(self, finished: Path) -> None:
        outcome = run_process("predict", finished, "--task", "mood", "--input", "-", "--json", stdin="\n".join(TEXTS))
        assert outcome.code == 0
        assert [line["input"] for line in outcome.json_lines] == list(TEXTS)
        assert outcome.err == ""


class TestValidate:
    def test_it_shows_rows_labels_and_three_examples_of_each_task(self, alter: Alter, toy: Path) -> None:
        outcome = alter.works("validate", toy / "recipe.yaml")
        first = [json.loads(line) for line in (toy / "mood-train.jsonl").read_text().splitlines()[:3]]
        for row in first:
            assert f"  {row['label']}: {row['text']}" in outcome.out
        assert "pleased 12, upset 12" in outcome.out
        assert "2 tasks read, 0 warnings, no problems" in outcome.err

    def test_it_says_what_the_base_is_and_what_it_can_do(self, alter: Alter, toy: Path) -> None:
        base = load_recipe(toy / "recipe.yaml").model_name_or_path
        outcome = alter.works("validate", toy / "recipe.yaml")
        assert outcome.out.startswith(
            f"base: {base} (encoder, family bert): reads, and answers by a label or a number for each task; "
        )
        found = alter.works("validate", toy / "recipe.yaml", "--json").json["base"]
        assert found == {"name": base, "kind": "encoder", "model_type": "bert", "family": "bert", "writes": False}

    def test_a_task_that_the_base_cannot_do_is_a_problem(self, alter: Alter, toy: Path) -> None:
        outcome = alter("validate", toy / "recipe.yaml", "tasks.mood.kind=generation")
        assert outcome.code == 2
        assert "problem: task 'mood' is a generation, and this base model is an encoder, which writes no text" in outcome.err
        assert "2 tasks read, 0 warnings, 1 problem; mend it and run alter validate again" in outcome.err

    def test_json_says_the_same(self, alter: Alter, toy: Path) -> None:
        found = alter.works("validate", toy / "recipe.yaml", "--json").json
        assert found["valid"] is True
        assert found["problems"] == []
        assert found["summaries"]["mood"]["rows"] == {"train": 24, "validation": 12, "test": 12}
        assert len(found["summaries"]["stars"]["examples"]) == 3

    def test_what_is_odd_is_a_warning_and_no_failure(self, alter: Alter, toy: Path) -> None:
        (toy / "mood-test.jsonl").write_text((toy / "mood-train.jsonl").read_text())
        outcome = alter.works("validate", toy / "recipe.yaml")
        assert "24 of 24 test rows stand in train with the same text" in outcome.err
        assert "2 tasks read, 1 warning, no problems" in outcome.err

    def test_brackets_in_rows_are_text(self, alter: Alter, toy: Path) -> None:
        rows = [{"text": f"[/b] {label}", "label": f"[red]{label}"} for label in ("a", "b")]
        for split in ("train", "validation", "test"):
            write_jsonl(toy / f"mood-{split}.jsonl", [{**row, "text": f"{row['text']} {split}"} for row in rows])
        assert "  [red]a: [/b] a train" in alter.works("validate", toy / "recipe.yaml").out


class TestList:
    KINDS = ("adapters", "gates", "penalties", "metrics", "families", "baselines", "methods", "presets")

    def test_everything_that_can_be_chosen_is_there_with_a_line_on_it(self, alter: Alter) -> None:
        found = alter.works("list", "--json").json
        assert tuple(found) == self.KINDS
        assert set(found["gates"]) >= {"one_hot", "selector", "task", "linear", "outputs", "uniform"}
        assert set(found["presets"]) == {"alter", "alter-lite"}
        for entries in found.values():
            assert all(entries.values())

    def test_the_tables_show_the_same(self, alter: Alter) -> None:
        shown = alter.works("list").out
        for kind, entries in alter.works("list", "--json").json.items():
            assert kind in shown
            for name in entries:
                assert name in shown

    @pytest.mark.parametrize("kind", KINDS)
    def test_one_kind_can_be_chosen(self, alter: Alter, kind: str) -> None:
        assert list(alter.works("list", kind, "--json").json) == [kind]
