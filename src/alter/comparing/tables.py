"""compare.md: a comparison as Markdown tables, test rows first."""

from __future__ import annotations

from collections.abc import Sequence

from alter.comparing.statistics import spread as over_seeds
from alter.comparison import Budget, Comparison, Difference, mean_budget, verdict
from alter.reporting.words import NONE, interval_text, number, spread_text

ANSWERS = {"better": "yes", "worse": "no, worse"}
BOTH = {"stage1", "stage2"}


def markdown(comparison: Comparison) -> str:
    """Return the whole page."""
    seeds = ", ".join(map(str, comparison.seeds))
    parts = [
        f"# {comparison.recipe}: arms side by side",
        f"Base {comparison.model}, preset {comparison.preset}, seeds {seeds}. Scores in percent, mean ± standard deviation over seeds. "
        f"delta_m: mean relative gain over one fine-tuned model a task, in percent.",
    ]
    for split in ("test", "validation"):
        summaries = [arm.summary[split] for arm in comparison.arms.values() if split in arm.summary]
        if summaries:
            parts += [f"## {split.capitalize()} rows", scores_table(comparison, split)]
        parts += left_out(comparison, split)
    parts += ["## Stage by stage", stages_table(comparison)] if _two_stages(comparison) else []
    parts += ["## Questions", differences_table(comparison.differences)] if comparison.differences else []
    parts += ["## What it cost", budget_table(comparison)]
    failed = [f"- {name}: {arm.failed}" for name, arm in comparison.arms.items() if arm.failed]
    parts += ["## Without figures", "\n".join(failed)] if failed else []
    return "\n\n".join(parts) + "\n"


def left_out(comparison: Comparison, split: str) -> list[str]:
    """Say which tasks delta_m leaves out, and of which arms where not of all; nothing where it leaves out none."""
    summaries = {name: arm.summary[split] for name, arm in comparison.arms.items() if split in arm.summary}
    of_task: dict[str, list[str]] = {}
    for name, summary in summaries.items():
        for task in summary.left_out:
            of_task.setdefault(task, []).append(name)
    with_gain = [name for name, summary in summaries.items() if summary.delta_m is not None]
    told = [task if set(with_gain) <= set(arms) else f"{task} (of {', '.join(arms)})" for task, arms in of_task.items()]
    return [f"delta_m leaves out {', '.join(told)}: below 1 percent, or no number, with a seed."] if told else []


def scores_table(comparison: Comparison, split: str) -> str:
    """Return arms by tasks."""
    with_small = any(arm.summary[split].small for arm in comparison.arms.values() if split in arm.summary)
    seeds = seeds_apart(comparison, split)
    columns = [*(["seeds"] if seeds else []), "average", "delta_m", *(["small tasks"] if with_small else [])]
    head = ["arm", *columns, *comparison.tasks]
    rows = []
    for name, arm in comparison.arms.items():
        summary = arm.summary.get(split)
        if summary is None:
            continue
        cells = [
            *([seeds[name]] if seeds else []),
            spread_text(summary.average),
            spread_text(summary.delta_m, signed=True),
            *([spread_text(summary.small)] if with_small else []),
        ]
        rows.append([name, *cells, *(spread_text(summary.tasks.get(task)) for task in comparison.tasks)])
    return _table(head, rows)


def seeds_apart(comparison: Comparison, split: str) -> dict[str, str]:
    """Return arm -> its seeds where arms have different ones, so that averages do not compare down the column; else nothing."""
    seeds = {name: ", ".join(str(run.seed) for run in arm.runs if split in run.splits) for name, arm in comparison.arms.items()}
    return seeds if len({found for found in seeds.values() if found}) > 1 else {}


def _two_stages(comparison: Comparison) -> list[str]:
    return [name for name, arm in comparison.arms.items() if any(run.stages.keys() >= BOTH for run in arm.runs)]


def stages_table(comparison: Comparison) -> str:
    """Return what each stage reached at its best step, and which one was kept; a stage 1 that was taken has its test scores there."""
    source = comparison.arms.get("stage1")
    stage1 = {run.seed: run.stages["stage1"].test for run in source.runs} if source else {}
    rows = []
    for name in _two_stages(comparison):
        runs = [run for run in comparison.arms[name].runs if run.stages.keys() >= BOTH]
        validation = [[run.stages[stage].validation for run in runs] for stage in ("stage1", "stage2")]
        own = {run.seed: run.stages["stage1"].test for run in runs}
        first = [own[run.seed] if own[run.seed] is not None else stage1.get(run.seed) for run in runs]
        test = [
            [value for value in values if value is not None] for values in (first, [run.stages["stage2"].test for run in runs])
        ]
        gains = [_gain(one, run.stages["stage2"].test) for one, run in zip(first, runs, strict=True)]
        kept = ", ".join(run.released for run in runs)
        cells = [spread_text(over_seeds(values)) if values else NONE for values in (*validation, *test)]
        rows.append([name, *cells, ", ".join(gains), kept])
    head = [
        "arm",
        "stage 1, validation",
        "stage 2, validation",
        "stage 1, test",
        "stage 2, test",
        "stage 2 - 1, test, by seed",
        "kept",
    ]
    return _table(head, rows)


def _gain(one: float | None, two: float | None) -> str:
    return NONE if one is None or two is None else number(two - one, signed=True)


def differences_table(differences: Sequence[Difference]) -> str:
    """Return the questions with their answers."""
    rows = [
        [
            one.question,
            f"{one.arm} - {one.against}",
            one.split,
            number(one.difference, signed=True),
            ", ".join(number(value, signed=True) for value in one.by_seed),
            interval_text(one.low, one.high),
            answer(one),
        ]
        for one in differences
    ]
    return _table(["question", "arms", "rows", "points", "by seed", "95 % interval over rows", "answer"], rows, left=3)


def answer(one: Difference) -> str:
    """Return the verdict on a difference as the answer to its question; one seed is said to be one."""
    found = verdict(one)
    if found not in ANSWERS:
        return found
    return f"{ANSWERS[found]} (one seed)" if len(one.by_seed) == 1 else ANSWERS[found]


def budget_table(comparison: Comparison) -> str:
    """Return what each trained arm cost, as means over seeds."""
    head = ["arm", "trainable", "total", "steps", "time / multi-full", "peak memory", "stored", "stage 2's time"]
    rows = []
    for name, arm in comparison.arms.items():
        if any(run.budget.steps is not None for run in arm.runs):
            rows.append([name, *_budget_cells(mean_budget([run.budget for run in arm.runs]))])
    return _table(head, rows)


def _budget_cells(budget: Budget) -> list[str]:
    return [
        millions(budget.trainable_parameters),
        millions(budget.total_parameters),
        number(budget.steps, 0),
        number(budget.relative_time, 2),
        size(budget.peak_memory_bytes),
        size(budget.stored_bytes),
        NONE if budget.stage2_share is None else f"{100 * budget.stage2_share:.0f} %",
    ]


def size(number: float | None) -> str:
    """Return bytes as MB (a million bytes)."""
    return NONE if number is None else f"{number / 1e6:,.{0 if number >= 1e7 else 1}f} MB"


def millions(number: float | None) -> str:
    """Return parameters in millions."""
    return NONE if number is None else f"{number / 1e6:.2f}M"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    lines = [
        "| " + " | ".join(head) + " |",
        "|" + "---|" * left + "---:|" * (len(head) - left),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
    return "\n".join(lines)
