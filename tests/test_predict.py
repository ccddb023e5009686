from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.recipes import toy

import alter
from alter.checkpoint import choose_device
from alter.data import encode as data_encode
from alter.data.encode import Features
from alter.errors import CheckpointError, ConfigError, DataError, TaskError
from alter.predict import Prediction, Predictor, adapter_names, mean_weights
from alter.tasks.example import Example
from alter.training.run import Run, train

TEXTS = ["we love it", "the bank and the card", "they hate this", "a bill from you please"]


def trained(folder: Path, **settings: Any) -> Run:
    stages = {
        "stage1": {"max_steps": 2, "learning_rates": {"heads": 0.1}},
        "stage2": {"max_steps": 1, "learning_rates": {"heads": 1e-9}},
    }
    return train(toy(folder, settings={"max_length": 12, "stages": stages, **settings}), output_dir=folder / "run")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(tmp_path_factory.mktemp("lite"))


@pytest.fixture(scope="module")
def predictor(run: Run) -> Predictor:
    return run.load()


def close(one: Prediction, other: Prediction) -> bool:
    numbers = [(one.scores, other.scores), ({"value": one.value or 0.0}, {"value": other.value or 0.0})]
    return (one.task, one.label) == (other.task, other.label) and all(a == pytest.approx(b, abs=1e-5) for a, b in numbers)


def test_texts_get_a_label_with_the_probability_of_every_label(predictor: Predictor) -> None:
    predictions = predictor.predict("topic", TEXTS)
    assert len(predictions) == len(TEXTS)
    for prediction in predictions:
        assert list(prediction.scores) == ["access", "money", "parcel"]
        assert sum(prediction.scores.values()) == pytest.approx(1.0, abs=1e-5)
        assert prediction.label == max(prediction.scores, key=lambda label: prediction.scores[label])
        assert prediction.score == prediction.scores[prediction.label]
        assert prediction.value is None


def test_a_regression_gets_a_number_near_those_of_its_rows(predictor: Predictor) -> None:
    [prediction] = predictor.predict("stars", ["two of them"])
    assert (prediction.label, prediction.score, prediction.scores) == (None, None, {})
    assert prediction.value is not None
    assert 0.0 < prediction.value < 4.0
    assert predictor.scale("stars").mean == pytest.approx(2.0)


def test_rows_are_read_as_the_task_s_template_says(predictor: Predictor) -> None:
    [text] = predictor.predict("mood", ["we love it"])
    assert close(predictor.predict("mood", [{"text": "we love it"}])[0], text)
    assert close(predictor.predict("mood", [{"text": "we love it", "label": "upset", "other": 3}])[0], text)


def test_tasks_may_be_mixed_and_answers_keep_their_order(predictor: Predictor) -> None:
    tasks = ["stars", "mood", "topic", "mood"]
    mixed = predictor.predict(tasks, TEXTS, batch_size=3)
    assert [prediction.task for prediction in mixed] == tasks
    for task, text, prediction in zip(tasks, TEXTS, mixed, strict=True):
        assert close(prediction, predictor.predict(task, [text])[0])


def test_the_second_text_of_a_pair_is_read(predictor: Predictor) -> None:
    first, second = predictor.predict(
        "reply", [{"text": "open", "text_pair": "yes"}, {"text": "open", "text_pair": "no no not no"}]
    )
    assert first.scores != second.scores


def test_no_inputs_give_no_predictions(predictor: Predictor) -> None:
    assert predictor.predict("mood", []) == []


def test_a_long_text_is_flagged_and_a_short_one_is_not(predictor: Predictor) -> None:
    short, long = predictor.predict("mood", ["love it", "love it " * 20])
    assert (short.truncated, long.truncated) == (False, True)
    assert long.as_dict()["truncated"] is True
    assert "truncated" not in short.as_dict()


def test_as_dict_leaves_out_what_says_nothing() -> None:
    assert Prediction(task="stars", value=0.0).as_dict() == {"task": "stars", "value": 0.0}
    assert Prediction(task="mood", label="a", score=0.0, scores={"a": 0.0}).as_dict() == {
        "task": "mood", "label": "a", "score": 0.0, "scores": {"a": 0.0},
    }  # fmt: skip


def test_gate_weights_name_every_adapter_and_the_task_s_own_has_stage_1_s_weight(predictor: Predictor) -> None:
    predictions = predictor.predict(["mood", "topic"], TEXTS[:2], gate_weights=True)
    for task, prediction in zip(("mood", "topic"), predictions, strict=True):
        weights = dict(prediction.gate_weights)
        assert list(weights) == ["mood", "topic", "stars", "reply", "shared-0", "shared-1"]
        shared = [weights.pop("shared-0"), weights.pop("shared-1")]
        assert weights == {name: float(name == task) for name in weights}
        assert all(0.0 < weight < 1.0 for weight in shared) == (predictor.model.router == "gate")
    assert predictor.predict("mood", TEXTS[:1])[0].gate_weights == {}


