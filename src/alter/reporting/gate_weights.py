"""Arithmetic on gate weights: means over seeds, who is borrowed from, how alike two tasks' weights are.

Shapes: T tasks, L sites, E adapters.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alter.reporting.run_folder import GateMap, RunFolder

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Gate weights of one stage, of as many seeds as have them.

    Attributes:
        tasks: names.
        adapters: names; task adapters first.
        sites: positions in the backbone.
        by_seed: (T, L, E) of each seed.
        num_shared: how many of the adapters, the last ones, are shared.
    """

    tasks: Sequence[str]
    adapters: Sequence[str]
    sites: Sequence[int]
    by_seed: Sequence[Floats]
    num_shared: int

    @property
    def mean_TLE(self) -> Floats:
        """Mean over seeds."""
        found: Floats = np.mean(self.by_seed, axis=0)
        return found

    @property
    def owned_T(self) -> list[int]:
        """Each task's own adapter: task t owns adapter t modulo their number."""
        return [task % (len(self.adapters) - self.num_shared) for task in range(len(self.tasks))]


def stage_weights(runs: Sequence[RunFolder]) -> dict[str, Weights]:
    """Return the weights of each stage; runs whose tasks, adapters or sites are not the first one's are left out."""
    maps = [run.gates for run in runs if run.gates is not None and run.gates.sites and run.gates.adapters]
    same = [one for one in maps if (one.tasks, one.adapters, one.sites) == (maps[0].tasks, maps[0].adapters, maps[0].sites)]
    stages = dict.fromkeys(stage for one in same for stage in one.stages)
    return {stage: _weights(stage, [one for one in same if stage in one.stages]) for stage in sorted(stages)}


def _weights(stage: str, maps: Sequence[GateMap]) -> Weights:
    first = maps[0]
    # A number that is none weighs nothing: a map is to be looked at even where a part of it broke.
    by_seed = [np.nan_to_num(np.array(one.stages[stage], dtype=np.float64)) for one in maps]
    return Weights(tasks=first.tasks, adapters=first.adapters, sites=first.sites, by_seed=by_seed, num_shared=_num_shared(first))


def _num_shared(gates: GateMap) -> int:
    """Return how many adapters are shared: those behind one per task, or behind adapter-0, adapter-1 and so on."""
    if gates.adapters[: len(gates.tasks)] == gates.tasks:
        return len(gates.adapters) - len(gates.tasks)
    return sum(re.fullmatch(r"adapter-\d+", name) is None for name in gates.adapters)


def shares(weights_TLE: Floats, weights: Weights) -> Floats:
    """Return which share of each task's weight lies on its own adapter, on those of other tasks, and on shared ones, (T, 3).

    Weights are added up over sites; a task without any has shares of 0.
    """
    total_TE = weights_TLE.sum(1)
    num_owned = total_TE.shape[1] - weights.num_shared
    own_T = total_TE[np.arange(len(weights.tasks)), weights.owned_T]
    all_T, shared_T = total_TE.sum(1), total_TE[:, num_owned:].sum(1)
    parts_T3 = np.stack([own_T, all_T - own_T - shared_T, shared_T], axis=1)
    found: Floats = np.divide(parts_T3, all_T[:, None], out=np.zeros_like(parts_T3), where=all_T[:, None] > 0)
    return found.clip(min=0)


def lenders(weights: Weights) -> list[tuple[str, float] | None]:
    """Return the task adapter that each task borrows most from, and its share of the task's weight; None where it borrows nothing."""
    total_TE = weights.mean_TLE.sum(1)
    found: list[tuple[str, float] | None] = []
    for task, own in enumerate(weights.owned_T):
        others_E = total_TE[task, : len(weights.adapters) - weights.num_shared].copy()
        others_E[own] = 0
        most, whole = int(others_E.argmax()), float(total_TE[task].sum())
        share = float(others_E[most]) / whole if whole else 0.0
        found.append((weights.adapters[most], share) if share >= 0.0005 else None)
    return found


def affinity(weights_TLE: Floats) -> Floats:
    """Return the cosine similarity of tasks' weights over all sites and adapters, (T, T).

    s_tu = w_t . w_u / (|w_t| |w_u|),  w_t the L E weights of task t in one row
    """
    flat_TX = weights_TLE.reshape(weights_TLE.shape[0], -1)
    norm_T = np.linalg.norm(flat_TX, axis=1, keepdims=True)
    unit_TX = np.divide(flat_TX, norm_T, out=np.zeros_like(flat_TX), where=norm_T > 0)
    found: Floats = (unit_TX @ unit_TX.T).clip(-1, 1)
    np.fill_diagonal(found, 1.0)
    return found


def is_apart(affinity_TT: Floats) -> bool:
    """Whether no two tasks share any weight, as with one-hot weights: their affinity says nothing then."""
    off_TT = affinity_TT - np.diag(affinity_TT.diagonal())
    return bool((np.abs(off_TT) < 1e-6).all())


@dataclass(frozen=True, kw_only=True)
class Clusters:
    """A tree over tasks.

    Attributes:
        order: tasks from top to bottom, so that no branches cross.
        branches: each merge as four points (height, place), in scipy's coordinates: leaf i stands at 10 i + 5.
        first: the two leaves or groups that join first, as task positions, and at what height.
    """

    order: list[int]
    branches: list[tuple[list[float], list[float]]]
    first: tuple[int, int]
    height: float


def clusters(affinity_TT: Floats) -> Clusters:
    """Join tasks by average linkage on the distance 1 - similarity; needs at least two tasks."""
    from scipy.cluster.hierarchy import dendrogram, linkage
    from scipy.spatial.distance import squareform

    distance_TT = np.maximum(0.0, 1 - (affinity_TT + affinity_TT.T) / 2)
    np.fill_diagonal(distance_TT, 0.0)
    joined = linkage(squareform(distance_TT, checks=False), method="average")
    drawn = dendrogram(joined, no_plot=True)
    branches = [(list(map(float, d)), list(map(float, i))) for d, i in zip(drawn["dcoord"], drawn["icoord"], strict=True)]
    # The first merge is always of two leaves.
    first = (int(joined[0][0]), int(joined[0][1]))
    return Clusters(order=[int(leaf) for leaf in drawn["leaves"]], branches=branches, first=first, height=float(joined[0][2]))
