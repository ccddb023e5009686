"""Scores of tasks beside those of baselines, over seeds, for each split."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from alter.comparison import Spread, Summary
from alter.errors import counted
from alter.reporting.arms import Column, Part
from alter.reporting.blocks import Block, Cell, Note, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.sections._released import PRECISION, has_both, is_rounded, stages_table
from alter.reporting.sections._remarks import remarks
from alter.reporting.sections._standing import columns_of, least_seeds, seeds_differ, standing
from alter.reporting.words import number, spread_cell

TITLE = "Scores"
WIDE = 7
"""With more columns than this, arms become rows: a page is longer than it is wide."""
GAINS = "delta_m compares each arm with single-full on the arm's own seeds, and not with arms that have other seeds."
Row = tuple[str, Callable[[Summary], Spread | None], bool]


def piece(part: Part) -> Piece:
    """Show the scores of a part."""
    if not part.splits:
        return Piece(reading=["No split was scored: there were neither validation nor test rows."])
    blocks: list[Block] = []
    for split in part.splits:
        blocks.append(_table(part, split, columns_of(part, split), least=least_seeds(part, split)))
    stages = stages_table(part)
    if stages is not None:
        blocks.append(stages)
        blocks += (
            [Note(PRECISION)] if any(is_rounded(member) for arm in part.arms if has_both(arm) for member in arm.members) else []
        )
    blocks += (
        [Note(GAINS)]
        if any(_has_gains(part, split) and seeds_differ(columns_of(part, split), split) for split in part.splits)
        else []
    )
    return Piece(reading=standing(part, part.splits[0]), blocks=[*blocks, *remarks(part)])


def _has_gains(part: Part, split: str) -> bool:
    return any(column.splits[split].delta_m is not None for column in columns_of(part, split))


def _table(part: Part, split: str, columns: Sequence[Column], *, least: int) -> Table:
    """Return a table with arms as columns, the average below; of many arms one with arms as rows, the average first."""
    tasks: list[Row] = [(task, _of_task(task), False) for task in part.tasks]
    over: list[Row] = [("average", lambda summary: summary.average, False)]
    if _has_gains(part, split):
        over.append(("delta_m", lambda summary: summary.delta_m, True))
    if any(column.splits[split].small is not None for column in columns):
        over.append((f"average of tasks below {part.small_below:,} training rows", lambda summary: summary.small, False))
    is_wide = len(columns) > WIDE
    rows = [*over, *tasks] if is_wide else [*tasks, *over]
    able = [column.splits[split].average.seeds >= least for column in columns]
    grid = [_cells([take(column.splits[split]) for column in columns], able, signed=signed) for _, take, signed in rows]
    names, heads = [name for name, _, _ in rows], [column.name for column in columns]
    if part.is_comparison or seeds_differ(columns, split):
        names, grid = _with_seeds(names, grid, [_seeds_cell(column.seeds.get(split, ())) for column in columns], first=is_wide)
    caption = _caption(columns, split, least if not all(able) else 0)
    if not is_wide:
        table = [[Cell(name), *cells] for name, cells in zip(names, grid, strict=True)]
        return Table(caption=caption, columns=["task", *heads], rows=table)
    turned = [[Cell(head), *(cells[position] for cells in grid)] for position, head in enumerate(heads)]
    return Table(caption=caption, columns=["arm", *names], rows=turned)


def _with_seeds(
    names: Sequence[str], grid: Sequence[list[Cell]], seeds: list[Cell], *, first: bool
) -> tuple[list[str], list[list[Cell]]]:
    """Add the seeds of each arm: averages of other seeds do not compare."""
    return (["seeds", *names], [seeds, *grid]) if first else ([*names, "seeds"], [*grid, seeds])


def _seeds_cell(seeds: Sequence[int]) -> Cell:
    return Cell(", ".join(map(str, seeds)), list(seeds))


def _of_task(task: str) -> Callable[[Summary], Spread | None]:
    return lambda summary: summary.tasks.get(task)


def _cells(spreads: Sequence[Spread | None], able: Sequence[bool], *, signed: bool) -> list[Cell]:
    """Return one line of scores; of those that may be the best every one that reads like it is marked, if they are not all alike."""
    shown = [
        number(one.mean) if may and one is not None and math.isfinite(one.mean) else None
        for one, may in zip(spreads, able, strict=True)
    ]
    means = [one.mean for one, text in zip(spreads, shown, strict=True) if one is not None and text is not None]
    best = number(max(means)) if means and len(set(shown) - {None}) > 1 else None
    return [
        spread_cell(one, is_best=best is not None and text == best, signed=signed)
        for one, text in zip(spreads, shown, strict=True)
    ]


def _caption(columns: Sequence[Column], split: str, least: int) -> str:
    """Return a caption; `least` is how many seeds it takes to be the best, where some have fewer."""
    most = max(column.splits[split].average.seeds for column in columns)
    over = f", mean and standard deviation over up to {most} seeds" if most > 1 else ""
    among = f" of those with {counted(least, 'seed')} or more" if least else ""
    best = f"; the best{among} in bold" if len(columns) > 1 else ""
    return f"Scores on {split} rows, in percent{over}{best}"
