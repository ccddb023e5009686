"""How often each task is drawn, and the batches of an epoch.

    rate_i = min(n_i, maximum)^(1 / T) / sum_j min(n_j, maximum)^(1 / T)

T = 1 is proportional, a large T comes near equal (Raffel et al. 2020, arXiv 1910.10683, section 3.5.2; Karimi Mahabadi et al.
2021, arXiv 2106.04489). Where we differ: rows are not drawn with replacement. A task's draws walk through seeded permutations of
its rows and go on in the next epoch where the last one stopped, so that over epochs every row of a task is used equally often.
Everything follows from (seed, epoch): an epoch is planned without the earlier ones, which makes a run resumable.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from alter.errors import ConfigError, TaskError, counted

if TYPE_CHECKING:
    from alter.recipe import MixtureSettings

Draw = tuple[str, int]
WINDOW_BATCHES = 50


def mixing_rates(sizes: Mapping[str, int], mixture: MixtureSettings, weights: Mapping[str, float | None]) -> dict[str, float]:
    """Return each task's share of the draws; the shares sum to 1.

    Args:
        sizes: task -> number of training rows.
        mixture: how rates follow from sizes.
        weights: task -> the task's `weight`; read where the mixture's kind is `weights`.

    Raises:
        TaskError: there is no task, or a task has no rows.
        ConfigError: the mixture's kind is `weights` and a task has none.
    """
    _check_sizes(sizes)
    shares = {task: _share(task, size, mixture, weights) for task, size in sizes.items()}
    total = sum(shares.values())
    return {task: share / total for task, share in shares.items()}


def _share(task: str, size: int, mixture: MixtureSettings, weights: Mapping[str, float | None]) -> float:
    if mixture.kind == "equal":
        return 1.0
    if mixture.kind == "weights":
        weight = weights.get(task)
        if weight is None or weight <= 0:
            raise ConfigError(f"task '{task}': mixture.kind is weights, and its weight is {weight}; set a weight above 0")
        return weight
    limited = float(_limited(size, mixture.maximum))
    return limited if mixture.kind == "proportional" else limited ** (1.0 / mixture.temperature)


def plan_epoch(
    sizes: Mapping[str, int],
    rates: Mapping[str, float],
    lengths: Mapping[str, Sequence[int]],
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    maximum: int | None = None,
) -> list[list[Draw]]:
    """Return the batches of one epoch as (task, row) pairs; only the last batch may be smaller than `batch_size`.

    Args:
        sizes: task -> number of rows.
        rates: task -> share of the draws, from `mixing_rates`.
        lengths: task -> token length of each row; rows of similar length share a batch, which saves padding.
        batch_size: rows per batch.
        seed: of everything random.
        epoch: counted from 0.
        maximum: a task counts as at most this large in the size of the epoch, which is the sum of sizes.

    Raises:
        TaskError: there is no task, a task has no rows, or its lengths are not those of its rows.
        ConfigError: the batch size or epoch is out of range, or a rate is so small that the task would never be drawn.
    """
    _check_plan(sizes, rates, lengths, batch_size, epoch)
    num_draws = _num_draws(rates, sum(_limited(size, maximum) for size in sizes.values()))
    draws = [
        (task, row) for task, count in num_draws.items() for row in _rows_from(task, sizes[task], count * epoch, count, seed=seed)
    ]
    generator = random.Random(f"{seed}:epoch:{epoch}")
    generator.shuffle(draws)
    # The rows left over are random ones, cut off before sorting: sorted first, they would always be the longest.
    num_full = len(draws) - len(draws) % batch_size
    batches: list[list[Draw]] = []
    for start in range(0, num_full, WINDOW_BATCHES * batch_size):
        window = draws[start : min(start + WINDOW_BATCHES * batch_size, num_full)]
        window.sort(key=lambda draw: lengths[draw[0]][draw[1]])
        batches.extend(window[first : first + batch_size] for first in range(0, len(window), batch_size))
    generator.shuffle(batches)
    return batches + ([draws[num_full:]] if num_full < len(draws) else [])


def _limited(size: int, maximum: int | None) -> int:
    return size if maximum is None else min(size, maximum)


def _num_draws(rates: Mapping[str, float], total: int) -> dict[str, int]:
    """Share out `total` draws by largest remainder; ties go to the task named first."""
    quotas = {task: rate * total for task, rate in rates.items()}
    counts = {task: int(quota) for task, quota in quotas.items()}
    by_remainder = sorted(rates, key=lambda task: counts[task] - quotas[task])
    for task in by_remainder[: total - sum(counts.values())]:
        counts[task] += 1
    never = next((task for task, count in counts.items() if count < 1), None)
    if never is not None:
        raise ConfigError(
            f"task '{never}' would never be drawn: its mixing rate is {rates[never]:.3g}, and an epoch has {counted(total, 'row')}; "
            f"raise the task's weight, or choose another mixture.kind"
        )
    return counts


def _rows_from(task: str, size: int, start: int, count: int, *, seed: int) -> list[int]:
    """Return `count` rows from position `start` of an endless stream of permutations of a task's rows."""
    rows: list[int] = []
    position = start
    while len(rows) < count:
        passed, offset = divmod(position, size)
        order = list(range(size))
        # A text as seed does not depend on PYTHONHASHSEED.
        random.Random(f"{seed}:{task}:{passed}").shuffle(order)
        taken = order[offset : offset + count - len(rows)]
        rows.extend(taken)
        position += len(taken)
    return rows


def _check_sizes(sizes: Mapping[str, int]) -> None:
    if not sizes:
        raise TaskError("a mixture needs at least one task, and there is none; add tasks")
    empty = [task for task, size in sizes.items() if size < 1]
    if empty:
        raise TaskError(f"tasks {empty} have no training rows; add rows or remove the tasks")


def _check_plan(
    sizes: Mapping[str, int], rates: Mapping[str, float], lengths: Mapping[str, Sequence[int]], batch_size: int, epoch: int
) -> None:
    _check_sizes(sizes)
    if batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1")
    if epoch < 0:
        raise ConfigError(f"epoch is {epoch}; epochs count from 0")
    if rates.keys() != sizes.keys():
        raise TaskError(f"rates name the tasks {sorted(rates)}, sizes {sorted(sizes)}; give both the same tasks")
    if abs(sum(rates.values()) - 1.0) > 1e-6:
        raise ConfigError(f"mixing rates sum to {sum(rates.values()):.6g}; they must sum to 1")
    for task, size in sizes.items():
        if len(lengths.get(task, ())) != size:
            raise TaskError(f"task '{task}' has {size} rows and {len(lengths.get(task, ()))} lengths; give one length per row")
