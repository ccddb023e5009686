"""From run directories to one comparison: what each arm reached and cost, over seeds, and what sets two arms apart."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alter.comparing.arms import Arm
from alter.comparing.bootstrap import Answered, Floats, interval, num_resamples, resampled_averages
from alter.comparing.budgets import on_loras, relate_times, run_budget, told_budget
from alter.comparing.questions import questions
from alter.comparing.statistics import small_tasks, summarise
from alter.comparison import (
    ArmResult,
    ArmRun,
    ComparedTask,
    Comparison,
    Difference,
    StageScores,
)
from alter.errors import CheckpointError
from alter.evaluation import split_scores
from alter.recipe import Recipe
from alter.results import Results, SplitScores, read_results
from alter.tasks.spec import TaskSpec
from alter.training.prepare import Rows
from alter.training.records import PREDICTIONS
from alter.training.rundir import RESULTS


@dataclass(frozen=True, kw_only=True)
class Done:
    """What an arm left with one seed.

    Attributes:
        folders: its run directories, one a task where `per_task`.
        per_task: whether each folder is one task's.
        trained: whether they are runs of `alter train`.
        changed: the run whose model was changed and scored again (ablations).
    """

    folders: list[Path]
    per_task: bool = False
    trained: bool = True
    changed: Path | None = None


def collect(
    recipe: Recipe,
    arms: Sequence[Arm],
    done: Mapping[str, Mapping[int, Done]],
    failed: Mapping[str, str],
    *,
    rows: Rows,
    folder: Path,
    environment: dict[str, str],
) -> Comparison:
    """Read what all arms left and put it together."""
    specs = {spec.name: spec for spec in rows.specs}
    tasks = {
        name: ComparedTask(
            kind=spec.kind,
            metric=spec.primary_metric,
            rows={split: len(rows.splits[split][name]) for split in rows.splits},
            labels=spec.labels if spec.kind == "classification" else None,
            group=spec.group,
        )
        for name, spec in specs.items()
    }
    runs = {
        arm.name: [_arm_run(seed, one, specs, folder) for seed, one in sorted(done.get(arm.name, {}).items())] for arm in arms
    }
    for arm in arms:
        if arm.loras is not None:
            runs[arm.name] = on_loras(runs[arm.name], runs.get(arm.loras, []))
    relate_times(runs)
    comparison = Comparison(
        recipe=recipe.name,
        model=recipe.model_name_or_path,
        preset=recipe.preset,
        seeds=sorted({run.seed for found in runs.values() for run in found}),
        tasks=tasks,
        arms={},
        environment=environment,
    )
    small = small_tasks(tasks, comparison.small_below)
    singles = {run.seed: run for run in runs.get("single-full", [])}
    results = {}
    for arm in arms:
        summaries = {
            split: summarise(runs[arm.name], singles, tasks, split=split, small=small) for split in ("validation", "test")
        }
        results[arm.name] = ArmResult(
            title=arm.title,
            family=arm.family,
            runs=runs[arm.name],
            summary={split: found for split, found in summaries.items() if found is not None},
            failed=failed.get(arm.name, ""),
        )
    differences = _differences(recipe, runs, done, specs)
    return comparison.model_copy(update={"arms": results, "differences": differences})


def _arm_run(seed: int, done: Done, specs: Mapping[str, TaskSpec], folder: Path) -> ArmRun:
    found = [read_results(path / RESULTS) for path in done.folders]
    splits = {
        split: _joined([results.splits[split] for results in found if split in results.splits], specs)
        for split in ("validation", "test")
        if any(split in results.splits for results in found)
    }
    places = [str(path.relative_to(folder)) for path in done.folders]
    place = str(Path(places[0]).parent / "{task}") if done.per_task else places[0]
    alone = found[0] if done.trained and not done.per_task else None
    changed = [] if done.changed is None else [str(done.changed.relative_to(folder))]
    return ArmRun(
        seed=seed,
        folders=places if done.trained else changed,
        answers={split: f"{place}/{PREDICTIONS}/{split}" for split in splits},
        splits=splits,
        stages={} if alone is None else {stage: _stage_scores(alone, stage) for stage in alone.stages},
        released="" if alone is None else alone.released,
        budget=run_budget(done.folders, found) if done.trained else told_budget(found[0]),
    )


def _stage_scores(results: Results, stage: str) -> StageScores:
    result = results.stages[stage]
    test = result.test or (results.splits.get("test") if results.released == stage else None)
    return StageScores(validation=result.average, test=None if test is None else test.average)


def _joined(scores: Sequence[SplitScores], specs: Mapping[str, TaskSpec]) -> SplitScores:
    """Put the scores of runs of one task each together; the order is the recipe's."""
    if len(scores) == 1:
        return scores[0]
    tasks = {task: score for one in scores for task, score in one.tasks.items()}
    return split_scores({task: tasks[task] for task in specs if task in tasks}, specs)


