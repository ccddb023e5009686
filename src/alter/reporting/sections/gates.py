"""Gate maps: which adapters a task borrows from, at each site and stage.

Shapes: T tasks, L sites, E adapters.
"""

from __future__ import annotations

from collections.abc import Sequence

from alter.reporting.arms import METHOD_FAMILIES, Arm, Part, spread
from alter.reporting.blocks import Block, Cell, Figures, Fold, Heatmap, Table
from alter.reporting.gate_weights import Floats, Weights, lenders, shares, stage_weights
from alter.reporting.sections._piece import Piece
from alter.reporting.words import NONE, capital, listed, number, percent, plain, spread_text, stage_name

TITLE = "Gate maps"
KINDS = ("own adapter", "other tasks' adapters", "shared adapters")


def piece(part: Part) -> Piece:
    """Show the weights of every arm that has gates."""
    if part.is_bare:
        return Piece(reading=())
    found = [arm for arm in part.arms if arm.family in (*METHOD_FAMILIES, "run") and stage_weights(arm.runs)]
    named = len(part.arms) > 1
    reading = [sentence for arm in part.close if arm in found for sentence in _reading(arm, named=named)]
    reading += [f"{arm.name}: {why_without(arm)}" for arm in part.close if arm not in found]
    if not named:
        return Piece(reading=reading, blocks=_arm_blocks(found[0]) if found else ())
    ordered = [arm for arm in found if arm.is_close] + [arm for arm in found if not arm.is_close]
    return Piece(
        reading=reading or ["No arm has gate weights."],
        blocks=[Fold(title=arm.name, blocks=_arm_blocks(arm), is_open=arm.is_close) for arm in ordered],
    )


def why_without(arm: Arm) -> str:
    """Say why an arm has no gate map."""
    if not arm.runs:
        return "there is no run directory, so no gate weights."
    if all(run.gates is None for run in arm.runs):
        return "there is no gates.json: its run is of an earlier version of alter, and a new run writes it."
    return "the model has no site with adapters, so there are no gate weights."


def _reading(arm: Arm, *, named: bool) -> list[str]:
    sentences = []
    for stage, weights in stage_weights(arm.runs).items():
        own, others, shared = shares(weights.mean_TLE, weights).mean(0).tolist()
        of = f"{arm.name}, {stage_name(stage)}" if named else stage_name(stage).capitalize()
        places = [f"{percent(own)} lies on its own adapter", f"{percent(others)} on those of other tasks"]
        places += [f"{percent(shared)} on shared ones"] if weights.num_shared else []
        sentences.append(f"{of}: of a task's weight {listed(places)} (mean over tasks); {_most(weights)}.")
    return sentences


def _most(weights: Weights) -> str:
    lent = [
        (share, task, lender)
        for task, found in zip(weights.tasks, lenders(weights), strict=True)
        if found
        for lender, share in [found]
    ]
    if not lent:
        return "no task borrows from another task's adapter"
    share, task, lender = max(lent)
    return f"{task} borrows most from another task's adapter, {percent(share, 1)} of its weight from {lender}"


def _arm_blocks(arm: Arm) -> list[Block]:
    by_stage = stage_weights(arm.runs)
    blocks: list[Block] = []
    maps = [
        _map(weights, weights.mean_TLE.mean(1), f"{capital(stage_name(stage))}, mean over sites")
        for stage, weights in by_stage.items()
    ]
    blocks.append(
        Figures(
            caption=f"Weight that a task (row) gives an adapter (column){_over(by_stage)}; blank is 0, full colour 1.",
            figures=maps,
        )
    )
    blocks += [_table(stage, weights) for stage, weights in by_stage.items()]
    if arm.is_close:
        blocks += [_sites(stage, weights) for stage, weights in by_stage.items() if len(weights.sites) > 1]
    return blocks


def _over(by_stage: dict[str, Weights]) -> str:
    most = max(len(weights.by_seed) for weights in by_stage.values())
    return f", mean over {most} seeds" if most > 1 else ""


def _map(weights: Weights, weights_TE: Floats, title: str, *, is_small: bool = False) -> Heatmap:
    top = [f"{task} {adapter_of(weights, row)}" for task, row in zip(weights.tasks, weights_TE, strict=True)]
    return Heatmap(
        title=title,
        alt=f"{title}: each task's largest weight: {'; '.join(top)}.",
        rows=weights.tasks,
        columns=weights.adapters,
        values=weights_TE.tolist(),
        row_label="task",
        column_label="adapter",
        is_small=is_small,
    )


def adapter_of(weights: Weights, row_E: Floats) -> str:
    """Name a task's largest weight."""
    return f"{weights.adapters[int(row_E.argmax())]} {number(float(row_E.max()), 2)}"


def _sites(stage: str, weights: Weights) -> Fold:
    means_TLE = weights.mean_TLE
    maps = [
        _map(weights, means_TLE[:, position], f"site {site}", is_small=len(weights.sites) > 2)
        for position, site in enumerate(weights.sites)
    ]
    caption = "Sites are counted from the input. Rows are tasks and columns adapters, in the order of the map above."
    title = f"{capital(stage_name(stage))}, site by site"
    return Fold(title=title, reading=[_differs(weights)], blocks=[Figures(caption=caption, figures=maps)], is_open=True)


def _differs(weights: Weights) -> str:
    """Say where along the backbone tasks keep most to themselves."""
    own_L = [float(shares(weights.mean_TLE[:, [site]], weights)[:, 0].mean()) for site in range(len(weights.sites))]
    most, least = max(own_L), min(own_L)
    if percent(most) == percent(least):
        return f"All sites weigh alike: {percent(most)} on the own adapter."
    return (
        f"Tasks keep most to their own adapter at site {weights.sites[own_L.index(most)]} ({percent(most)}) and least at site "
        f"{weights.sites[own_L.index(least)]} ({percent(least)})."
    )


def _table(stage: str, weights: Weights) -> Table:
    by_seed = [100 * shares(weights_TLE, weights) for weights_TLE in weights.by_seed]
    rows = []
    for task, (name, lender) in enumerate(zip(weights.tasks, lenders(weights), strict=True)):
        rows.append([Cell(name), *_share_cells([found[task] for found in by_seed]), _lender_cell(lender)])
    rows.append([Cell("mean"), *_share_cells([found.mean(0) for found in by_seed]), Cell("")])
    caption = f"{capital(stage_name(stage))}: share of each task's weight, in percent"
    return Table(caption=caption, columns=["task", *KINDS, "borrows most from"], rows=rows)


def _share_cells(rows: Sequence[Floats]) -> list[Cell]:
    spreads = [spread(float(row[kind]) for row in rows) for kind in range(len(KINDS))]
    return [Cell(spread_text(one), {"mean": plain(one.mean), "sd": plain(one.sd), "seeds": one.seeds}) for one in spreads]


def _lender_cell(lender: tuple[str, float] | None) -> Cell:
    if lender is None:
        return Cell(NONE)
    return Cell(f"{lender[0]} ({number(100 * lender[1])})", {"adapter": lender[0], "percent": 100 * lender[1]})
