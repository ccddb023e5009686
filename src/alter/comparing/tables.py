"""compare.md: a comparison as Markdown tables, test rows first."""

from __future__ import annotations

import math
from collections.abc import Sequence

from alter.comparing.statistics import spread as over_seeds
from alter.comparison import ArmResult, Comparison, Difference, Spread

NONE = "-"
LEAST = 0.05
"""Points. A difference below it is shown as 0.0."""


def markdown(comparison: Comparison) -> str:
    """Return the whole page."""
    seeds = ", ".join(map(str, comparison.seeds))
    parts = [
        f"# {comparison.recipe}: arms side by side",
        f"Base {comparison.model}, preset {comparison.preset}, seeds {seeds}. Scores in percent, mean ± standard deviation over seeds. "
        f"delta_m: mean relative gain over one fine-tuned model a task, in percent.",
    ]
    for split in ("test", "validation"):
        if any(split in arm.summary for arm in comparison.arms.values()):
            parts += [f"## {split.capitalize()} rows", scores_table(comparison, split)]
    parts += ["## Stage by stage", stages_table(comparison)] if _two_stages(comparison) else []
    parts += ["## Questions", differences_table(comparison.differences)] if comparison.differences else []
    parts += ["## What it cost", budget_table(comparison)]
    failed = [f"- {name}: {arm.failed}" for name, arm in comparison.arms.items() if arm.failed]
    parts += ["## Failed", "\n".join(failed)] if failed else []
    return "\n\n".join(parts) + "\n"


def scores_table(comparison: Comparison, split: str) -> str:
    """Return arms by tasks."""
    with_small = any(arm.summary[split].small for arm in comparison.arms.values() if split in arm.summary)
    head = ["arm", "average", "delta_m", *(["small tasks"] if with_small else []), *comparison.tasks]
    rows = []
    for name, arm in comparison.arms.items():
        summary = arm.summary.get(split)
        if summary is None:
            continue
        cells = [spread(summary.average), signed(summary.delta_m), *([spread(summary.small)] if with_small else [])]
        rows.append([name, *cells, *(spread(summary.tasks.get(task)) for task in comparison.tasks)])
    return _table(head, rows)


def _two_stages(comparison: Comparison) -> list[str]:
    return [name for name, arm in comparison.arms.items() if any("stage2" in run.stages for run in arm.runs)]


def stages_table(comparison: Comparison) -> str:
    """Return what each stage reached at its best step, and which one was kept; a stage 1 that was taken has its test scores there."""
    source = comparison.arms.get("stage1")
    stage1 = {run.seed: run.stages["stage1"].test for run in source.runs} if source else {}
    rows = []
    for name in _two_stages(comparison):
        runs = [run for run in comparison.arms[name].runs if "stage2" in run.stages]
        validation = [[run.stages[stage].validation for run in runs] for stage in ("stage1", "stage2")]
        own = {run.seed: run.stages["stage1"].test for run in runs}
        first = [own[run.seed] if own[run.seed] is not None else stage1.get(run.seed) for run in runs]
        test = [
            [value for value in values if value is not None] for values in (first, [run.stages["stage2"].test for run in runs])
        ]
        kept = ", ".join(run.released for run in runs)
        rows.append([name, *(spread(over_seeds(values)) if values else NONE for values in (*validation, *test)), kept])
    head = ["arm", "stage 1, validation", "stage 2, validation", "stage 1, test", "stage 2, test", "kept"]
    return _table(head, rows)


def differences_table(differences: Sequence[Difference]) -> str:
    """Return the questions with their answers."""
    rows = [
        [one.question, f"{one.arm} - {one.against}", f"{one.difference:+.1f}", f"{one.low:+.1f} to {one.high:+.1f}", verdict(one)]
        for one in differences
    ]
    return _table(["question", "arms", "points", "95 % interval over rows", "answer"], rows, left=2)


def verdict(difference: Difference) -> str:
    """Return what an interval says: an answer only where it does not hold zero, all seeds agree and there is a digit to show."""
    if abs(difference.difference) < LEAST:
        return "not told apart"
    signs = {value > 0 for value in difference.by_seed}
    if difference.low > 0 and signs == {True}:
        return "yes"
    if difference.high < 0 and signs == {False}:
        return "no, worse"
    return "not told apart"


def budget_table(comparison: Comparison) -> str:
    """Return what each trained arm cost, as means over seeds."""
    head = ["arm", "trainable", "total", "steps", "time / multi-full", "peak memory", "stored", "stage 2's time"]
    rows = []
    for name, arm in comparison.arms.items():
        if any(run.budget.steps is not None for run in arm.runs):
            rows.append([name, *_budget_cells(arm)])
    return _table(head, rows)


def _budget_cells(arm: ArmResult) -> list[str]:
    def mean(field: str) -> float | None:
        values = [getattr(run.budget, field) for run in arm.runs]
        known = [float(value) for value in values if value is not None]
        return sum(known) / len(known) if known else None

    time, share = mean("relative_time"), mean("stage2_share")
    return [
        _millions(mean("trainable_parameters")),
        _millions(mean("total_parameters")),
        _whole(mean("steps")),
        NONE if time is None else f"{time:.2f}",
        size(mean("peak_memory_bytes")),
        size(mean("stored_bytes")),
        NONE if share is None else f"{100 * share:.0f} %",
    ]


def spread(value: Spread | None) -> str:
    """Return `62.1 ± 0.4`, or the number alone with one seed."""
    if value is None or not math.isfinite(value.mean):
        return NONE
    return f"{value.mean:.1f}" if value.seeds == 1 else f"{value.mean:.1f} ± {value.sd:.1f}"


def signed(value: Spread | None) -> str:
    """Return a gain with its sign."""
    text = spread(value)
    return text if text == NONE or text.startswith("-") else f"+{text}"


def size(number: float | None) -> str:
    """Return bytes as MB (a million bytes)."""
    return NONE if number is None else f"{number / 1e6:,.{0 if number >= 1e7 else 1}f} MB"


def _millions(number: float | None) -> str:
    return NONE if number is None else f"{number / 1e6:.2f}M"


def _whole(number: float | None) -> str:
    return NONE if number is None else f"{number:,.0f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * left + "---:|" * (len(head) - left),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)


__all__ = ["budget_table", "differences_table", "markdown", "scores_table", "signed", "size", "spread", "verdict"]
