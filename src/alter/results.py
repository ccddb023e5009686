"""results.json: scores per task, split and stage (schema 1, drawn in DESIGN and docs/reference/run_directory.md).

Scores are in percent, null where there is none. `average` is the plain mean over tasks, where the tasks of one group are averaged
first.
"""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from alter.config import Settings, parse
from alter.errors import CheckpointError, ConfigError

SCHEMA = 1

Score = Annotated[
    float,
    pydantic.Field(allow_inf_nan=True),
    pydantic.BeforeValidator(lambda value: math.nan if value is None else value),
]
"""A number that may be missing: NaN here, null in the file, for JSON has no NaN."""


class TaskScore(Settings):
    """One task on one split."""

    score: Score
    """The primary metric, in percent."""
    metric: str
    """Name of the primary metric."""
    metrics: dict[str, Score]
    """All metrics; in percent, but for those that are no fraction (mse)."""
    num_examples: int
    """Rows scored."""
    constant_prediction: str | None = None
    """The one answer given to every row, where a model gave only one: a collapsed task."""
    num_truncated: int = 0
    """Rows whose text was longer than max_length and was cut."""
    num_invalid: int = 0
    """Rows whose answer was written and is no label, which counts as wrong, or no number, which counts as the training rows' mean."""
    signatures: dict[str, str] = {}
    """Metric -> its exact variant, where the metric has one (sacrebleu)."""


class SplitScores(Settings):
    """All tasks on one split."""

    average: Score
    """Mean over tasks, groups first."""
    tasks: dict[str, TaskScore]
    """By task name."""


class StageResult(Settings):
    """What one stage reached and cost."""

    average: Score
    """Best validation average of the stage."""
    seconds: float
    """Wall-clock seconds of the stage's training, validation included."""
    trainable_parameters: int
    """Parameters that the stage trained."""
    steps: int = 0
    """Optimizer steps taken."""
    best_step: int = 0
    """Step of the best validation average; 0 is the stage's start."""
    scores: dict[str, Score] = {}
    """Validation score per task at the best step, in percent."""
    peak_memory_bytes: int | None = None
    """Most memory in use during the stage: tensors on a CUDA device, else the whole process; null where the system does not tell."""
    taken_from: str = ""
    """The run that the stage was taken from (`stage1_from`), which spent its seconds and steps; empty: trained here."""
    test: SplitScores | None = None
    """Test scores of the stage's best step, where the recipe asks for them (train.test_stages: all)."""


class Results(Settings):
    """The whole file."""

    schema_version: int = SCHEMA
    recipe: str
    """Name of the recipe."""
    model: str
    """The base model as the recipe names it."""
    preset: str = ""
    """The recipe's preset."""
    seed: int
    """The recipe's seed."""
    stages: dict[str, StageResult] = {}
    """By stage name."""
    released: str = ""
    """The stage whose model was kept."""
    splits: dict[str, SplitScores] = {}
    """By split."""
    baselines: dict[str, dict[str, SplitScores]] = {}
    """Yardstick -> split -> scores, where a verb computed them (demo)."""
    rows: dict[str, dict[str, int]] = {}
    """Task -> split -> labelled rows used, caps applied."""
    parameters: dict[str, int] = {}
    """Counts: task_adapters, shared_adapters, selector, gate, heads, backbone, total."""
    environment: dict[str, str] = {}
    """Versions, processors and the like."""


def average(scores: Mapping[str, float], groups: Mapping[str, str | None]) -> float:
    """Return the mean of task scores, the tasks of one group averaged first.

    Args:
        scores: task -> score; a score that is not a number makes the average not a number.
        groups: task -> group; a task without a group is a group of its own.
    """
    members: dict[str, list[float]] = {}
    for task, score in scores.items():
        group = groups.get(task)
        members.setdefault(f"task:{task}" if group is None else f"group:{group}", []).append(score)
    means = [sum(values) / len(values) for values in members.values()]
    return sum(means) / len(means) if means else math.nan


def write_results(results: Results, path: Path) -> None:
    """Write results.json atomically; the file's `schema` key stands first."""
    content = results.model_dump(exclude_defaults=False)
    write_json({"schema": content.pop("schema_version"), **content}, path)


def read_results(path: Path) -> Results:
    """Read a results.json.

    Raises:
        CheckpointError: missing, unreadable, not JSON, of another schema, or with other keys.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the run has not finished, or this is no run directory") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); give the path of a run's results.json") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: not valid JSON ({error}); run `alter evaluate` again to rewrite it") from None
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA or "schema_version" in content:
        raise CheckpointError(f"{path}: not a results file of schema {SCHEMA}; it was written by another program or version")
    try:
        return parse(Results, content, where=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}\nThe file was changed by hand, or written by another version of alter") from None


def write_json(content: object, path: Path) -> None:
    """Write JSON atomically: to a file beside it, flushed to disk, then renamed. A number that is not finite becomes null."""
    write_text(json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def finite(content: Any) -> Any:
    """Return `content` with null for NaN and infinities, which JSON cannot say and other readers refuse."""
    if isinstance(content, dict):
        return {key: finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def write_text(text: str, path: Path) -> None:
    """Write text atomically, so that a reader sees the old file or the new one and never a half."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("x", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
