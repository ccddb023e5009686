"""Runs on models that write: they learn, go on where they stopped, and count rows and tokens as the recipe says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from tests.recipes import TEXT_TASKS, StopAt, StopError, changed, journal, steps, toy_texts, weights
from tests.tiny import GENERATIVE, tiny_lm, tiny_lm_tokenizer

from alter.config import merge
from alter.data.codec import Codec
from alter.data.encode import Features
from alter.errors import ConfigError
from alter.nn.site import Kind
from alter.recipe import Recipe, TrainSettings
from alter.results import Results, read_results
from alter.score import evaluate_model
from alter.tasks.spec import TaskSpec
from alter.training import trainer
from alter.training.prepare import check_lengths, check_targets, check_tasks
from alter.training.run import Run, train
from alter.training.steps import cut, row_weights

LONG = {"stages": {"stage1": {"max_steps": 18, "eval_steps": 18}, "stage2": {"max_steps": 1}}}


@pytest.fixture(scope="module", params=["t5", "gpt2", "llama"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp(str(request.param))
    settings = LONG
    if request.param == "gpt2":  # adapters alone move little between random embeddings
        stage = {"trains": ["backbone", "task_adapters", "selector", "heads"], "learning_rates": {"backbone": 0.01}}
        settings = merge(LONG, {"stages": {"stage1": stage}})
    return train(toy_texts(folder, request.param, settings=settings), output_dir=folder / "run")


class TestLearning:
    def test_the_loss_of_every_task_falls(self, run: Run) -> None:
        lines = [line for line in steps(run) if line["stage"] == "stage1"]
        assert len(lines) == 18
        for task in TEXT_TASKS:
            losses = [line["losses"][task] for line in lines if task in line["losses"]]
            assert sum(losses[-4:]) / 4 < 0.95 * sum(losses[:2]) / 2
        assert all(line["loss"] > 0 for line in lines)

    def test_results_say_how_texts_were_scored(self, run: Run) -> None:
        assert read_results(run.folder / "results.json") == run.results
        metrics = {"mood": ["accuracy", "f1_macro"], "stars": ["pearson", "spearmanr"], "echo": ["rougeL", "exact_match"]}
        for split in ("validation", "test"):
            scores = run.results.splits[split]
            assert list(scores.tasks) == list(TEXT_TASKS)
            for task, score in scores.tasks.items():
                assert list(score.metrics) == metrics[task]
                assert (score.metric, score.num_examples) == (metrics[task][0], 12)
                assert score.score == score.metrics[score.metric]
            # Labels are ranked, and any text is an answer; only a number can be written wrong.
            assert (scores.tasks["mood"].num_invalid, scores.tasks["echo"].num_invalid) == (0, 0)
            assert scores.average == pytest.approx(sum(score.score for score in scores.tasks.values()) / 3)
        assert run.results.parameters["heads"] == 0
        assert not (run.folder / "model" / "heads.safetensors").exists()

    def test_the_released_model_scores_as_the_run_did(self, run: Run) -> None:
        for split in ("validation", "test"):
            again = evaluate_model(run.folder, split=split)
            for task, score in run.results.splits[split].tasks.items():
                assert again.tasks[task].metrics == pytest.approx(score.metrics)
                assert again.tasks[task].num_invalid == score.num_invalid

    def test_the_released_model_knows_how_long_texts_may_be_and_what_separates_them(self, run: Run) -> None:
        config = json.loads((run.folder / "model" / "alter_config.json").read_text())
        assert (config["max_length"], config["max_target_length"], config["prompt_separator"]) == (16, 6, " :")
        codec = run.load().codec
        assert (codec.max_length, codec.max_target_length, codec.separator) == (16, 6, " :")

    def test_predictions_fit_the_kind_of_task(self, run: Run) -> None:
        predictor = run.load()
        mood, stars, echo = predictor.predict(list(TEXT_TASKS), ["we love it", "two of them", "the bank"], gate_weights=True)
        assert (mood.label in ("pleased", "upset"), mood.value, mood.text) == (True, None, None)
        assert sum(mood.scores.values()) == pytest.approx(1.0)
        assert stars.text is not None
        assert (stars.label, stars.scores) == (None, {})
        assert (echo.label, echo.value, echo.scores) == (None, None, {})
        assert echo.text is not None
        for prediction in (mood, stars, echo):
            assert prediction.score is not None
            assert 0 < prediction.score <= 1
            assert list(prediction.gate_weights) == [*TEXT_TASKS, "shared-0", "shared-1"]


def timeless(results: Results) -> dict[str, Any]:
    content = results.model_dump()
    for stage in content["stages"].values():
        del stage["seconds"], stage["peak_memory_bytes"]
    return content


class TestResume:
    @pytest.mark.parametrize(("name", "packing"), [("t5", False), ("gpt2", True)])
    def test_a_resumed_run_equals_one_that_never_stopped(self, tmp_path: Path, name: str, packing: bool) -> None:
        settings = {
            "train": {"save_steps": 1, "packing": packing, "loss_weighting": "token", "label_smoothing": 0.1},
            "stages": {"stage1": {"max_steps": 3, "eval_steps": 2}, "stage2": {"max_steps": 2, "eval_steps": 2}},
        }
        recipe = toy_texts(tmp_path, name, dropout=0.1, settings=settings)
        whole = train(recipe, output_dir=tmp_path / "whole")
        for number in (2, 4):
            folder = tmp_path / f"stopped-{number}"
            with pytest.raises(StopError):
                train(recipe, output_dir=folder, observer=StopAt(number))
            resumed = train(recipe, output_dir=folder, resume=True)
            assert weights(resumed) == weights(whole)
            assert journal(resumed) == journal(whole)
            assert timeless(resumed.results) == timeless(whole.results)


def trained(recipe: Recipe, folder: Path, **settings: Any) -> Run:
    return train(changed(recipe, {"train": settings}), output_dir=folder)


def assert_same_steps(one: Run, other: Run, *, within: float) -> None:
    for first, second in zip(steps(one), steps(other), strict=True):
        assert first["losses"] == pytest.approx(second["losses"], abs=within)
        assert first["grad_norm"] == pytest.approx(second["grad_norm"], rel=10 * within)


class TestPacking:
    @pytest.mark.parametrize("name", ["gpt2", "llama"])
    def test_packed_rows_are_learned_as_rows_apart_are(self, tmp_path: Path, name: str) -> None:
        recipe = toy_texts(tmp_path, name, settings={"mta": {"gate": {"kind": "linear"}}})
        apart, packed = (trained(recipe, tmp_path / str(packing), packing=packing) for packing in (False, True))
        assert_same_steps(apart, packed, within=1e-5)
        for path, content in weights(apart).items():
            for key, tensor in load(content).items():
                assert torch.allclose(tensor, load(weights(packed)[path])[key], atol=1e-3)

    def test_several_rows_share_a_sequence(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[int, int]] = []
        collate = vars(trainer)["collate"]

        def noted(rows: Any, codec: Any, **settings: Any) -> Any:
            batch = collate(rows, codec, **settings)
            assert batch.packing is not None
            seen.append((len(rows), len(batch.packing.row_RP)))
            return batch

        monkeypatch.setattr(trainer, "collate", noted)
        recipe = toy_texts(tmp_path, "gpt2", settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
        trained(recipe, tmp_path / "run", packing=True)
        [(rows, sequences)] = seen
        assert rows == 8
        assert sequences <= 5


def row(*target_ids: int) -> Features:
    return Features(task_id=0, inputs={"input_ids": [5]}, target_ids=target_ids)


class TestWeights:
    ROWS = [row(1, 2, 3), row(1), row(1, 2), row(), row(1, 2, 3, 4), row(1), row(1, 2)]

    @pytest.mark.parametrize("by", ["row", "token"])
    @pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (2, 1), (1, 2), (3, 2), (4, 4)])
    def test_they_sum_to_one_over_a_step_however_it_is_cut(self, by: str, accumulation: int, processes: int) -> None:
        settings = TrainSettings(gradient_accumulation_steps=accumulation)
        cuts = [
            cut(self.ROWS, micro_batch=micro_batch, process=process, train=settings, num_processes=processes)
            for micro_batch in range(accumulation)
            for process in range(processes)
        ]
        assert sum(float(row_weights(mine, self.ROWS, by=by).sum()) for mine in cuts) == pytest.approx(1.0)

    def test_rows_count_alike_or_by_their_tokens(self) -> None:
        assert row_weights(self.ROWS[:2], self.ROWS, by="row").tolist() == pytest.approx([1 / 7, 1 / 7])
        # A row that wants nothing written counts as one token, as encoders' rows do.
        assert row_weights(self.ROWS, self.ROWS, by="token").tolist() == pytest.approx([n / 14 for n in (3, 1, 2, 1, 4, 1, 2)])

    @pytest.mark.parametrize("by", ["row", "token"])
    def test_two_micro_batches_of_four_rows_are_one_of_eight(self, tmp_path: Path, by: str) -> None:
        recipe = toy_texts(tmp_path, tasks=["mood", "echo"], settings={"stages": {"stage2": None}})
        whole = trained(recipe, tmp_path / "whole", loss_weighting=by)
        halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
        assert_same_steps(whole, trained(recipe, tmp_path / "cut", loss_weighting=by, **halves), within=1e-4)

    def test_the_choice_changes_what_is_learned(self, tmp_path: Path) -> None:
        recipe = toy_texts(tmp_path, tasks=["mood", "echo"], settings={"stages": {"stage1": {"max_steps": 1}, "stage2": None}})
        by_row, by_token = (steps(trained(recipe, tmp_path / by, loss_weighting=by))[0] for by in ("row", "token"))
        assert by_row["losses"] == by_token["losses"]
        assert by_row["grad_norm"] != pytest.approx(by_token["grad_norm"], rel=1e-3)


class TestRefusals:
    def test_an_encoder_reads_no_settings_of_texts(self, tmp_path: Path) -> None:
        recipe = toy_texts(tmp_path, tasks=["mood"])
        check_tasks(recipe.tasks, "encoder")
        for name, value in {"target": "a {{ label }}", "decoding": "generate", "length_normalization": True}.items():
            specs = [task.model_copy(update={name: value}) for task in recipe.tasks]
            with pytest.raises(ConfigError, match=rf"task 'mood' sets {name}, which only a base model that writes reads"):
                check_tasks(specs, "encoder")
            check_tasks(specs, "decoder")

    @pytest.mark.parametrize("kind", ["encoder-decoder", "decoder"])
    @pytest.mark.parametrize(
        ("settings", "most"),
        [
            ({"labels": ["bad", "good"], "target": "yes"}, 64),
            ({"labels": ["bad", "good"], "target": "the day and night was {{ label }}"}, 4),
            ({"labels": ["\U0001f600", "\U0001f601"]}, 64),
            ({"labels": ["Bad", "bad"]}, 64),
            ({"kind": "regression", "target": "many"}, 64),
        ],
    )
    def test_answers_that_are_written_alike(self, kind: Kind, settings: dict[str, Any], most: int) -> None:
        codec = Codec(kind=kind, tokenizer=tiny_lm_tokenizer(kind), max_target_length=most)
        with pytest.raises(ConfigError, match=r"task 'mood': the answers .* are written with the same tokens"):
            check_targets([TaskSpec.model_validate({"name": "mood", **settings})], codec)
        check_targets([TaskSpec(name="mood", labels=["bad", "good"]), TaskSpec(name="echo", kind="generation")], codec)

    @pytest.mark.parametrize(
        ("name", "reads", "writes", "told"),
        [
            ("bart", 200, 6, "max_length is 200, but {most}; set max_length: 160"),
            ("bart", 16, 200, "max_target_length is 200, but {most}; set max_target_length: 160"),
            ("encoder_decoder", 16, 200, "max_target_length is 200, but {most}; set max_target_length: 160"),
            ("gpt2", 128, 64, "max_length and max_target_length together are 192, but {most}; set max_length: 96"),
            ("opt", 128, 64, "max_length and max_target_length together are 192, but {most}; set max_length: 96"),
            ("gpt2", 16, 170, "max_length and max_target_length together are 186, but {most}; lower max_target_length"),
        ],
    )
    def test_texts_longer_than_the_base_has_positions_for(self, name: str, reads: int, writes: int, told: str) -> None:
        kind = GENERATIVE[name].kind
        codec = Codec(kind=kind, tokenizer=tiny_lm_tokenizer(kind), max_length=reads, max_target_length=writes)
        with pytest.raises(ConfigError) as caught:
            check_lengths(codec, tiny_lm(name))
        assert str(caught.value) == told.format(most="this base model has 160 positions")

    @pytest.mark.parametrize("name", ["t5", "llama"])
    def test_relative_and_rotary_positions_have_no_end(self, name: str) -> None:
        kind = GENERATIVE[name].kind
        check_lengths(Codec(kind=kind, tokenizer=tiny_lm_tokenizer(kind), max_length=999, max_target_length=999), tiny_lm(name))
