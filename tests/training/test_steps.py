from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest

from alter.data.encode import Features
from alter.recipe import MixtureSettings, StageSettings, TrainSettings
from alter.training.journal import Journal
from alter.training.steps import StepPlan, cut

ROWS = {
    task: [Features(task_id=number, inputs={"input_ids": list(range(2 + row % 5))}, label_id=row) for row in range(size)]
    for number, (task, size) in enumerate([("a", 13), ("b", 6)])
}


def plan(*, seed: int = 0, rows_per_step: int = 4) -> StepPlan:
    return StepPlan(rows=ROWS, mixture=MixtureSettings(), weights={}, rows_per_step=rows_per_step, seed=seed)


def named(rows: list[Features]) -> list[tuple[int, int]]:
    return [(row.task_id, row.label_id) for row in rows]


def stage(epochs: float, max_steps: int | None = None) -> StageSettings:
    return StageSettings(router="selector", trains=["heads"], num_train_epochs=epochs, max_steps=max_steps)


def test_any_step_is_found_again_without_the_earlier_ones() -> None:
    in_order = plan()
    found = [named(in_order.step(number)) for number in range(20)]
    for number in (19, 3, 11, 0):
        assert named(plan().step(number)) == found[number]
        assert named(in_order.step(number)) == found[number]


def test_an_epoch_holds_every_row_once_and_the_next_one_in_another_order() -> None:
    given = plan()
    assert given.steps_per_epoch == 5
    first, second = ([named(given.step(number)) for number in numbers] for numbers in (range(5), range(5, 10)))
    assert sorted(chain(*first)) == sorted((row.task_id, row.label_id) for rows in ROWS.values() for row in rows)
    assert sorted(chain(*first)) == sorted(chain(*second))
    assert first != second


def test_another_seed_gives_another_order() -> None:
    assert [named(plan().step(n)) for n in range(5)] != [named(plan(seed=1).step(n)) for n in range(5)]


@pytest.mark.parametrize(
    ("epochs", "max_steps", "steps"), [(1, None, 5), (2.5, None, 13), (0.1, None, 1), (3, 4, 4), (1, 9, 5), (0, 9, 0)]
)
def test_the_steps_of_a_stage_follow_from_epochs_and_max_steps(epochs: float, max_steps: int | None, steps: int) -> None:
    assert plan().num_steps(stage(epochs, max_steps)) == steps


@pytest.mark.parametrize(("accumulation", "processes"), [(1, 1), (2, 1), (1, 2), (3, 2), (4, 4)])
def test_cuts_give_every_row_to_exactly_one_process_and_micro_batch(accumulation: int, processes: int) -> None:
    rows = ROWS["a"]
    settings = TrainSettings(gradient_accumulation_steps=accumulation)
    cuts = [
        cut(rows, micro_batch=micro_batch, process=process, train=settings, num_processes=processes)
        for micro_batch in range(accumulation)
        for process in range(processes)
    ]
    assert sorted(named(list(chain(*cuts)))) == sorted(named(rows))
    assert max(map(len, cuts)) - min(map(len, cuts)) <= 1


def test_a_journal_goes_on_from_the_length_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    journal = Journal(path)
    journal.write({"step": 1})
    size = journal.size()
    journal.write({"step": 2, "task": "gr\u00f6\u00dfe"})
    assert path.read_text(encoding="utf-8").splitlines() == ['{"step": 1}', '{"step": 2, "task": "gr\u00f6\u00dfe"}']
    Journal(path, size=size).write({"step": 3})
    assert path.read_text().splitlines() == ['{"step": 1}', '{"step": 3}']
    Journal(path)
    assert path.read_bytes() == b""


def test_a_journal_shorter_than_its_checkpoint_says_is_kept_whole(tmp_path: Path) -> None:
    Journal(tmp_path / "metrics.jsonl").write({"step": 1})
    journal = Journal(tmp_path / "metrics.jsonl", size=10_000)
    assert journal.size() == len('{"step": 1}\n')
