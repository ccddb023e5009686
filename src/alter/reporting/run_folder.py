"""A run directory as a report reads it: what the run reached, its journal, its gate weights, its answers.

Shapes: T tasks, L sites, E adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic

from alter.comparison import FLOAT, base_size
from alter.config import load_yaml
from alter.errors import CheckpointError
from alter.reporting.files import Files, Line
from alter.results import Results, Score, read_results

RESULTS, RECIPE, JOURNAL, GATES, PREDICTIONS = "results.json", "recipe.yaml", "metrics.jsonl", "gates.json", "predictions"
CONFIG = Path("model", "alter_config.json")
SPLITS = ("test", "validation")
"""In the order of the tables."""


class Event(Line):
    """A line of metrics.jsonl: a log step, or a validation."""

    event: Literal["step", "validation"]
    stage: str
    step: int
    losses: dict[str, Score] = {}
    average: Score = float("nan")


class GateMap(Line):
    """gates.json: mean gate weights of each stage, (T, L, E)."""

    tasks: list[str]
    adapters: list[str]
    sites: list[int]
    stages: dict[str, list[list[list[Score]]]]

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> GateMap:
        for stage, weights_TLE in self.stages.items():
            shape = {
                (len(weights_TLE), len(weights_LE), len(weights_E)) for weights_LE in weights_TLE for weights_E in weights_LE
            }
            if shape - {(len(self.tasks), len(self.sites), len(self.adapters))}:
                raise ValueError(f"stages.{stage} does not fit {len(self.tasks)} tasks, {len(self.sites)} sites and "
                                 f"{len(self.adapters)} adapters")  # fmt: skip
        return self


class Answer(Line):
    """A line of predictions/<split>/<task>.jsonl."""

    input: str = ""
    prediction: Annotated[str | float | None, pydantic.Field(union_mode="left_to_right")] = None
    target: Annotated[str | float | None, pydantic.Field(union_mode="left_to_right")] = None
    references: list[str] | None = None
    score: float | None = None
    gate_weights: dict[str, float] = {}


class _Task(Line):
    name: str
    kind: str = "classification"
    labels: list[str] | None = None
    group: str | None = None


class _Config(Line):
    tasks: list[_Task] = []


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a run's files say of a task."""

    kind: str
    labels: list[str] | None
    group: str | None


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """A run directory; what an earlier version did not write is None or empty.

    Attributes:
        path: where it is.
        results: results.json.
        recipe: recipe.yaml as plain settings.
        tasks: what is known of each task.
        journal: metrics.jsonl, that of a stage 1 taken from another run before it.
        gates: gates.json.
        stored_bytes: what the released model takes on disk, its base included.
    """

    path: Path
    results: Results
    recipe: dict[str, Any]
    tasks: dict[str, TaskFacts]
    journal: list[Event]
    gates: GateMap | None
    stored_bytes: int | None


def read_run(path: Path, files: Files) -> RunFolder:
    """Read a finished run.

    Raises:
        CheckpointError: it is not finished, or a file is damaged.
    """
    if not (path / RESULTS).exists():
        raise CheckpointError(
            f"{path}: holds an unfinished run ({RESULTS} is missing); finish it with `alter train {path / RECIPE} --output-dir {path} "
            f"--resume`, then report"
        )
    results = read_results(path / RESULTS)
    files.note(path / RESULTS)
    recipe = load_yaml(path / RECIPE) if (path / RECIPE).exists() else {}
    files.note(path / RECIPE)
    return RunFolder(
        path=path,
        results=results,
        recipe=recipe,
        tasks=_tasks(path, recipe, files),
        journal=_journal(path, results, files),
        gates=files.parsed(path / GATES, GateMap),
        stored_bytes=_stored_bytes(path, results),
    )


def _tasks(path: Path, recipe: dict[str, Any], files: Files) -> dict[str, TaskFacts]:
    """Return what is known of tasks: the model's configuration has the labels that training found, the recipe those it names."""
    found = files.parsed(path / CONFIG, _Config)
    try:
        blocks = found.tasks if found is not None else _Config.model_validate({"tasks": recipe.get("tasks", [])}).tasks
    except pydantic.ValidationError:
        raise CheckpointError(f"{path / RECIPE}: its tasks are no list of tasks; put the run's own recipe back") from None
    return {task.name: TaskFacts(kind=task.kind, labels=task.labels, group=task.group) for task in blocks}


def _journal(path: Path, results: Results, files: Files) -> list[Event]:
    mine = files.lines(path / JOURNAL, Event) or []
    first = results.stages.get("stage1")
    if first is None or not first.taken_from or any(event.stage == "stage1" for event in mine):
        return mine
    place = Path(first.taken_from)
    # In a comparison that was moved or copied the other run still stands beside this one: arms/<arm>/<seed>.
    for other in (path.parent.parent / place.parent.name / place.name, place):
        theirs = files.lines(other / JOURNAL, Event)
        if theirs is not None:
            return [event for event in theirs if event.stage == "stage1"] + mine
    return mine


def _stored_bytes(path: Path, results: Results) -> int | None:
    """Return the bytes of all tensors of the model; a base that training left alone counts once, and lies elsewhere."""
    found = sorted((path / "model").rglob("*.safetensors"))
    if not found:
        return None
    base = 0 if (path / "model" / "backbone.safetensors").exists() else FLOAT * base_size(results)
    return base + sum(file.stat().st_size for file in found)


def read_answers(folder: str, root: Path, tasks: list[str], files: Files) -> dict[str, list[Answer]]:
    """Return each task's answers; tasks without a file are left out.

    Args:
        folder: relative to `root`; `{task}` in it stands for the task.
        root: a comparison's folder, or a run directory.
        tasks: by name.
        files: reads them.
    """
    found = {task: files.lines(root / folder.replace("{task}", task) / f"{task}.jsonl", Answer) for task in tasks}
    return {task: answers for task, answers in found.items() if answers}
