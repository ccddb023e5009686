from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score
from tests.recipes import toy
from tests.tiny import tiny_model, tiny_tokenizer

from alter.data.batch import collate
from alter.data.codec import Codec
from alter.data.encode import Scale
from alter.errors import TrainingError
from alter.evaluation import EvalSet, answer, evaluate, outputs_of, score_task, split_scores
from alter.model import MTAModel
from alter.recipe import Recipe
from alter.tasks.spec import TaskSpec
from alter.training.prepare import eval_sets, read_rows

CODEC = Codec(tokenizer=tiny_tokenizer(), max_length=32)
MOOD = TaskSpec(name="mood", labels=["pleased", "upset"])
STARS = TaskSpec(name="stars", kind="regression")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return toy(tmp_path_factory.mktemp("toy"), sizes={"test": 17})


@pytest.fixture(scope="module")
def sets(recipe: Recipe) -> dict[str, EvalSet]:
    return eval_sets(read_rows(recipe), "test", codec=CODEC)


@pytest.fixture(scope="module")
def model(recipe: Recipe, sets: dict[str, EvalSet]) -> MTAModel:
    """Return a model that answers at random, each task in its own way, and none with one answer only."""
    torch.manual_seed(0)
    names = [task.name for task in recipe.tasks]
    model = MTAModel(tiny_model("bert"), task_names=names, settings=recipe.mta, num_outputs=[2, 3, 1, 2])
    with torch.no_grad():
        for group in ("task_adapters", "heads"):
            for parameter in model.parameter_groups()[group].values():  # type: ignore[index]
                parameter.add_(torch.randn_like(parameter))
        for head, eval_set in zip(model.heads.heads, sets.values(), strict=True):  # type: ignore[union-attr]
            outputs = torch.stack(outputs_of(model, eval_set.features, codec=CODEC, batch_size=64))
            head.bias -= outputs.mean(0)[: head.bias.shape[0]]
    return model


def test_scores_are_those_of_scikit_learn_and_scipy_on_the_answers(model: MTAModel, sets: dict[str, EvalSet]) -> None:
    scores, answers = evaluate(model, sets, codec=CODEC, batch_size=8)
    for task in ("mood", "topic", "reply"):
        true, given = list(sets[task].references), answers[task]
        assert len(set(given)) > 1, "a constant answer proves little"
        assert scores.tasks[task].metrics["accuracy"] == pytest.approx(100 * accuracy_score(true, given))
        assert scores.tasks[task].metrics["f1_macro"] == pytest.approx(100 * f1_score(true, given, average="macro"))
        assert (scores.tasks[task].metric, scores.tasks[task].num_examples) == ("accuracy", 17)
        assert scores.tasks[task].score == scores.tasks[task].metrics["accuracy"]
    true, given = list(sets["stars"].references), answers["stars"]
    assert scores.tasks["stars"].metrics["pearson"] == pytest.approx(100 * pearsonr(given, true).statistic)
    assert scores.tasks["stars"].metrics["spearmanr"] == pytest.approx(100 * spearmanr(given, true).statistic)
    assert scores.average == pytest.approx(sum(score.score for score in scores.tasks.values()) / 4)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_mixed_batches_answer_as_each_task_alone_does(model: MTAModel, sets: dict[str, EvalSet], batch_size: int) -> None:
    rows = [row for eval_set in sets.values() for row in eval_set.features]
    mixed = outputs_of(model, rows, codec=CODEC, batch_size=batch_size)
    assert len(mixed) == 4 * 17
    alone = [output for eval_set in sets.values() for output in outputs_of(model, eval_set.features, codec=CODEC, batch_size=17)]
    assert torch.allclose(torch.stack(mixed).nan_to_num(neginf=-9), torch.stack(alone).nan_to_num(neginf=-9), atol=1e-5)


