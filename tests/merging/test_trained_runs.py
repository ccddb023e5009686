"""From two trained runs to scores of the merged model: the way a user goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.recipes import toy

import alter
from alter.model_config import load_config


@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_two_runs_on_one_base_become_a_model_that_is_scored_on_the_tasks_of_both(tmp_path: Path, preset: Any) -> None:
    settings = {"preset": preset, "mta": {"adapter": {"r": 4}}}
    both = toy(tmp_path / "data", tasks=("mood", "stars", "topic", "reply"), settings=settings)
    runs = []
    for name, tasks in (("first", ("mood", "stars")), ("second", ("topic", "reply"))):
        recipe = both.model_copy(update={"name": name, "tasks": [task for task in both.tasks if task.name in tasks]})
        runs.append(alter.train(recipe, output_dir=tmp_path / name))
    how: Any = {} if preset == "alter-lite" else {"method": "metagpt"}
    alter.merge([run.folder for run in runs], output_dir=tmp_path / "merged", **how)
    config = load_config(tmp_path / "merged")
    assert [part.router == "gate" for part in config.parts] == [run.results.released == "stage2" for run in runs]
    scores = alter.evaluate(tmp_path / "merged", recipe=tmp_path / "data" / "recipe.yaml")
    assert set(scores.tasks) == {"mood", "stars", "topic", "reply"}
    if preset == "alter-lite":  # a frozen base: what each model scored, the merged one scores
        for run in runs:
            for task, score in run.results.splits["test"].tasks.items():
                assert scores.tasks[task].score == pytest.approx(score.score, abs=1e-3)
    else:
        assert (tmp_path / "merged" / "backbone.safetensors").is_file()
