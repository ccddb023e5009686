from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from sklearn.metrics import accuracy_score
from tests.recipes import toy, toy_rows, write_jsonl

from alter.errors import CheckpointError, ConfigError, DataError, TaskError
from alter.recipe import load_recipe
from alter.results import SplitScores
from alter.score import evaluate_model
from alter.training.run import Run, train


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("toy")
    return train(toy(folder, settings={"stages": {"stage1": {"max_steps": 6}}}), output_dir=folder / "run")


def assert_same(one: SplitScores, other: SplitScores) -> None:
    assert one.average == pytest.approx(other.average)
    assert list(one.tasks) == list(other.tasks)
    for task, score in one.tasks.items():
        assert score.metrics == pytest.approx(other.tasks[task].metrics)
        assert score.model_copy(update={"score": 0.0, "metrics": {}}) == other.tasks[task].model_copy(
            update={"score": 0.0, "metrics": {}}
        )


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_model_scores_again_what_its_run_reported(run: Run, split: str) -> None:
    assert_same(evaluate_model(run.folder, split=split), run.results.splits[split])


def test_the_model_folder_alone_finds_the_recipe_beside_it(run: Run) -> None:
    assert evaluate_model(run.folder / "model") == evaluate_model(run.folder)


def test_some_tasks_may_be_scored_alone(run: Run) -> None:
    whole, some = evaluate_model(run.folder), evaluate_model(run.folder, tasks=["stars", "mood"])
    assert list(some.tasks) == ["mood", "stars"]
    assert some.tasks["mood"] == whole.tasks["mood"]
    assert some.average == pytest.approx((whole.tasks["mood"].score + whole.tasks["stars"].score) / 2)


def test_predictions_are_written_as_json_lines_in_the_order_of_the_rows(run: Run, tmp_path: Path) -> None:
    scores = evaluate_model(run.folder, predictions_dir=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "mood.jsonl",
        "reply.jsonl",
        "stars.jsonl",
        "topic.jsonl",
    ]
    rows = [json.loads(line) for line in lines_of(tmp_path / "out" / "mood.jsonl")]
    written = toy_rows("mood", 12, seed="test")
    assert [(row["input"], row["target"]) for row in rows] == [(row["text"], row["label"]) for row in written]
    accuracy = accuracy_score([row["target"] for row in rows], [row["prediction"] for row in rows])
    assert scores.tasks["mood"].score == pytest.approx(100 * accuracy)
    stars = [json.loads(line) for line in lines_of(tmp_path / "out" / "stars.jsonl")]
    assert all(isinstance(row["prediction"], float) for row in stars)
    assert json.loads(lines_of(tmp_path / "out" / "reply.jsonl")[0])["input"].count("\t") == 1


def test_predictions_are_written_as_label_ids_for_official_scorers(run: Run, tmp_path: Path) -> None:
    evaluate_model(run.folder, predictions_dir=tmp_path, predictions_format="ids", tasks=["topic", "stars"])
    evaluate_model(run.folder, predictions_dir=tmp_path, tasks=["topic", "stars"])
    names = [json.loads(line)["prediction"] for line in lines_of(tmp_path / "topic.jsonl")]
    assert lines_of(tmp_path / "topic.txt") == [str(["access", "money", "parcel"].index(name)) for name in names]
    values = [json.loads(line)["prediction"] for line in lines_of(tmp_path / "stars.jsonl")]
    assert [float(line) for line in lines_of(tmp_path / "stars.txt")] == values