def test_outputs_come_in_the_order_of_the_rows(model: MTAModel, sets: dict[str, EvalSet]) -> None:
    rows = [row for eval_set in sets.values() for row in eval_set.features]
    found = outputs_of(model, rows, codec=CODEC, batch_size=8)
    for position in (0, 20, 40, 67):
        batch = collate([rows[position]], CODEC)
        with torch.inference_mode():
            [alone] = model(**batch.inputs, task_ids=batch.task_ids_B).logits
        real = torch.isfinite(alone)
        assert torch.allclose(found[position][real], alone[real], atol=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_are_not_scored(model: MTAModel, sets: dict[str, EvalSet], value: float) -> None:
    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.heads.heads[2].bias.fill_(value)  # type: ignore[union-attr]
    with pytest.raises(TrainingError, match=r"outputs are NaN or infinite for \d+ of a batch of \d+ rows \(tasks: stars\)"):
        evaluate(broken, sets, codec=CODEC, batch_size=8)


def test_evaluation_turns_dropout_off(model: MTAModel, sets: dict[str, EvalSet]) -> None:
    model.train()
    first = evaluate(model, sets, codec=CODEC, batch_size=8)
    model.train()
    assert evaluate(model, sets, codec=CODEC, batch_size=8) == first


def test_a_number_comes_back_on_its_own_scale() -> None:
    assert answer(torch.tensor([2.0, -math.inf]), STARS, Scale(mean=10.0, std=3.0)) == 16.0


def test_regression_answers_are_on_the_scale_of_the_rows(model: MTAModel, sets: dict[str, EvalSet]) -> None:
    eval_set = sets["stars"]
    assert eval_set.scale.mean == pytest.approx(2.0)
    outputs = outputs_of(model, eval_set.features, codec=CODEC, batch_size=64)
    _, answers = evaluate(model, {"stars": eval_set}, codec=CODEC, batch_size=64)
    expected = [float(output[0]) * eval_set.scale.std + eval_set.scale.mean for output in outputs]
    assert answers["stars"] == pytest.approx(expected)


def test_outputs_beyond_the_task_s_own_labels_are_never_the_answer() -> None:
    assert answer(torch.tensor([0.1, 0.2, 99.0]), MOOD, Scale()) == "upset"


def test_one_answer_for_every_row_is_a_collapse() -> None:
    references = ["pleased", "upset", "pleased"]
    assert score_task(MOOD, ["upset"] * 3, references).constant_prediction == "upset"
    assert score_task(MOOD, ["upset", "pleased", "upset"], references).constant_prediction is None


def test_numbers_that_differ_in_their_last_digits_only_are_a_collapse() -> None:
    assert score_task(STARS, [2.0, 2.0000001, 1.9999999], [1.0, 2.0, 3.0]).constant_prediction is not None
    assert score_task(STARS, [2.0, 2.1, 1.9], [1.0, 2.0, 3.0]).constant_prediction is None


def test_one_answer_is_no_collapse_where_all_rows_have_it() -> None:
    assert score_task(MOOD, ["upset"] * 2, ["upset"] * 2).constant_prediction is None


def test_a_label_that_training_never_showed_counts_as_wrong() -> None:
    assert score_task(MOOD, ["upset", "upset"], ["upset", "never seen"]).metrics["accuracy"] == 50.0


def test_cut_rows_are_counted(model: MTAModel, recipe: Recipe) -> None:
    sets = eval_sets(read_rows(recipe), "test", codec=replace(CODEC, max_length=6))
    scores, _ = evaluate(model, sets, codec=CODEC, batch_size=32)
    counted = {task: score.num_truncated for task, score in scores.tasks.items()}
    assert counted == {task: sum(row.truncated for row in eval_set.features) for task, eval_set in sets.items()}
    assert 0 < counted["mood"] < 17


def test_a_group_counts_once_in_the_average() -> None:
    scored = {name: score_task(MOOD, given, ["upset", "upset"]) for name, given in {
        "a": ["upset", "upset"], "b": ["pleased", "pleased"], "c": ["pleased", "pleased"],
    }.items()}  # fmt: skip
    specs = {name: MOOD.model_copy(update={"group": None if name == "a" else "others"}) for name in scored}
    assert split_scores(scored, specs).average == 50.0
    assert split_scores(scored, dict.fromkeys(scored, MOOD)).average == pytest.approx(100 / 3)


def test_tasks_without_rows_are_left_out(model: MTAModel, sets: dict[str, EvalSet], tmp_path: Path) -> None:
    without = EvalSet(spec=sets["mood"].spec, features=[], references=[], scale=Scale())
    scores, answers = evaluate(model, {**sets, "mood": without}, codec=CODEC, batch_size=32)
    assert list(scores.tasks) == list(answers) == ["topic", "stars", "reply"]