def test_gate_weights_are_recorded_only_where_asked_for_and_not_kept(
    predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor.predict("mood", TEXTS, gate_weights=True)
    assert predictor.model.state.recorded == {}
    monkeypatch.setattr(predictor.model, "record_weights", lambda: pytest.fail("recorded without being asked"))
    assert predictor.predict("mood", TEXTS[:1])[0].label


def test_each_task_s_inputs_are_tokenised_in_one_call(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[str]] = []

    def encode(examples: list[Example], *args: Any, **kwargs: Any) -> list[Features]:
        calls.append([example.text for example in examples])
        return data_encode.encode(examples, *args, **kwargs)

    monkeypatch.setattr("alter.predict.encode", encode)
    predictor.predict(["topic", "mood", "topic", "mood"], TEXTS)
    assert [call for call in calls if call] == [[TEXTS[1], TEXTS[3]], [TEXTS[0], TEXTS[2]]]


@pytest.mark.parametrize("task", ["mood", "stars"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_broken_model_is_told_and_no_nan_is_answered(run: Run, task: str, number: float) -> None:
    predictor = run.load()
    with torch.no_grad():
        for parameter in predictor.model.parameter_groups()["heads"].values():
            parameter.fill_(number)
    with pytest.raises(CheckpointError, match=rf"the model is broken: its outputs for task '{task}' are \[.*not finite numbers"):
        predictor.predict(task, TEXTS)


def test_the_device_is_cuda_where_there_is_one_and_otherwise_the_cpu(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert alter.load(run.folder).model.device == torch.device("cpu")
    assert choose_device() == choose_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"this machine has no device 'cuda'; allowed: cpu\."):
        alter.load(run.folder, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda")
    assert choose_device(torch.device("cuda", 1)) == torch.device("cuda:1")
    with pytest.raises(ConfigError, match=r"no device 'cuda:2'; allowed: cpu, cuda, cuda:0, cuda:1\."):
        choose_device("cuda:2")


def test_the_weights_of_the_paper_s_gate_sum_to_one(tmp_path: Path) -> None:
    run = trained(tmp_path, preset="alter", mta={"num_adapters": 3})
    predictor = run.load()
    predictor.model.router = "gate"
    assert adapter_names(predictor.model) == ["adapter-0", "adapter-1", "adapter-2", "shared-0", "shared-1"]
    for prediction in predictor.predict("topic", TEXTS, gate_weights=True):
        assert sum(prediction.gate_weights.values()) == pytest.approx(1.0, abs=1e-5)
        assert prediction.gate_weights["shared-0"] > 0
    predictor.model.router = "selector"
    [prediction] = predictor.predict("topic", TEXTS[:1], gate_weights=True)
    assert prediction.gate_weights["shared-0"] == prediction.gate_weights["shared-1"] == 0
    assert sum(prediction.gate_weights.values()) == pytest.approx(1.0, abs=1e-5)


def test_gate_weights_by_token_are_averaged_over_real_tokens_only() -> None:
    by_token = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
    by_row = torch.tensor([[0.5, 0.5]])
    mask = torch.tensor([[1, 1, 0]])
    assert mean_weights({0: by_token}, mask).tolist() == [[0.5, 0.5]]
    assert mean_weights({0: by_token, 1: by_row * 3}, mask).tolist() == [[1.0, 1.0]]


def test_predictions_do_not_depend_on_the_batch(predictor: Predictor) -> None:
    inputs = [*TEXTS, *(f"{text} please" for text in TEXTS)]
    whole = predictor.predict("mood", inputs)
    for batch_size in (1, 3):
        found = predictor.predict("mood", inputs, batch_size=batch_size)
        assert all(close(one, other) for one, other in zip(whole, found, strict=True))


def test_an_unknown_task_is_named_with_the_nearest_one(predictor: Predictor) -> None:
    with pytest.raises(
        TaskError, match=r"this model has no task 'modd'; allowed: mood, reply, stars, topic\. Did you mean 'mood'\?"
    ):
        predictor.predict("modd", ["x"])
    with pytest.raises(TaskError, match="no task 'modd'"):
        predictor.predict(["mood", "modd"], ["x", "y"])


def test_the_number_of_tasks_must_be_that_of_inputs(predictor: Predictor) -> None:
    with pytest.raises(TaskError, match="1 task for 2 inputs; give one task, or one for each input"):
        predictor.predict(["mood"], ["x", "y"])


@pytest.mark.parametrize(("given", "what"), [("love it", "one text"), ({"text": "love it"}, "one row")])
def test_a_single_input_must_stand_in_a_list(predictor: Predictor, given: Any, what: str) -> None:
    with pytest.raises(DataError, match=f"predict got {what}; give a list of inputs"):
        predictor.predict("mood", given)


@pytest.mark.parametrize("given", [3, None, ["love"]])
def test_an_input_is_a_text_or_a_row(predictor: Predictor, given: Any) -> None:
    with pytest.raises(DataError, match=rf"input 2 is a {type(given).__name__} .*; an input is a text, or a row"):
        predictor.predict("mood", ["love it", given])


@pytest.mark.parametrize("given", ["", "   ", {"text": ""}])
def test_an_empty_text_is_named_by_its_position(predictor: Predictor, given: Any) -> None:
    with pytest.raises(DataError, match=r"input 2: task 'mood': the input is empty"):
        predictor.predict("mood", ["love it", given])


def test_a_missing_column_is_named(predictor: Predictor) -> None:
    with pytest.raises(DataError, match=r"input 1: task 'mood': input: .*reads the column 'text', which the row does not have"):
        predictor.predict("mood", [{"words": "love it"}])


def test_load_takes_the_run_and_the_model_inside_it(run: Run) -> None:
    one, other = alter.load(run.folder), alter.load(run.folder / "model")
    assert one.tasks == other.tasks == ["mood", "topic", "stars", "reply"]
    assert close(one.predict("mood", TEXTS)[0], other.predict("mood", TEXTS)[0])


def test_load_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder; give a run directory or its model/ folder"):
        alter.load(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="not a model of alter"):
        alter.load(tmp_path)
