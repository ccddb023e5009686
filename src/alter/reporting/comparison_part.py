"""A comparison's folder as a part of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from alter.comparison import NAME, ArmResult, ArmRun, Comparison, read_comparison
from alter.reporting.arms import METHOD_FAMILIES, Arm, Column, Member, Part
from alter.reporting.files import Files
from alter.reporting.run_folder import RESULTS, SPLITS, Answer, RunFolder, read_answers, read_run
from alter.reporting.words import listed

WITHOUT_RUNS = ("yardstick", "ablation")
"""Families whose arms have no run of their own: nothing was trained, or what was trained is another arm's."""
WITHOUT_DETAIL = ("yardstick", "per-task", "ablation", "peer")
"""Families that are looked at closely only where nothing else is there: they have no gates."""


def comparison_part(folder: Path, files: Files) -> Part:
    """Read a comparison and the run directories that it names; those that were deleted are done without.

    Raises:
        CheckpointError: a file is damaged.
    """
    found = read_comparison(folder)
    files.note(folder / NAME)
    close, closely = close_arm(found)
    arms = [_arm(name, arm, folder, found, files, is_close=name == close) for name, arm in found.arms.items()]
    return Part(
        title=f"comparison {found.recipe}",
        folders=[folder],
        facts=[_facts(folder, found)],
        tasks=found.tasks,
        arms=arms,
        small_below=found.small_below,
        closely=closely,
        differences=found.differences,
        environments=_environments(folder, found, arms),
        is_last_call=not any(run.results.environment for arm in arms for run in arm.runs),
        is_comparison=True,
    )


def close_arm(found: Comparison) -> tuple[str | None, str]:
    """Return the arm to look at closely, and why, in a sentence.

    It is the recipe as it stands, which has its preset's name. Without a run of it, it is the variant of the method with the best average
    on validation rows (test rows choose nothing); without one of these too, the best trained arm, and then the best of all. Where none of
    them has such an average, it is the first.
    """
    present = {name: arm for name, arm in found.arms.items() if arm.runs}
    if found.preset in present:
        return found.preset, f"Looked at closely is {found.preset}, the recipe as it stands."
    tiers = {
        "of the method's variants": [name for name, arm in present.items() if arm.family in METHOD_FAMILIES],
        "of the arms that were trained": [name for name, arm in present.items() if arm.family not in WITHOUT_DETAIL],
        "of the arms": list(present),
    }
    for of, names in tiers.items():
        if names:
            best = max(names, key=lambda name: _validation(present[name]))
            has_average = math.isfinite(_validation(present[best]))
            choice = (
                "has the best average on validation rows" if has_average else "is the first, for none has one on validation rows"
            )
            why = f"{found.preset}, the recipe as it stands, has no run; {of} it {choice}"
            return best, f"Looked at closely is {best}: {why}."
    return None, ""


def _validation(arm: ArmResult) -> float:
    summary = arm.summary.get("validation")
    return summary.average.mean if summary is not None and math.isfinite(summary.average.mean) else -math.inf


def _environments(folder: Path, found: Comparison, arms: Sequence[Arm]) -> dict[str, dict[str, str]]:
    """Return where from -> versions and machine: those of the runs, for compare.json has those of its last call alone."""
    runs: dict[tuple[tuple[str, str], ...], list[str]] = {}
    for arm in arms:
        for run in arm.runs:
            of = runs.setdefault(tuple(run.results.environment.items()), [])
            of.append(f"{arm.name}, seed {run.results.seed}")
    known = {environment: of for environment, of in runs.items() if environment}
    if len(known) < 2:
        return {str(folder): dict(next(iter(known), ())) or found.environment}
    return {of[0] if len(of) == 1 else f"{of[0]} and {len(of) - 1} more": dict(environment) for environment, of in known.items()}


def _facts(folder: Path, found: Comparison) -> dict[str, str]:
    return {
        "folder": str(folder),
        "recipe": found.recipe,
        "base model": found.model,
        "preset": found.preset,
        "seeds": listed([str(seed) for seed in found.seeds]),
        "arms": str(len(found.arms)),
    }


def _arm(name: str, arm: ArmResult, folder: Path, found: Comparison, files: Files, *, is_close: bool) -> Arm:
    has_run = arm.family not in WITHOUT_RUNS
    members = [_member(run, folder, list(found.tasks), files, has_run=has_run, is_close=is_close) for run in arm.runs]
    seeds = {split: [run.seed for run in arm.runs if split in run.splits] for split in arm.summary}
    columns = [Column(name=name, splits=arm.summary, seeds=seeds)] if arm.summary else []
    return Arm(
        name=name, title=arm.title, family=arm.family, members=members, splits=arm.summary, columns=columns, is_close=is_close,
        failed=arm.failed,
    )  # fmt: skip


def _member(run: ArmRun, folder: Path, tasks: list[str], files: Files, *, has_run: bool, is_close: bool) -> Member:
    answers: Mapping[str, Mapping[str, list[Answer]]] = {}
    if is_close:
        places = {split: run.answers[split] for split in SPLITS if split in run.answers}
        answers = {split: read_answers(place, folder, tasks, files) for split, place in places.items()}
    read = _run(folder, run, files) if has_run else None
    return Member(
        seed=run.seed, run=read, scores=run.splits, budget=run.budget, answers=answers, stages=run.stages, released=run.released
    )


def _run(folder: Path, run: ArmRun, files: Files) -> RunFolder | None:
    """Return the arm's run directory; arms of one task at a time have many, and none that shows them all."""
    if len(run.folders) != 1:
        return None
    path = folder / run.folders[0]
    return read_run(path, files) if (path / RESULTS).exists() else None
