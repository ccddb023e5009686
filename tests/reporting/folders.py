"""Run directories and comparisons for reports: written by hand where their numbers matter, trained where their form does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from alter.comparison import (
    ArmResult,
    ArmRun,
    Budget,
    ComparedTask,
    Comparison,
    Difference,
    Spread,
    StageScores,
    Summary,
    write_comparison,
)
from alter.reporting.blocks import Block, Figures, Fold, Note, Report, Table
from alter.results import Results, SplitScores, StageResult, TaskScore, read_results, write_results

Answers = Sequence[Mapping[str, Any]]


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Write JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def scores(tasks: Mapping[str, float], *, metric: str = "accuracy", rows: int = 10) -> SplitScores:
    """Return scores of a split."""
    found = {
        name: TaskScore(score=score, metric=metric, metrics={metric: score}, num_examples=rows) for name, score in tasks.items()
    }
    return SplitScores(average=sum(tasks.values()) / len(tasks), tasks=found)


def write_run(
    folder: Path,
    tasks: Mapping[str, float],
    *,
    seed: int = 0,
    kinds: Mapping[str, str] | None = None,
    labels: Mapping[str, Sequence[str]] | None = None,
    answers: Mapping[str, Answers] | None = None,
    rows: Mapping[str, int] | None = None,
    **results: Any,
) -> Path:
    """Write results.json, recipe.yaml and what else is given; one stage, released.

    Args:
        folder: is made.
        tasks: task -> test score.
        seed: the seed.
        kinds: task -> kind, where it is no classification.
        labels: task -> labels.
        answers: task -> test predictions.
        rows: task -> training rows.
        results: further fields of results.json.
    """
    stage = StageResult(average=50.0, seconds=10.0, trainable_parameters=100, steps=20, best_step=10, peak_memory_bytes=3_000_000)
    content: dict[str, Any] = {
        "recipe": "hand", "model": "base", "preset": "alter-lite", "seed": seed, "stages": {"stage1": stage}, "released": "stage1",
        "splits": {"test": scores(tasks)}, "rows": {task: {"train": number, "test": 10} for task, number in (rows or {}).items()},
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_results(Results(**{**content, **results}), folder / "results.json")
    blocks = [
        {"name": task, "kind": (kinds or {}).get(task, "classification"), "labels": list((labels or {}).get(task, [])) or None}
        for task in tasks
    ]
    recipe = {"name": "hand", "seed": seed, "tasks": blocks, "stages": {"stage1": {"trains": ["task_adapters", "heads"]}}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    for task, lines in (answers or {}).items():
        write_lines(folder / "predictions" / "test" / f"{task}.jsonl", lines)
    return folder


def write_gates(
    folder: Path, stages: Mapping[str, Any], *, tasks: Sequence[str], adapters: Sequence[str], sites: Sequence[int]
) -> None:
    """Write gates.json."""
    content = {"schema": 1, "tasks": tasks, "adapters": adapters, "sites": sites, "stages": stages}
    (folder / "gates.json").write_text(json.dumps(content), encoding="utf-8")


def copy_run(run: Path, to: Path) -> None:
    """Copy a run without what a report does not read."""
    shutil.copytree(run, to, ignore=shutil.ignore_patterns("checkpoints", ".lock"))


def write_toy_comparison(folder: Path, runs: Mapping[int, Path]) -> Comparison:
    """Write a comparison whose arm `alter-lite` is real runs; the numbers of the others are invented."""
    for seed, run in runs.items():
        copy_run(run, folder / "arms" / "alter-lite" / f"seed{seed}")
    found = {seed: read_results(run / "results.json") for seed, run in runs.items()}
    tasks = list(found[0].splits["test"].tasks)
    mine = {seed: dict(results.splits) for seed, results in found.items()}
    arms = {
        "majority": arm_of("yardstick", _invented(tasks, runs, 20.0)),
        "multi-full": arm_of("one-model", _invented(tasks, runs, 60.0), budget=_budget(5_000_000, 1.0)),
        "single-full": arm_of("per-task", _invented(tasks, runs, 61.0), budget=_budget(30_000_000, 4.0)),
        "alter-lite": arm_of("alter", mine, folder="arms/alter-lite", budget=_budget(400_000, 0.75), delta_m=-3.25),
        "one-go": ArmResult(title="all in one stage", family="stage2", failed="seed 0: the loss is <nan>"),
    }
    differences = [
        Difference(question="Is it better than the most frequent answer?", arm="alter-lite", against="majority", split="test",
                   difference=12.34, low=8.1, high=16.9, by_seed=[12.0, 12.68]),
        Difference(question="Is it as good as one model a task?", arm="alter-lite", against="single-full", split="test",
                   difference=-5.5, low=-7.0, high=-4.0, by_seed=[-5.0, -6.0]),
        Difference(question="Is it better than one model?", arm="alter-lite", against="multi-full", split="test",
                   difference=0.4, low=-0.6, high=1.4, by_seed=[0.4]),
    ]  # fmt: skip
    compared = {
        task: ComparedTask(
            kind="regression" if task == "stars" else "classification",
            metric=found[0].splits["test"].tasks[task].metric,
            rows=found[0].rows[task],
            labels=None if task == "stars" else LABELS[task],
        )
        for task in tasks
    }
    comparison = Comparison(
        recipe="toy", model="base", preset="alter-lite", seeds=list(runs), tasks=compared, arms=arms, differences=differences,
        environment={"alter": "0.1.0", "torch": "2.0"},
    )  # fmt: skip
    write_comparison(comparison, folder)
    return comparison


LABELS = {"mood": ["pleased", "upset"], "topic": ["access", "money", "parcel"], "reply": ["agrees", "denies"]}


def _invented(tasks: Sequence[str], seeds: Mapping[int, Path], level: float) -> dict[int, dict[str, SplitScores]]:
    made = {seed: {task: level + position + seed for position, task in enumerate(tasks)} for seed in seeds}
    return {seed: {split: scores(found) for split in ("validation", "test")} for seed, found in made.items()}


def _budget(parameters: int, time: float) -> Budget:
    return Budget(
        trainable_parameters=parameters, total_parameters=6_000_000, steps=50, seconds=100 * time, relative_time=time,
        peak_memory_bytes=2_000_000_000, stored_bytes=24_000_000, stage2_share=0.4,
    )  # fmt: skip


def arm_of(
    family: Any,
    by_seed: Mapping[int, Mapping[str, SplitScores]],
    *,
    folder: str = "",
    budget: Budget | None = None,
    delta_m: float = 0.0,
    released: Mapping[int, str] | None = None,
    stages: Mapping[str, tuple[float, float | None]] | None = None,
) -> ArmResult:
    """Return an arm; `stages` are stage -> validation and test average, of all seeds, and `released` is seed -> stage."""
    runs = [
        ArmRun(
            seed=seed,
            folders=[f"{folder}/seed{seed}"] if folder else [],
            answers={split: f"{folder}/seed{seed}/predictions/{split}" for split in splits} if folder else {},
            splits=dict(splits),
            stages={stage: StageScores(validation=one, test=two) for stage, (one, two) in (stages or {}).items()},
            released=(released or {}).get(seed, ""),
            budget=budget or Budget(),
        )
        for seed, splits in by_seed.items()
    ]
    first = runs[0].splits
    summary = {
        split: Summary(
            average=_spread([run.splits[split].average for run in runs]),
            delta_m=Spread(mean=delta_m, sd=0.5, seeds=len(runs)),
            tasks={task: _spread([run.splits[split].tasks[task].score for run in runs]) for task in first[split].tasks},
        )
        for split in first
    }
    return ArmResult(title=f"an arm of family {family}", family=family, runs=runs, summary=summary)


def write_arms(
    folder: Path, arms: Mapping[str, ArmResult], differences: Sequence[Difference] = (), *, rows: Mapping[str, int] | None = None
) -> Path:
    """Write a comparison of preset alter-lite without run directories; `rows` are task -> test rows."""
    tasks = {
        task: ComparedTask(kind="classification", metric="accuracy", rows={"train": 5, "test": number})
        for task, number in (rows or {"a": 10}).items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = Comparison(
        recipe="hand",
        model="base",
        preset="alter-lite",
        seeds=[0, 1],
        tasks=tasks,
        arms=dict(arms),
        differences=list(differences),
    )
    write_comparison(content, folder)
    return folder


def _spread(values: Sequence[float]) -> Spread:
    mean = sum(values) / len(values)
    sd = (sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)) ** 0.5
    return Spread(mean=mean, sd=sd if len(values) > 1 else float("nan"), seeds=len(values))


def blocks_of(report: Report, key: str) -> list[Block]:
    """Return all blocks of a section, those inside folds too."""
    [section] = [one for one in report.sections if one.key == key]
    return list(_flat(section.blocks))


def _flat(blocks: Sequence[Block]) -> list[Block]:
    found: list[Block] = []
    for block in blocks:
        found += [block, *_flat(block.blocks)] if isinstance(block, Fold) else [block]
    return found


def tables_of(report: Report, key: str) -> dict[str, list[list[str]]]:
    """Return caption -> rows of text, the heads first, of a section's tables; spaces that no line breaks at are plain ones."""
    return {
        block.caption: [list(block.columns), *([spaced(cell.text) for cell in row] for row in block.rows)]
        for block in blocks_of(report, key)
        if isinstance(block, Table)
    }


def figures_of(report: Report, key: str) -> list[Any]:
    """Return a section's figures."""
    return [figure for block in blocks_of(report, key) if isinstance(block, Figures) for figure in block.figures]


def reading_of(report: Report, key: str) -> str:
    """Return a section's sentences as one text."""
    [section] = [one for one in report.sections if one.key == key]
    folds = [sentence for block in _flat(section.blocks) if isinstance(block, Fold) for sentence in block.reading]
    return spaced(" ".join([*section.reading, *folds]))


def notes_of(report: Report, key: str) -> str:
    """Return a section's remarks as one text."""
    return spaced(" ".join(block.text for block in blocks_of(report, key) if isinstance(block, Note)))


def spaced(text: str) -> str:
    """Return text with plain spaces in place of those that no line breaks at."""
    return text.replace("\u00a0", " ")
