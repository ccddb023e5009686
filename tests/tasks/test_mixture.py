"""Mixing rates and epoch plans: sums, limits, equal use of rows, resumability, padding."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from alter.errors import ConfigError, TaskError
from alter.recipe import MixtureSettings
from alter.tasks.mixture import WINDOW_BATCHES, mixing_rates, plan_epoch

NO_WEIGHTS: dict[str, float | None] = {}


def rates(sizes: dict[str, int], **settings: Any) -> dict[str, float]:
    return mixing_rates(sizes, MixtureSettings(**settings), NO_WEIGHTS)


def random_sizes(seed: int) -> dict[str, int]:
    generator = random.Random(seed)
    return {f"task{number}": int(10 ** generator.uniform(0, 6)) for number in range(generator.randint(1, 40))}


@pytest.mark.parametrize("seed", range(20))
def test_rates_sum_to_one_whatever_the_mixture(seed: int) -> None:
    sizes = random_sizes(seed)
    weights: dict[str, float | None] = {task: random.Random(task).uniform(0.01, 9) for task in sizes}
    for kind in ("proportional", "equal", "temperature", "weights"):
        for maximum in (None, 1, 1000):
            settings = MixtureSettings.model_validate({"kind": kind, "maximum": maximum, "temperature": 1 + seed})
            found = mixing_rates(sizes, settings, weights)
            assert list(found) == list(sizes)
            assert math.isclose(sum(found.values()), 1.0, rel_tol=1e-12)
            assert all(rate > 0 for rate in found.values())


@pytest.mark.parametrize("seed", range(10))
def test_temperature_one_is_proportional_and_a_large_one_is_near_equal(seed: int) -> None:
    sizes = random_sizes(seed)
    proportional = rates(sizes)
    assert rates(sizes, kind="temperature", temperature=1.0) == pytest.approx(proportional)
    equal = rates(sizes, kind="equal")
    assert rates(sizes, kind="temperature", temperature=1e6) == pytest.approx(equal, rel=1e-4)
    between = rates(sizes, kind="temperature", temperature=2.0)
    smallest = min(sizes, key=lambda task: sizes[task])
    assert proportional[smallest] <= between[smallest] + 1e-12
    assert between[smallest] <= equal[smallest] + 1e-12


def test_rates_by_hand() -> None:
    assert rates({"a": 100, "b": 300}) == pytest.approx({"a": 0.25, "b": 0.75})
    assert rates({"a": 100, "b": 900}, kind="temperature", temperature=2.0) == pytest.approx({"a": 0.25, "b": 0.75})
    assert rates({"a": 100, "b": 900}, maximum=300) == pytest.approx({"a": 0.25, "b": 0.75})
    # The maximum comes first, then the root: sqrt(100) : sqrt(400).
    both = rates({"a": 100, "b": 9000}, kind="temperature", temperature=2.0, maximum=400)
    assert both == pytest.approx({"a": 1 / 3, "b": 2 / 3})
    assert rates({"a": 1, "b": 9000}, kind="equal") == {"a": 0.5, "b": 0.5}
    weighted = mixing_rates({"a": 1, "b": 9}, MixtureSettings(kind="weights"), {"a": 3.0, "b": 1.0})
    assert weighted == pytest.approx({"a": 0.75, "b": 0.25})


def test_a_missing_weight_is_told() -> None:
    with pytest.raises(ConfigError, match=r"task 'b': mixture\.kind is weights, and its weight is None; set a weight above 0"):
        mixing_rates({"a": 1, "b": 1}, MixtureSettings(kind="weights"), {"a": 1.0, "b": None})


def test_tasks_without_rows_are_told() -> None:
    with pytest.raises(TaskError, match=r"tasks \['b'\] have no training rows; add rows or remove the tasks"):
        rates({"a": 1, "b": 0})
    with pytest.raises(TaskError, match="needs at least one task"):
        rates({})


def lengths_of(sizes: dict[str, int], seed: int = 0) -> dict[str, list[int]]:
    generator = random.Random(seed)
    return {task: [generator.randint(3, 128) for _ in range(size)] for task, size in sizes.items()}


SIZES = {"big": 700, "middle": 90, "small": 11}


Batches = list[list[tuple[str, int]]]


def plan(sizes: dict[str, int] = SIZES, *, batch_size: int = 8, seed: int = 0, epoch: int = 0, **mixture: Any) -> Batches:
    maximum = mixture.pop("limit", None)
    return plan_epoch(sizes, rates(sizes, **mixture), lengths_of(sizes), batch_size, seed, epoch, maximum=maximum)


def drawn(batches: list[list[tuple[str, int]]]) -> Counter[tuple[str, int]]:
    return Counter(draw for batch in batches for draw in batch)


def test_a_proportional_epoch_uses_every_row_once() -> None:
    for epoch in range(3):
        counts = drawn(plan(epoch=epoch))
        assert set(counts) == {(task, row) for task, size in SIZES.items() for row in range(size)}
        assert set(counts.values()) == {1}


@pytest.mark.parametrize("kind", ["proportional", "equal", "temperature"])
@pytest.mark.parametrize("seed", [0, 1])
def test_over_epochs_every_row_of_a_task_is_used_equally_often(kind: str, seed: int) -> None:
    total: Counter[tuple[str, int]] = Counter()
    for epoch in range(7):
        total += drawn(plan(kind=kind, seed=seed, epoch=epoch))
        for task, size in SIZES.items():
            uses = [total[task, row] for row in range(size)]
            assert max(uses) - min(uses) <= 1
    assert sum(total.values()) == 7 * sum(SIZES.values())


def test_draws_follow_the_rates_to_less_than_one_row() -> None:
    for kind in ("equal", "temperature"):
        found = Counter(task for batch in plan(kind=kind) for task, _ in batch)
        for task, rate in rates(SIZES, kind=kind).items():
            assert abs(found[task] - rate * sum(SIZES.values())) < 1


def test_largest_remainders_get_the_rows_left_over() -> None:
    sizes = {"a": 4, "b": 3, "c": 3}
    batches = plan_epoch(sizes, {"a": 0.46, "b": 0.38, "c": 0.16}, lengths_of(sizes), 4, 0, 0)
    # Quotas 4.6, 3.8, 1.6: b's remainder is largest; a comes before c among equals.
    assert Counter(task for batch in batches for task, _ in batch) == {"a": 5, "b": 4, "c": 1}


def test_a_maximum_limits_the_epoch() -> None:
    batches = plan(limit=50, maximum=50)
    assert Counter(task for batch in batches for task, _ in batch) == {"big": 50, "middle": 50, "small": 11}
    uses: Counter[tuple[str, int]] = Counter()
    for epoch in range(14):
        uses += drawn(plan(limit=50, maximum=50, epoch=epoch))
    # 14 epochs of 50 draws pass over the 700 rows exactly once.
    assert {uses["big", row] for row in range(700)} == {1}


@pytest.mark.parametrize(("size", "batch_size"), [(1, 8), (8, 8), (9, 8), (801, 8), (1000, 7), (5, 1)])
def test_only_the_last_batch_may_be_smaller(size: int, batch_size: int) -> None:
    batches = plan({"a": size}, batch_size=batch_size)
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= batch_size
    assert sum(map(len, batches)) == size


def test_an_epoch_needs_neither_the_earlier_ones_nor_luck() -> None:
    in_order = [plan(kind="equal", epoch=epoch) for epoch in range(4)]
    assert [plan(kind="equal", epoch=epoch) for epoch in (3, 1, 2, 0)] == [in_order[3], in_order[1], in_order[2], in_order[0]]
    assert in_order[0] != in_order[1]
    assert plan(kind="equal", seed=1) != in_order[0]


def test_a_task_goes_on_where_its_last_epoch_stopped() -> None:
    sizes = {"a": 10, "b": 10}
    third = {"a": 0.25, "b": 0.75}
    rows: list[int] = []
    for epoch in range(2):
        batches = plan_epoch(sizes, third, lengths_of(sizes), 4, 0, epoch)
        rows += [row for batch in batches for task, row in batch if task == "a"]
    assert len(rows) == len(set(rows)) == 10


def test_a_plan_is_the_same_in_every_process() -> None:
    code = (
        "from alter.tasks.mixture import plan_epoch\n"
        "sizes = {'a': 40, 'b': 30}\n"
        "print(plan_epoch(sizes, {'a': 0.5, 'b': 0.5}, {t: list(range(n)) for t, n in sizes.items()}, 8, 3, 2))"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": number}
        ).stdout
        for number in ("1", "2")
    }
    assert len(seen) == 1
    sizes = {"a": 40, "b": 30}
    here = plan_epoch(sizes, {"a": 0.5, "b": 0.5}, {task: list(range(size)) for task, size in sizes.items()}, 8, 3, 2)
    assert seen == {f"{here}\n"}


def padding(batches: list[list[tuple[str, int]]], lengths: dict[str, list[int]]) -> float:
    padded = sum(max(lengths[task][row] for task, row in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths[task][row] for batch in batches for task, row in batch) / padded


def test_batches_of_similar_length_save_padding() -> None:
    lengths = lengths_of(SIZES)
    batches = plan()
    draws = [draw for batch in batches for draw in batch]
    random.Random(0).shuffle(draws)
    unsorted = [draws[start : start + 8] for start in range(0, len(draws), 8)]
    assert padding(batches, lengths) < 0.1
    assert padding(unsorted, lengths) > 0.3


def test_batches_mix_tasks_and_do_not_come_in_order_of_length() -> None:
    sizes = {"a": 400, "b": 400}
    lengths = lengths_of(sizes)
    batches = plan(sizes)
    assert sum(len({task for task, _ in batch}) == 2 for batch in batches) > 0.9 * len(batches)
    longest = [max(lengths[task][row] for task, row in batch) for batch in batches]
    assert longest != sorted(longest)
    rising = sum(first < second for first, second in pairwise(longest)) / (len(longest) - 1)
    assert 0.3 < rising < 0.7


def test_sorting_stays_within_a_window() -> None:
    # With windows, the longest batches of an epoch come from several windows and so differ in their longest row.
    sizes = {"a": 8 * WINDOW_BATCHES * 3}
    lengths = {"a": list(range(sizes["a"]))}
    batches = plan_epoch(sizes, {"a": 1.0}, lengths, 8, 0, 0)
    spans = [max(row for _, row in batch) - min(row for _, row in batch) for batch in batches]
    assert min(spans) >= 7
    assert sum(spans) / len(spans) > 12


def test_the_smaller_last_batch_is_not_the_longest_rows() -> None:
    sizes = {"a": 403}
    lengths = {"a": list(range(403))}
    lasts = [plan_epoch(sizes, {"a": 1.0}, lengths, 8, 0, epoch)[-1] for epoch in range(20)]
    assert {len(last) for last in lasts} == {3}
    rows = [row for last in lasts for _, row in last]
    assert 120 < sum(rows) / len(rows) < 280


def test_a_task_that_would_never_be_drawn_is_told() -> None:
    sizes = {"a": 10, "b": 10}
    with pytest.raises(ConfigError) as caught:
        plan_epoch(sizes, {"a": 0.999, "b": 0.001}, lengths_of(sizes), 4, 0, 0)
    assert str(caught.value) == (
        "task 'b' would never be drawn: its mixing rate is 0.001, and an epoch has 20 rows; "
        "raise the task's weight, or choose another mixture.kind"
    )


@pytest.mark.parametrize("kind", ["proportional", "equal", "temperature"])
@pytest.mark.parametrize("seed", range(10))
def test_no_other_mixture_leaves_a_task_out(kind: str, seed: int) -> None:
    generator = random.Random(seed)
    sizes = {f"t{number}": generator.choice([1, 2, 3, 500]) for number in range(30)}
    batches = plan_epoch(sizes, rates(sizes, kind=kind), lengths_of(sizes), 16, seed, 0)
    assert {task for batch in batches for task, _ in batch} == set(sizes)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"batch_size": 0}, ConfigError, "batch_size is 0; it must be at least 1"),
        ({"epoch": -1}, ConfigError, "epoch is -1; epochs count from 0"),
        ({"sizes": {}}, TaskError, "needs at least one task"),
        ({"rates": {"b": 1.0}}, TaskError, r"rates name the tasks \['b'\], sizes \['a'\]; give both the same tasks"),
        ({"rates": {"a": 0.5}}, ConfigError, "mixing rates sum to 0.5; they must sum to 1"),
        ({"lengths": {"a": [1]}}, TaskError, "task 'a' has 2 rows and 1 lengths; give one length per row"),
        ({"lengths": {}}, TaskError, "task 'a' has 2 rows and 0 lengths"),
    ],
)
def test_wrong_arguments_are_told(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"sizes": {"a": 2}, "rates": {"a": 1.0}, "lengths": {"a": [1, 2]}, "batch_size": 1}
    with pytest.raises(error, match=message):
        plan_epoch(**{**arguments, "seed": 0, "epoch": 0, **change})
