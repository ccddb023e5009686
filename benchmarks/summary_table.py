"""The main questions over all domains in one table, for README.md and docs/results.md.

    python benchmarks/summary_table.py
    python benchmarks/summary_table.py --brief --into README.md
    python benchmarks/summary_table.py --into docs/results.md

Reads only the compare.json files under benchmarks/results/compare/. Differences are of arms of one folder with the same seed, so both ran
on the same machine; where two folders have both arms with one seed, the one that is named first counts. With --into the table replaces what
stands between `<!-- tables of all domains -->` and `<!-- end of tables -->`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from comparison_tables import put

from alter.comparing.statistics import delta_m, next_to_nothing, spread
from alter.comparing.tables import millions
from alter.comparison import ArmRun, Comparison, read_comparison
from alter.reporting.words import NONE, number, spread_text

RESULTS = Path(__file__).resolve().parent / "results" / "compare"
NAME = "all domains"
SINGLE, MULTI = "single-full", "multi-full"


@dataclass(frozen=True, kw_only=True)
class Domain:
    """One column: whose comparisons it is of, which arm is the one model, and which one has the second stage that is asked about."""

    name: str
    folders: tuple[str, ...]
    model: str
    two_stages: str | None


DOMAINS = (
    Domain(name="social", folders=("social",), model="alter-lite", two_stages="alter-lite"),
    Domain(name="nlu", folders=("nlu",), model="alter-lite", two_stages="alter-lite"),
    Domain(name="assistant", folders=("assistant",), model="alter-lite", two_stages="alter-lite"),
    Domain(name="generation, FFN copies", folders=("generation-more", "generation"), model="stage1-longer", two_stages="alter"),
    Domain(name="generation, LoRAs", folders=("generation-more", "generation"), model="lora-and-backbone", two_stages=None),
)


def pairs(comparisons: Sequence[Comparison], arm: str, against: str) -> dict[int, tuple[ArmRun, ArmRun]]:
    """Return seed -> the runs of two arms that ran in one comparison with this seed."""
    found: dict[int, tuple[ArmRun, ArmRun]] = {}
    for comparison in comparisons:
        if arm in comparison.arms and against in comparison.arms:
            mine, theirs = ({run.seed: run for run in comparison.arms[name].runs} for name in (arm, against))
            for seed in mine.keys() & theirs.keys():
                found.setdefault(seed, (mine[seed], theirs[seed]))
    return dict(sorted(found.items()))


def by_seed(values: Sequence[float]) -> str:
    """Return `mean (one by one)`, or what one seed has, said to be one."""
    if not values:
        return NONE
    each = [number(value, signed=True) for value in values]
    return f"{each[0]} (one seed)" if len(each) == 1 else f"{number(statistics.fmean(values), signed=True)} ({', '.join(each)})"


def less(comparisons: Sequence[Comparison], arm: str, against: str, split: str) -> str:
    """Return the difference of two arms' averages on a split, mean and by seed."""
    both = pairs(comparisons, arm, against).values()
    return by_seed([one.splits[split].average - two.splits[split].average for one, two in both])


def gained(comparisons: Sequence[Comparison], arm: str) -> str:
    """Return delta_m over one fine-tuned model a task on test rows, mean and s.d., as `alter compare` has it."""
    both = [(one.splits["test"], two.splits["test"]) for one, two in pairs(comparisons, arm, SINGLE).values()]
    faint = next_to_nothing(single for _, single in both)
    return spread_text(spread([delta_m(mine, single, without=faint)[0] for mine, single in both]), signed=True)


def tasks_above(comparisons: Sequence[Comparison], arm: str) -> str:
    """Return on how many tasks an arm's mean over seeds is above that of one fine-tuned model."""
    both = list(pairs(comparisons, arm, SINGLE).values())
    tasks = both[0][0].splits["test"].tasks
    means = {
        task: statistics.fmean(one.splits["test"].tasks[task].score - two.splits["test"].tasks[task].score for one, two in both)
        for task in tasks
    }
    return f"{sum(value > 0 for value in means.values())} of {len(means)}"


def changed(comparisons: Sequence[Comparison], arm: str) -> str:
    """Return what stage 2 changed of its own stage 1 on test rows, whichever was released."""
    values = []
    for mine, first in pairs(comparisons, arm, "stage1").values():
        before, after = mine.stages["stage1"].test, mine.stages["stage2"].test
        before = first.splits["test"].average if before is None else before
        assert after is not None
        values.append(after - before)
    return by_seed(values)


def cost(comparisons: Sequence[Comparison], arm: str) -> tuple[str, str]:
    """Return parameters and time, each with that of one fine-tuned model a task; time in units of one model for all tasks."""
    both = pairs(comparisons, arm, SINGLE).values()
    sizes = [next(run.budget.total_parameters for run in runs) for runs in zip(*both, strict=True)]
    times = [statistics.fmean(run.budget.relative_time or float("nan") for run in runs) for runs in zip(*both, strict=True)]
    return f"{millions(sizes[0])} ({millions(sizes[1])})", f"{number(times[0], 2)} ({number(times[1], 2)})"


def rows_of(domain: Domain) -> dict[str, str]:
    """Return question -> cell of one domain; questions that begin with dots go on with the one above."""
    found = [read_comparison(RESULTS / folder) for folder in domain.folders]
    model, staged = domain.model, domain.two_stages
    parameters, time = cost(found, model)
    return {
        "one model less one fine-tuned model a task": less(found, model, SINGLE, "test"),
        "... on validation rows": less(found, model, SINGLE, "validation"),
        "... in percent, mean over tasks (delta_m)": gained(found, model),
        "... tasks on which it is above, by means over seeds": tasks_above(found, model),
        "one model less plain multi-task fine-tuning": less(found, model, MULTI, "test"),
        "... on validation rows ": less(found, model, MULTI, "validation"),
        "one model less one LoRA as large as all adapters": less(found, model, "shared-lora", "test"),
        "what stage 2 changes of its own stage 1": NONE if staged is None else changed(found, staged),
        "with stage 2 less as many epochs of stage 1": NONE if staged is None else less(found, staged, "stage1-longer", "test"),
        "... on validation rows  ": NONE if staged is None else less(found, staged, "stage1-longer", "validation"),
        "parameters (one fine-tuned model a task)": parameters,
        "time, multi-task fine-tuning = 1 (one model a task)": time,
    }


def table(*, brief: bool = False) -> str:
    """Return the table as Markdown; `brief`: without what goes on with dots."""
    columns = [rows_of(domain) for domain in DOMAINS]
    names = [name for name in columns[0] if not (brief and name.startswith("..."))]
    lines = [["points on test rows, mean (by seed)", *(domain.name for domain in DOMAINS)], ["---"] * (len(DOMAINS) + 1)]
    lines += [[name.strip(), *(column[name] for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines).replace("\u00b1", "+-")  # documents hold ASCII only


def main() -> None:
    """Print the table, or put it into documents."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--into", type=Path, action="append", default=[], metavar="DOCUMENT")
    parser.add_argument("--brief", action="store_true", help="the main rows only")
    given = parser.parse_args()
    found = table(brief=given.brief)
    for document in given.into:
        document.write_text(put(document.read_text(encoding="utf-8"), NAME, found), encoding="utf-8")
    if not given.into:
        print(found)


if __name__ == "__main__":
    main()
