"""What was run: recipe, base model, preset, seeds, and the tasks with their rows."""

from __future__ import annotations

from alter.errors import counted
from alter.reporting.arms import Arm, Part
from alter.reporting.blocks import Block, Cell, Note, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import NONE, clean, listed

TITLE = "What was run"
ROWS = ("train", "validation", "test")
MANY_LABELS = 8
BARE = "No run directories are here, so there are no curves, gate maps, affinities, confusions and worst answers."
MOST_SIGNS = 2000
"""Of what went wrong: messages of several seeds, each with its remedy at the end."""


def piece(part: Part) -> Piece:
    """Describe a part."""
    blocks: list[Block] = [_facts(part), _tasks(part)]
    if part.is_comparison:
        blocks.append(_arms(part))
    failed = [arm for arm in part.arms if arm.failed]
    return Piece(
        reading=[_sentence(part), *([BARE] if part.is_bare else [])],
        blocks=blocks + [Note(_failure(arm)) for arm in failed],
    )


def _failure(arm: Arm) -> str:
    which = "Not all seeds" if arm.members else "No seed"
    return f"{which} of an arm came through. {arm.name}: {clean(_one_line(arm.failed), most=MOST_SIGNS)}"


def _one_line(messages: str) -> str:
    """Return the messages of several seeds, which stand on a line each, with a stop between them."""
    return "; ".join(line.strip() for line in messages.splitlines() if line.strip())


def _sentence(part: Part) -> str:
    kinds = [task.kind for task in part.tasks.values()]
    of = listed([f"{kinds.count(kind)} of kind {kind}" for kind in sorted(set(kinds))])
    tasks = (
        f"{counted(len(kinds), 'task')} ({of})"
        if len(set(kinds)) > 1
        else counted(len(kinds), f"{(kinds or ['unknown'])[0]} task")
    )
    rows = sum(task.rows.get("train", 0) for task in part.tasks.values())
    learnt = f" with {counted(rows, 'training row')}" if rows else ""
    if part.is_comparison:
        ran, arms = sum(bool(arm.members) for arm in part.arms), counted(len(part.arms), "arm")
        scored = "" if ran == len(part.arms) else f", {ran} of which {'has' if ran == 1 else 'have'} scores"
        return f"{arms} side by side on {tasks}{learnt}{scored}."
    runs = sum(len(arm.members) for arm in part.arms)
    return f"{counted(runs, 'run')} of {counted(len(part.arms), 'recipe')} on {tasks}{learnt}."


def _facts(part: Part) -> Table:
    columns = list(dict.fromkeys(name for facts in part.facts for name in facts))
    rows = [[Cell(clean(facts.get(name, NONE))) for name in columns] for facts in part.facts]
    return Table(caption="What was read", columns=columns, rows=rows, num_text=len(columns))


def _tasks(part: Part) -> Table:
    has_groups = any(task.group for task in part.tasks.values())
    rows = []
    for name, task in part.tasks.items():
        counts = [task.rows.get(split) for split in ROWS]
        labels = [] if task.labels is None else [clean(label, most=24) for label in task.labels]
        shown = f"{len(labels)}: {listed(labels, most=MANY_LABELS)}" if labels else NONE
        rows.append([
            Cell(name), Cell(task.kind), Cell(task.metric), *([Cell(task.group or NONE)] if has_groups else []),
            Cell(shown, task.labels), *(Cell(NONE if count is None else f"{count:,}", count) for count in counts),
        ])  # fmt: skip
    columns = ["task", "kind", "metric", *(["group"] if has_groups else []), "labels", *(f"{split} rows" for split in ROWS)]
    return Table(caption="Tasks", columns=columns, rows=rows, num_text=len(columns) - len(ROWS))


def _arms(part: Part) -> Table:
    rows = [
        [Cell(arm.name), Cell(clean(arm.title)), Cell(arm.family), Cell(str(len(arm.members)), len(arm.members))]
        for arm in part.arms
    ]
    return Table(caption="Arms", columns=["arm", "what it is", "family", "number of seeds"], rows=rows, num_text=3)
