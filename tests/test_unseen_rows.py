"""benchmarks/unseen_rows.py: the second stage's rows are none of the first's, and cross-fitted weights land where they belong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import ModuleType

import pytest
from tests.programs import load_program
from tests.recipes import changed, toy, write_recipe

from alter.recipe import Recipe, resolve_recipe
from alter.tasks.read import load_split
from alter.training.run import train

GATE = {
    "mta": {"num_shared": 0, "gate": {"kind": "table", "over": "all"}},
    "stages": {"stage2": {"trains": ["gate"], "max_steps": 4}},
}


@pytest.fixture
def unseen_rows() -> ModuleType:
    return load_program("unseen_rows.py")


def capped(folder: Path, *, rate: float) -> Recipe:
    """Return a toy recipe whose training rows lie in capped .jsonl.gz files, with a table in stage 2 that learns at `rate`."""
    recipe = toy(folder, tasks=("mood", "topic"), settings=GATE)
    tasks = []
    for task in recipe.tasks:
        assert task.source is not None
        plain = Path(str(task.source.train))
        packed = plain.with_name(plain.name + ".gz")
        packed.write_bytes(gzip.compress(plain.read_bytes()))
        source = task.source.model_copy(update={"train": str(packed)})
        tasks.append(task.model_copy(update={"cap": 20, "source": source}))
    learning = {"stages": {"stage2": {"learning_rates": {"gate": rate}}}}
    return changed(recipe.model_copy(update={"tasks": tasks}), learning)


def test_held_out_rows_are_the_rest_of_the_capped_ones(unseen_rows: ModuleType, tmp_path: Path) -> None:
    rows = [json.dumps({"text": f"row {number}", "label": "ab"[number % 2]}) for number in range(1500)]
    (tmp_path / "train.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    source = {"train": str(tmp_path / "train.jsonl.gz")}
    content = {"model_name_or_path": "base", "seed": 3, "tasks": [{"name": "mood", "source": source, "cap": 100}]}
    recipe = resolve_recipe(content, folder=tmp_path, where="here")
    all_rows = {e.text for e in load_split(recipe.tasks[0], "train", seed=3)}
    held = []
    for fold in range(5):
        first, second = unseen_rows.held_out_rows(recipe, fold / 5, (fold + 1) / 5, tmp_path)
        [seen], [fresh] = (
            [{e.text for e in load_split(task, "train", seed=3)} for task in part.tasks] for part in (first, second)
        )
        assert (len(seen), len(fresh)) == (80, 20)
        assert seen | fresh == all_rows
        held.append(fresh)
    assert set.union(*held) == all_rows  # so no two of them have a row in common
    smaller = recipe.tasks[0].model_copy(update={"cap": 80})
    assert all_rows - held[-1] == {e.text for e in load_split(smaller, "train", seed=3)}


@pytest.mark.parametrize(("rate", "moves"), [(1e-9, False), (0.5, True)])
def test_cross_fitted_weights_stand_on_the_stage_1_of_all_rows(
    unseen_rows: ModuleType, tmp_path: Path, rate: float, moves: bool
) -> None:
    recipe = capped(tmp_path / "toy", rate=rate)
    whole = train(recipe.model_copy(update={"stages": {"stage1": recipe.stages["stage1"]}}), output_dir=tmp_path / "whole")
    line = unseen_rows.cross_fitted(recipe, 2, whole.folder)
    before, after = line["stages"]["stage1"], line["stages"]["stage2"]
    assert before["average"] == pytest.approx(whole.results.stages["stage1"].average, abs=0.01)
    if not moves:
        assert after == before
    far = max(
        abs(weight - (task == adapter))
        for task, weights_LE in enumerate(line["weights_TLE"])
        for weights_E in weights_LE
        for adapter, weight in enumerate(weights_E)
    )
    assert (far > 0.1) is moves
    assert len(line["changes_by_fold"]) == 2


def test_cross_fitting_wants_plain_numbers(unseen_rows: ModuleType, tmp_path: Path) -> None:
    recipe = changed(capped(tmp_path / "toy", rate=0.1), {"mta": {"gate": {"kind": "task"}}})
    with pytest.raises(ValueError, match=r"set mta\.gate\.kind=table and mta\.num_shared=0"):
        unseen_rows.cross_fitted(recipe, 2, tmp_path)


def test_an_arm_without_its_stage_1_says_what_to_run_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = write_recipe(tmp_path / "toy", tasks=("mood",))
    arms = tmp_path / "arms.yaml"
    arms.write_text(f"recipe: {recipe}\narms:\n  first: []\n  second: {{stage1_of: first, set: []}}\n", encoding="utf-8")
    sweep = load_program("sweep.py")
    monkeypatch.setattr("sys.argv", ["sweep.py", str(arms), "--output-dir", str(tmp_path / "out"), "--arm", "second"])
    with pytest.raises(
        SystemExit, match=r"second takes its stage 1 from .*first.seed0, which is not there: run --arm first first"
    ):
        sweep.main()
