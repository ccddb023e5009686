"""Task affinity: whose gate weights are alike, as a matrix and a tree."""

from __future__ import annotations

from collections.abc import Sequence

from alter.reporting.arms import Part
from alter.reporting.blocks import MOST_NUMBERS, Block, Cell, Figure, Figures, Fold, Heatmap, Table, Tree
from alter.reporting.gate_weights import Clusters, Floats, Weights, affinity, clusters, is_apart, stage_weights
from alter.reporting.sections._piece import Piece
from alter.reporting.sections.gates import why_without
from alter.reporting.words import number, number_cell, stage_name

TITLE = "Task affinity"
LEAST_FOR_A_TREE = 3
LEAST_SPREAD = 0.02
"""Affinities nearer to each other than this have no order worth a word."""
HOW = (
    "Affinity is the cosine similarity of two tasks' gate weights, taken over all sites and adapters: 1 where both weigh alike, 0 where "
    "they share no adapter."
)


def piece(part: Part) -> Piece:
    """Show how alike tasks are weighed, in the arms that are looked at closely."""
    if part.is_bare:
        return Piece(reading=())
    named = len(part.arms) > 1
    reading: list[str] = []
    folds: list[Block] = []
    for arm in part.close:
        by_stage = stage_weights(arm.runs)
        if not by_stage:
            reading.append(f"{arm.name}: {why_without(arm)}")
        for stage, weights in by_stage.items():
            sentence, blocks = _stage(weights)
            of = f"{arm.name}, {stage_name(stage)}" if named else stage_name(stage).capitalize()
            reading.append(f"{of}: {sentence}")
            if blocks:
                folds.append(Fold(title=of, blocks=blocks, is_open=True))
    return Piece(
        reading=[HOW, *reading] if any(arm.runs and stage_weights(arm.runs) for arm in part.close) else reading, blocks=folds
    )


def _stage(weights: Weights) -> tuple[str, list[Block]]:
    """Return a stage's sentence, and its figures where there is anything to see."""
    if len(weights.tasks) < 2:
        return "there is one task, so there is nothing to compare.", []
    found_TT = affinity(weights.mean_TLE)
    if is_apart(found_TT):
        return "no two tasks share any adapter (each weighs its own alone), so all affinities are trivially 0.", []
    tree = clusters(found_TT)
    return _sentence(weights, found_TT), _blocks(weights, found_TT, tree)


def _sentence(weights: Weights, found_TT: Floats) -> str:
    pairs = [(float(found_TT[i, j]), weights.tasks[i], weights.tasks[j]) for i in range(len(found_TT)) for j in range(i)]
    high, one, other = max(pairs)
    if len(pairs) == 1:
        return f"{other} and {one} have an affinity of {number(high, 2)}."
    low, far, farther = min(pairs)
    if high - low < LEAST_SPREAD:
        return f"all tasks are about as alike ({number(low, 2)} to {number(high, 2)}), so the tree says little."
    return f"{other} and {one} are most alike ({number(high, 2)}), {farther} and {far} least ({number(low, 2)})."


def _blocks(weights: Weights, found_TT: Floats, tree: Clusters) -> list[Block]:
    names = [weights.tasks[position] for position in tree.order]
    ordered_TT = found_TT[tree.order][:, tree.order]
    alt = f"Affinity of {len(names)} tasks: {_sentence(weights, found_TT)}"
    figures: list[Figure] = [
        Heatmap(
            title="Affinity",
            alt=alt,
            rows=names,
            columns=names,
            values=ordered_TT.tolist(),
            row_label="task",
            column_label="task",
        )
    ]
    if len(names) >= LEAST_FOR_A_TREE:
        first = [weights.tasks[position] for position in tree.first]
        said = f"Tree over {', '.join(names)}: {first[0]} and {first[1]} join first, at {number(tree.height, 2)}."
        figures.append(
            Tree(title="Tree by average linkage", alt=said, leaves=names, branches=tree.branches, label="distance, 1 - affinity")
        )
    caption = "Tasks are in the order of the tree; where branches meet is the mean distance of the tasks that they join."
    return [Figures(caption=caption, figures=figures), _table(names, ordered_TT)] if len(names) > MOST_NUMBERS else [
        Figures(caption=caption, figures=figures)
    ]  # fmt: skip


def _table(names: Sequence[str], found_TT: Floats) -> Table:
    """Return the matrix in numbers: its cells are too small for them where there are many tasks."""
    rows = [[Cell(name), *(number_cell(float(value), 2) for value in row)] for name, row in zip(names, found_TT, strict=True)]
    return Table(caption="Affinity", columns=["task", *names], rows=rows)
