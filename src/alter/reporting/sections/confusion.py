"""Confusion matrices: which label was taken for which, per classification task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from alter.errors import counted
from alter.reporting.arms import Arm, Part
from alter.reporting.blocks import MOST_NUMBERS, Block, Cell, Figures, Fold, Heatmap, Table
from alter.reporting.run_folder import SPLITS, Answer
from alter.reporting.sections._piece import Piece
from alter.reporting.words import capital, clean, number_cell, percent

TITLE = "Confusions"
MOST_PAIRS = 15
NO_LABEL = "(no label)"
NO_ANSWERS = "no answers are there (predictions/): they were deleted, or the run is of an earlier version of alter."


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of (right label, answered label), over all seeds of an arm."""

    task: str
    split: str
    seeds: int
    labels: Sequence[str]
    counts: Counter[tuple[str, str]]

    @property
    def rows(self) -> int:
        """Answers counted."""
        return self.counts.total()

    @property
    def right(self) -> int:
        """Right answers."""
        return sum(count for (right, given), count in self.counts.items() if right == given)

    @property
    def invalid(self) -> int:
        """Answers that are no label."""
        return sum(count for (_, given), count in self.counts.items() if given == NO_LABEL)

    def of(self, label: str) -> int:
        """Rows whose right label this is."""
        return sum(count for (right, _), count in self.counts.items() if right == label)

    @property
    def wrong(self) -> list[tuple[tuple[str, str], int]]:
        """Wrong pairs, the most frequent first."""
        pairs = [(pair, count) for pair, count in self.counts.items() if pair[0] != pair[1]]
        return sorted(pairs, key=lambda found: (-found[1], found[0]))


def answers_of(arm: Arm, task: str) -> tuple[str, list[Sequence[Answer]]]:
    """Return the split that a task's answers are taken from, test rows where there are any, and the answers of each seed."""
    for split in SPLITS:
        found = [member.answers[split][task] for member in arm.members if task in member.answers.get(split, {})]
        if found:
            return split, found
    return "", []


def confusion_of(arm: Arm, task: str, labels: Sequence[str] | None) -> Confusion | None:
    """Count an arm's answers of a task; None where none were written down."""
    split, by_seed = answers_of(arm, task)
    if not by_seed:
        return None
    rows = [row for answers in by_seed for row in answers]
    seen = sorted({str(row.target) for row in rows} | ({str(row.prediction) for row in rows} if labels is None else set()))
    known = [*(labels or []), *(label for label in seen if label not in (labels or []))]
    counts = Counter((str(row.target), str(row.prediction) if str(row.prediction) in known else NO_LABEL) for row in rows)
    return Confusion(task=task, split=split, seeds=len(by_seed), labels=known, counts=counts)


def piece(part: Part) -> Piece:
    """Show the confusions of the arms that are looked at closely."""
    if part.is_bare:
        return Piece(reading=())
    tasks = {name: task.labels for name, task in part.tasks.items() if task.kind in ("classification", "unknown")}
    if not tasks:
        return Piece(reading=["There is no classification task."])
    reading: list[str] = []
    blocks: list[Block] = []
    for arm in part.close:
        found = [one for task, labels in tasks.items() if (one := confusion_of(arm, task, labels)) is not None]
        prefix, first = (f"{arm.name}: ", str) if len(part.arms) > 1 else ("", capital)
        if not found:
            reading.append(prefix + first(NO_ANSWERS))
            continue
        reading.append(prefix + first(_sentence(found)))
        mine = [block for one in found for block in _blocks(one)]
        blocks += [Fold(title=arm.name, blocks=mine, is_open=True)] if len(part.close) > 1 else mine
    why = [part.closely] if part.closely and blocks else []
    return Piece(reading=[*why, *reading], blocks=_gathered(blocks))


def _sentence(found: Sequence[Confusion]) -> str:
    """Say how much is right over all tasks, and what was mistaken most often."""
    rows, right = sum(one.rows for one in found), sum(one.right for one in found)
    said = f"{right:,} of {counted(rows, 'answer')} right ({percent(right / rows, 1)})"
    said += f" over {found[0].seeds} seeds" if found[0].seeds > 1 else ""
    invalid = sum(one.invalid for one in found)
    said += f", {counted(invalid, 'is', 'are')} no label" if invalid else ""
    wrong = [(count, -position, one, pair) for position, one in enumerate(found) for pair, count in one.wrong[:1]]
    if not wrong:
        return f"{said}."
    count, _, task, (label, given) = max(wrong, key=lambda pair: pair[:2])
    return (
        f"{said}; the most frequent confusion is in {task.task}, where '{clean(label, most=40)}' got the answer "
        f"'{clean(given, most=40)}' ({count:,} of {task.of(label):,})."
    )


def told(one: Confusion) -> str:
    """Say how a task fared: `intent: 91 of 120 right on test rows (75.8 %)`."""
    said = f"{one.task}: {one.right:,} of {one.rows:,} right on {one.split} rows ({percent(one.right / one.rows, 1)})"
    return f"{said}, {one.invalid:,} no label" if one.invalid else said


def _blocks(one: Confusion) -> list[Block]:
    if len(one.labels) + bool(one.invalid) > MOST_NUMBERS:
        return [_pairs(one)]
    return [Figures(caption="", figures=[_matrix(one)])]


def _matrix(one: Confusion) -> Heatmap:
    given = [*one.labels, *([NO_LABEL] if one.invalid else [])]
    right = [label for label in one.labels if one.of(label) or label in given]
    counts = [[one.counts[label, answer] for answer in given] for label in right]
    values = [[count / max(1, sum(row)) for count in row] for row in counts]
    return Heatmap(
        title=told(one),
        alt=f"Confusion matrix of {told(one)}; {_most(one)}.",
        rows=[clean(label, most=28) for label in right],
        columns=[clean(label, most=28) for label in given],
        values=values,
        texts=[[f"{count:,}" if count else "" for count in row] for row in counts],
        row_label="right label",
        column_label="answer",
    )


def _most(one: Confusion) -> str:
    if not one.wrong:
        return "no confusion"
    (right, given), count = one.wrong[0]
    return f"most often '{clean(right, most=40)}' got the answer '{clean(given, most=40)}' ({count:,} of {one.of(right):,})"


def _pairs(one: Confusion) -> Table:
    rows = []
    for (right, given), count in one.wrong[:MOST_PAIRS]:
        of = one.of(right)
        names = [Cell(clean(right, most=60), right), Cell(clean(given, most=60), given)]
        rows.append([*names, Cell(f"{count:,}", count), Cell(f"{of:,}", of), number_cell(100 * count / of)])
    caption = f"{told(one)}. The most frequent confusions of {len(one.labels)} labels"
    columns = ["right label", "answer", "times", "rows of the right label", "percent of them"]
    return Table(caption=caption, columns=columns, rows=rows, num_text=2)


def _gathered(blocks: Sequence[Block]) -> list[Block]:
    """Put matrices that follow each other side by side, with one caption."""
    found: list[Block] = []
    for block in blocks:
        if isinstance(block, Fold):
            found.append(Fold(title=block.title, blocks=_gathered(block.blocks), is_open=block.is_open))
        elif isinstance(block, Figures) and found and isinstance(found[-1], Figures):
            found[-1] = Figures(caption=found[-1].caption, figures=[*found[-1].figures, *block.figures])
        elif isinstance(block, Figures):
            caption = (
                "Numbers are rows; the depth of colour is the share of the right label's rows, so that each line adds up to one."
            )
            found.append(Figures(caption=caption, figures=block.figures))
        else:
            found.append(block)
    return found
