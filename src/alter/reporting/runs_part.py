"""Run directories that are in no comparison as a part of a report: seeds of the same settings are one arm."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alter.comparison import Budget, ComparedTask, Comparison, Spread, StageScores, Summary
from alter.reporting.arms import Arm, Column, Member, Part, spread
from alter.reporting.files import Files
from alter.reporting.run_folder import PREDICTIONS, SPLITS, RunFolder, read_answers, read_run
from alter.reporting.words import listed, stage_name
from alter.results import SplitScores, StageResult, average

SMALL_BELOW: int = Comparison.model_fields["small_below"].default


def runs_part(folders: Sequence[Path], files: Files) -> Part:
    """Read runs and put those of the same settings together.

    Raises:
        CheckpointError: a run is not finished, or a file is damaged.
    """
    runs = [read_run(folder, files) for folder in folders]
    tasks = _tasks(runs)
    groups = grouped(runs)
    arms = [_arm(name, found, tasks, files, prefix=f"{name}: " if len(groups) > 1 else "") for name, found in groups.items()]
    return Part(
        title=listed(list(groups)),
        folders=folders,
        facts=[_facts(run, name) for name, found in groups.items() for run in found],
        tasks=tasks,
        arms=arms,
        small_below=SMALL_BELOW,
        environments={str(run.path): run.results.environment for run in runs},
    )


def grouped(runs: Sequence[RunFolder]) -> dict[str, list[RunFolder]]:
    """Return name -> runs whose settings differ in the seed alone; the same seed twice is two arms.

    An arm is called after its recipe; with its preset where that is not enough, and after its (first) folder where that is not either.
    """
    found: dict[str, dict[int, RunFolder]] = {}
    for run in runs:
        settings = {key: value for key, value in run.recipe.items() if key not in ("seed", "stage1_from")}
        results = run.results
        key = json.dumps([results.recipe, results.preset, results.model, settings], sort_keys=True, default=str)
        while run.results.seed in found.get(key, {}):
            key += "'"
        found.setdefault(key, {})[run.results.seed] = run
    groups = [[members[seed] for seed in sorted(members)] for members in found.values()]
    names = [members[0].results.recipe for members in groups]
    if len(set(names)) < len(names):
        names = [f"{members[0].results.recipe} ({members[0].results.preset or 'no preset'})" for members in groups]
    for name_of in (lambda path: path.resolve().name, str):
        if len(set(names)) < len(names):
            names = [name_of(members[0].path) for members in groups]
    return dict(zip(names, groups, strict=True))


def _facts(run: RunFolder, arm: str) -> dict[str, str]:
    results = run.results
    return {
        "folder": str(run.path),
        "recipe": results.recipe,
        "base model": results.model,
        "preset": results.preset or "-",
        "seed": str(results.seed),
        "released": stage_name(results.released) or "-",
        **({} if arm == results.recipe else {"arm": arm}),
    }


def _tasks(runs: Sequence[RunFolder]) -> dict[str, ComparedTask]:
    found: dict[str, ComparedTask] = {}
    for run in runs:
        scores = {task: score for split in reversed(SPLITS) for task, score in _scores(run, split).items()}
        for task, score in scores.items():
            facts = run.tasks.get(task)
            scored = {split: _scores(run, split)[task].num_examples for split in SPLITS if task in _scores(run, split)}
            found.setdefault(
                task,
                ComparedTask(
                    kind=facts.kind if facts is not None else "unknown",
                    metric=score.metric,
                    rows=run.results.rows.get(task, scored),
                    labels=facts.labels if facts is not None and facts.kind == "classification" else None,
                    group=facts.group if facts is not None else None,
                ),
            )
    return found


def _scores(run: RunFolder, split: str) -> Mapping[str, Any]:
    return run.results.splits[split].tasks if split in run.results.splits else {}


def _arm(name: str, runs: Sequence[RunFolder], tasks: Mapping[str, ComparedTask], files: Files, *, prefix: str) -> Arm:
    members = [
        Member(
            seed=run.results.seed,
            run=run,
            scores=run.results.splits,
            budget=_budget(run),
            stages={stage: _stage(one) for stage, one in run.results.stages.items()},
            released=run.results.released,
            answers={split: read_answers(f"{PREDICTIONS}/{split}", run.path, list(tasks), files) for split in SPLITS},
        )
        for run in runs
    ]
    columns = [
        Column(name=f"{prefix}{heading}", splits=_summaries(scores, tasks), seeds=_seeds(scores, runs))
        for heading, scores in _columns(runs).items()
    ]
    splits = _summaries(_released(runs), tasks)
    title = f"{runs[0].results.recipe}, preset {runs[0].results.preset or 'none'}"
    return Arm(name=name, title=title, family="run", members=members, splits=splits, columns=columns, is_close=True)


def _stage(one: StageResult) -> StageScores:
    return StageScores(validation=one.average, test=None if one.test is None else one.test.average)


BySplit = Mapping[str, Sequence[SplitScores | None]]
"""Split -> scores of each run, None where it has none."""


def _columns(runs: Sequence[RunFolder]) -> dict[str, BySplit]:
    """Return heading -> split -> scores: yardsticks, and stages; what was released beside them where it is not one stage of them."""
    first, released = runs[0].results, _released(runs)
    found: dict[str, BySplit] = {}
    for yardstick in first.baselines:
        found[yardstick] = {split: [run.results.baselines.get(yardstick, {}).get(split) for run in runs] for split in SPLITS}
    stages = {run.results.released for run in runs}
    for stage in first.stages:
        if stages == {stage}:
            found[f"{stage_name(stage)} (released)"] = released
        else:
            results = [run.results.stages.get(stage) for run in runs]
            found[stage_name(stage)] = {
                "test": [None if one is None else one.test for one in results],
                "validation": [_stage_scores(run, stage) for run in runs],
            }
    return found if len(stages) == 1 and first.stages else {**found, "released": released}


def _released(runs: Sequence[RunFolder]) -> BySplit:
    return {split: [run.results.splits.get(split) for run in runs] for split in SPLITS}


def _seeds(scores: BySplit, runs: Sequence[RunFolder]) -> dict[str, list[int]]:
    return {
        split: [run.results.seed for run, one in zip(runs, mine, strict=True) if one is not None]
        for split, mine in scores.items()
    }


def _summaries(scores: BySplit, tasks: Mapping[str, ComparedTask]) -> dict[str, Summary]:
    present = {split: [one for one in mine if one is not None] for split, mine in scores.items()}
    return {split: summarised(mine, tasks) for split, mine in present.items() if mine}


def _stage_scores(run: RunFolder, stage: str) -> SplitScores | None:
    """Return a stage's validation scores at its best step as scores of a split."""
    result, split = run.results.stages.get(stage), run.results.splits.get("validation")
    if result is None or split is None or not result.scores:
        return None
    tasks = {
        task: split.tasks[task].model_copy(update={"score": score})
        for task, score in result.scores.items()
        if task in split.tasks
    }
    return SplitScores(average=result.average, tasks=tasks)