def test_a_folder_that_cannot_be_written_is_named(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(DataError, match=r"out/mood\.jsonl: predictions cannot be written .*; choose another folder"):
        evaluate_model(run.folder, predictions_dir=tmp_path / "out")


def test_a_recipe_elsewhere_says_where_other_rows_are(run: Run, tmp_path: Path) -> None:
    recipe = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    rows = toy_rows("mood", 30, seed="another")
    recipe["tasks"] = [{"name": "mood", "source": {"test": str(write_jsonl(tmp_path / "other.jsonl", rows))}}]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    for given in (tmp_path / "other.yaml", load_recipe(tmp_path / "other.yaml")):
        scores = evaluate_model(run.folder, recipe=given, tasks=["mood"])
        assert {task: score.num_examples for task, score in scores.tasks.items()} == {"mood": 30}


def test_a_recipe_that_lacks_a_task_of_the_model_is_refused(run: Run, tmp_path: Path) -> None:
    toy(tmp_path, tasks=["mood", "topic", "stars"])
    with pytest.raises(TaskError, match="the recipe has no task 'reply', which the model was trained on"):
        evaluate_model(run.folder, recipe=tmp_path / "recipe.yaml")


def test_a_model_without_a_recipe_beside_it_asks_for_one(run: Run, tmp_path: Path) -> None:
    shutil.copytree(run.folder / "model", tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"no recipe\.yaml beside the model .* add --recipe RECIPE\.yaml"):
        evaluate_model(tmp_path / "model")
    assert evaluate_model(tmp_path / "model", recipe=run.folder / "recipe.yaml") == evaluate_model(run.folder)


def test_a_label_that_training_never_showed_is_a_wrong_answer_and_no_wrong_row(tmp_path: Path) -> None:
    recipe = toy(tmp_path, tasks=["mood"])
    rows = [*toy_rows("mood", 4, seed="test"), {"text": "what is this", "label": "puzzled"}]
    write_jsonl(tmp_path / "mood-test.jsonl", rows)
    run = train(recipe, output_dir=tmp_path / "run")
    assert run.results.splits["test"].tasks["mood"].num_examples == 5
    assert_same(evaluate_model(run.folder), run.results.splits["test"])


def test_a_label_outside_a_recipe_s_own_list_is_a_wrong_row(run: Run, tmp_path: Path) -> None:
    recipe = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    [mood] = [task for task in recipe["tasks"] if task["name"] == "mood"]
    path = write_jsonl(tmp_path / "other.jsonl", [{"text": "good", "label": "pleased"}, {"text": "hm", "label": "puzzled"}])
    recipe["tasks"] = [{**mood, "labels": ["pleased", "upset"], "source": {"test": str(path)}}]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(DataError, match=r"other\.jsonl:2: task 'mood': unknown label 'puzzled'"):
        evaluate_model(run.folder, recipe=tmp_path / "other.yaml", tasks=["mood"])


def test_an_unknown_split_or_task_is_named_with_what_is_allowed(run: Run) -> None:
    with pytest.raises(DataError, match=r"unknown split 'tset'; allowed: test, train, validation\. Did you mean 'test'\?"):
        evaluate_model(run.folder, split="tset")
    with pytest.raises(
        TaskError, match=r"this model has no task 'moode'; allowed: mood, reply, stars, topic\. Did you mean 'mood'\?"
    ):
        evaluate_model(run.folder, tasks=["moode"])


def test_an_unknown_device_is_named_with_what_is_allowed(run: Run) -> None:
    assert evaluate_model(run.folder, device="cpu") == evaluate_model(run.folder)
    with pytest.raises(ConfigError, match=r"this machine has no device 'gpu'; allowed: cpu"):
        evaluate_model(run.folder, device="gpu")


def test_a_split_without_rows_says_which_key_to_add(run: Run, tmp_path: Path) -> None:
    recipe = yaml.safe_load((run.folder / "recipe.yaml").read_text())
    for task in recipe["tasks"]:
        del task["source"]["test"]
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(recipe))
    told = (
        r"the recipe names no test rows for mood, .+; add source\.test to it, or add --split validation, of which it names rows"
    )
    with pytest.raises(DataError, match=told):
        evaluate_model(run.folder, recipe=tmp_path / "other.yaml")
