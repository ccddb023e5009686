"""The budget: parameters, steps, time, memory, bytes on disk."""

from __future__ import annotations

from alter.comparison import Budget
from alter.reporting.arms import Arm, Part
from alter.reporting.blocks import Block, Cell, Note, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import NONE, bytes_text, count_text, number, percent, seconds_text

TITLE = "Budget"
COLUMNS = (
    "trained parameters",
    "all parameters",
    "steps",
    "time",
    "relative time",
    "peak memory",
    "stored",
    "stage 2's share of time",
)


def piece(part: Part) -> Piece:
    """Show what each arm cost, on average over seeds."""
    found = [(arm, arm.budget) for arm in part.arms if arm.members]
    known = [(arm, budget) for arm, budget in found if budget != Budget()]
    if not known:
        return Piece(reading=["No arm's budget was written down."])
    reading = [sentence for arm, budget in known if arm.is_close for sentence in _reading(arm, budget, part)]
    caption = (
        "Cost of each arm, mean over seeds" if part.is_comparison else "Cost of each run, mean over seeds of the same settings"
    )
    table = Table(caption=caption, columns=["arm", *COLUMNS], rows=[_row(arm, budget) for arm, budget in known])
    blocks: list[Block] = [table, Note(_how(part))]
    return Piece(reading=reading or [f"{len(known)} arms have a budget."], blocks=blocks)


def _row(arm: Arm, budget: Budget) -> list[Cell]:
    share = budget.stage2_share
    return [
        Cell(arm.name),
        Cell(count_text(budget.trainable_parameters), budget.trainable_parameters),
        Cell(count_text(budget.total_parameters), budget.total_parameters),
        Cell(NONE if budget.steps is None else f"{budget.steps:,}", budget.steps),
        Cell(seconds_text(budget.seconds), budget.seconds),
        Cell(number(budget.relative_time, 2), budget.relative_time),
        Cell(bytes_text(budget.peak_memory_bytes), budget.peak_memory_bytes),
        Cell(bytes_text(budget.stored_bytes), budget.stored_bytes),
        Cell(percent(share), share),
    ]


def _reading(arm: Arm, budget: Budget, part: Part) -> list[str]:
    said = []
    if budget.trainable_parameters is not None and budget.total_parameters:
        share = budget.trainable_parameters / budget.total_parameters
        said.append(
            f"trains {count_text(budget.trainable_parameters)} of {count_text(budget.total_parameters)} parameters "
            f"({percent(share, 0 if share >= 0.1 else 1)})"
        )
    if budget.relative_time is not None:
        said.append(f"takes {number(budget.relative_time, 2)} times the time of multi-full")
    elif budget.seconds is not None:
        said.append(f"took {seconds_text(budget.seconds)}")
    if budget.stage2_share is not None:
        said.append(f"{percent(budget.stage2_share)} of it for stage 2")
    if budget.stored_bytes is not None:
        said.append(f"takes {bytes_text(budget.stored_bytes)} on disk")
    return [f"{arm.name} {', '.join(said)}."] if said else []


def _how(part: Part) -> str:
    relative = "Relative time is against the arm multi-full with the same seed. " if part.is_comparison else ""
    return (
        "Trained parameters are counted once even where both stages train them. Time is training and validation, that of a stage 1 taken "
        f"from another run included; bare times compare on one machine only. {relative}Memory is the most in use while training: tensors "
        "on a CUDA device, else the process. Stored is what the model takes on disk, its base included."
    )