def summarised(scores: Sequence[SplitScores], tasks: Mapping[str, ComparedTask]) -> Summary:
    """Return scores of one split, one a seed, as means and deviations; there is no delta_m without one model a task."""
    return Summary(
        average=spread(one.average for one in scores),
        small=_small(scores, tasks),
        tasks={task: spread(one.tasks[task].score for one in scores if task in one.tasks) for task in scores[0].tasks},
    )


def _small(scores: Sequence[SplitScores], tasks: Mapping[str, ComparedTask]) -> Spread | None:
    """Return the mean over small tasks; None where these are all tasks or none, or training rows were not counted."""
    mine = scores[0].tasks
    small = [task for task in mine if task in tasks and 0 < tasks[task].rows.get("train", 0) < SMALL_BELOW]
    if not small or len(small) == len(mine):
        return None
    groups = {task: tasks[task].group for task in small}
    return spread(average({task: one.tasks[task].score for task in small if task in one.tasks}, groups) for one in scores)


def _budget(run: RunFolder) -> Budget:
    stages, parameters = run.results.stages, run.results.parameters
    seconds = sum(stage.seconds for stage in stages.values())
    peaks = [stage.peak_memory_bytes for stage in stages.values() if stage.peak_memory_bytes is not None]
    second = stages["stage2"].seconds if "stage2" in stages else None
    return Budget(
        trainable_parameters=_trained(run),
        total_parameters=parameters.get("total"),
        steps=sum(stage.steps for stage in stages.values()) if stages else None,
        seconds=seconds if stages else None,
        peak_memory_bytes=max(peaks) if peaks else None,
        stored_bytes=run.stored_bytes,
        stage2_share=second / seconds if second is not None and seconds else None,
    )


def _trained(run: RunFolder) -> int | None:
    """Return how many parameters any stage trained, each counted once."""
    stages = run.recipe.get("stages")
    if not isinstance(stages, dict) or not run.results.parameters:
        return None
    settings = [stages.get(stage) for stage in run.results.stages]
    groups = {group for one in settings if isinstance(one, dict) for group in one.get("trains", [])}
    return sum(run.results.parameters.get(group, 0) for group in groups)
