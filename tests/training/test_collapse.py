"""One answer for every row: what is said of tasks whose answers are chosen, and of tasks whose answers are written."""

from __future__ import annotations

from typing import Any

import pytest

from alter.recipe import Recipe, resolve_recipe
from alter.results import SplitScores, TaskScore
from alter.training.collapse import at_the_end, while_training


@pytest.fixture
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    source = {"train": "train.jsonl", "validation": "validation.jsonl"}
    kinds: list[dict[str, Any]] = [
        {"name": "mood"},
        {"name": "stars", "kind": "regression"},
        {"name": "reply", "kind": "generation"},
        {"name": "topic", "decoding": "generate"},
    ]
    settings = {
        "model_name_or_path": "base",
        "tasks": [{**kind, "source": source} for kind in kinds],
    }
    return resolve_recipe(settings, folder=tmp_path_factory.getbasetemp(), where="r.yaml")


def scores(*, num_invalid: int = 0, **constant: str | None) -> SplitScores:
    tasks = {
        task: TaskScore(
            score=0.0, metric="m", metrics={"m": 0.0}, num_examples=4, constant_prediction=answer, num_invalid=num_invalid
        )
        for task, answer in constant.items()
    }
    return SplitScores(average=0.0, tasks=tasks)


def test_no_collapse_is_no_warning(recipe: Recipe) -> None:
    assert while_training(scores(mood=None, reply=None), recipe, stage="stage1", step=3) == []
    assert at_the_end(scores(mood=None, reply=None), recipe, steps=3) == []


def test_a_label_task_is_told_of_rates_and_batches(recipe: Recipe) -> None:
    [told] = while_training(scores(mood="good", stars="2.0", reply=None), recipe, stage="stage1", step=3)
    assert told.startswith("stage1, step 3: one answer for every row on mood (always 'good'), stars (always '2.0'). Early in ")
    assert told.endswith("lower stages.stage1.learning_rates.adapters or raise train.per_device_train_batch_size")
    [told] = at_the_end(scores(mood="good"), recipe, steps=1)
    assert told == (
        "task 'mood' answers 'good' to every row: it learned nothing. Lower stages.stage1.learning_rates.adapters, give it more rows, "
        "or, where 1 step is few for them, raise stages.stage1.num_train_epochs"
    )


@pytest.mark.parametrize("task", ["reply", "topic"])
def test_a_writing_task_is_told_of_steps_and_of_the_base_and_not_of_rates(recipe: Recipe, task: str) -> None:
    collapse = scores(**{task: "we will look into it"})
    [told] = while_training(collapse, recipe, stage="stage1", step=3)
    assert told.startswith(
        f"stage1, step 3: one text for every row on {task} (always 'we will look into it'). After few steps, or with"
    )
    assert "raise stages.stage1.num_train_epochs, or choose a base model that writes already" in told
    [after] = at_the_end(collapse, recipe, steps=40)
    assert after.startswith(
        f"task '{task}' writes 'we will look into it' for every row: 40 steps were too few, or the base model "
    )
    assert "Raise stages.stage1.num_train_epochs, or choose a base model that writes already" in after
    assert "learning_rates" not in told + after


def test_a_task_is_warned_of_once_while_it_stays_collapsed(recipe: Recipe) -> None:
    first, second, third = scores(mood="good", reply=None), scores(mood="bad", reply="a"), scores(mood=None, reply="a")
    [told] = while_training(second, recipe, stage="stage1", step=2, before=first)
    assert "one text for every row on reply" in told
    assert while_training(third, recipe, stage="stage1", step=3, before=second) == []
    assert len(while_training(first, recipe, stage="stage1", step=4, before=third)) == 1


def test_a_run_that_is_cut_short_is_told_to_raise_that_too(recipe: Recipe) -> None:
    stages = {**recipe.stages, "stage1": recipe.stages["stage1"].model_copy(update={"max_steps": 5})}
    short = recipe.model_copy(update={"stages": stages})
    [told] = while_training(scores(reply="a"), short, stage="stage2", step=3)
    assert "raise stages.stage1.num_train_epochs and stages.stage1.max_steps, or" in told


def test_the_base_that_is_used_is_not_advised(recipe: Recipe) -> None:
    [told] = at_the_end(scores(reply="a"), recipe, steps=1)
    assert told.endswith("1 step was too few, or the base model does not write yet. Raise stages.stage1.num_train_epochs, or choose a "
                         "base model that writes already (e.g. google/flan-t5-small, package:alter_mini)")  # fmt: skip
    used = recipe.model_copy(update={"model_name_or_path": "package:alter_mini"})
    assert at_the_end(scores(reply="a"), used, steps=1)[0].endswith("(e.g. google/flan-t5-small)")


def test_an_answer_that_is_no_label_or_number_was_written(recipe: Recipe) -> None:
    [told] = while_training(scores(mood="the the", num_invalid=4), recipe, stage="stage1", step=3)
    assert told.startswith("stage1, step 3: one text for every row on mood (always 'the the')")


def test_both_kinds_are_told_apart_and_long_texts_are_cut(recipe: Recipe) -> None:
    chosen, written = while_training(scores(mood="good", reply="the " * 40), recipe, stage="stage1", step=3)
    assert "one answer for every row on mood (always 'good')" in chosen
    assert f"one text for every row on reply (always '{'the ' * 14}t...')" in written