def _differences(
    recipe: Recipe, runs: Mapping[str, list[ArmRun]], done: Mapping[str, Mapping[int, Done]], specs: Mapping[str, TaskSpec]
) -> list[Difference]:
    """Answer the questions on test rows, or on validation rows where there are no test rows."""
    found = []
    resampled: dict[tuple[str, int, str], Floats] = {}
    right: dict[tuple[int, str, str], tuple[str, Sequence[Any]]] = {}
    present = [arm for arm, mine in runs.items() if mine]
    for question, arm, against in questions(recipe, present):
        mine, theirs = ({run.seed: run for run in runs[name]} for name in (arm, against))
        seeds = sorted(mine.keys() & theirs.keys())
        if not seeds:
            continue
        split = "test" if all("test" in mine[seed].splits and "test" in theirs[seed].splits for seed in seeds) else "validation"
        scored = {task: spec for task, spec in specs.items() if task in mine[seeds[0]].splits[split].tasks}
        resamples = num_resamples(list(scored.values()))
        for name in (arm, against):
            for seed in seeds:
                if (name, seed, split) not in resampled:
                    answered = {task: answered_by(done[name][seed], spec, split) for task, spec in scored.items()}
                    for task, one in answered.items():
                        _check_same(right.setdefault((seed, split, task), (name, one.references)), name, one, split)
                    resampled[name, seed, split] = resampled_averages(answered, resamples=resamples)
        spans = np.mean([resampled[arm, seed, split] - resampled[against, seed, split] for seed in seeds], axis=0)
        low, high = interval(spans)
        by_seed = [mine[seed].splits[split].average - theirs[seed].splits[split].average for seed in seeds]
        found.append(
            Difference(
                question=question, arm=arm, against=against, split=split, difference=statistics.fmean(by_seed),
                low=low, high=high, by_seed=by_seed,
            )
        )  # fmt: skip
    return found


def _check_same(first: tuple[str, Sequence[Any]], name: str, answered: Answered, split: str) -> None:
    """Refuse arms that were scored on different rows: pairing them would say nothing.

    Raises:
        CheckpointError: the rows have changed since one of the arms was run.
    """
    other, references = first
    if references != answered.references:
        raise CheckpointError(
            f"the arms {other} and {name} were scored on different {split} rows of the task '{answered.spec.name}': its file has changed "
            f"since one of them was run, so they do not compare; put the rows back, or delete the folders arms/<arm> of those that were "
            f"run before the change, and run `alter compare` again with --resume"
        )


def answered_by(done: Done, spec: TaskSpec, split: str) -> Answered:
    """Read one task's predictions as the metric takes them.

    Raises:
        CheckpointError: they are gone or damaged.
    """
    folder = next(path for path in done.folders if path.name == spec.name) if done.per_task else done.folders[0]
    path = folder / PREDICTIONS / split / f"{spec.name}.jsonl"
    try:
        # Not splitlines: JSON leaves U+2028 and U+0085, which end lines too, as they are.
        records = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        references = [_reference(record, spec) for record in records]
        # What was written instead of a number counts much as it does in the scores: as the middle of what is right.
        middle = statistics.fmean(references) if spec.kind == "regression" else 0.0
        predictions = [_prediction(record, spec, middle) for record in records]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: this arm's answers are gone or damaged ({error}), and intervals are computed from them; delete {folder} and run "
            f"`alter compare` again with --resume"
        ) from None
    return Answered(spec=spec, predictions=predictions, references=references)


def _prediction(record: Mapping[str, Any], spec: TaskSpec, middle: float) -> Any:
    given = record["prediction"]
    if spec.kind != "regression":
        return str(given)
    return float(given) if isinstance(given, int | float) else middle


def _reference(record: Mapping[str, Any], spec: TaskSpec) -> Any:
    if spec.kind == "generation":
        return record.get("references", [record["target"]])
    return float(record["target"]) if spec.kind == "regression" else str(record["target"])
