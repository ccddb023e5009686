"""compare.json: arms side by side, what each reached and what it cost (schema 1). Written by `alter compare`, read by `alter report`.

Scores are in percent, null where there is none. A comparison's folder:

    COMPARE/
        compare.json                          this file
        compare.md                            its tables
        recipe.yaml                           the resolved recipe
        arms/<arm>/seed<k>/                   a run directory (see `alter train`); arms of one task at a time have one below for each
                                              task; yardsticks and ablations have results.json and predictions/ only
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from alter.config import Settings, parse
from alter.errors import CheckpointError, ConfigError
from alter.results import Results, Score, SplitScores, write_json

SCHEMA = 1
NAME = "compare.json"
FLOAT = 4
"""Bytes of a stored number: weights are written in float32."""
LEAST = 0.05
"""Points. A difference below it is shown as 0.0, so it is not told apart whatever its interval."""

Verdict = Literal["better", "worse", "not told apart", "the same scores"]

Family = Literal["yardstick", "per-task", "one-model", "alter", "stage2", "gate", "ablation", "peer", "own"]
"""What an arm is: no model to speak of, T models, one model without an MTA, the method, variants of its second stage, another gate on
the same stage 1, a trained model changed before it is scored, another library, or an arm of the user's own."""


class Budget(Settings):
    """What an arm of one seed cost."""

    trainable_parameters: int | None = None
    """Parameters that training changed; of T models: of all of them together; of two stages: of either, each counted once;
    LoRAs weighed anew count, too."""
    total_parameters: int | None = None
    """Parameters of all models together; a base that stays as it is counts once."""
    steps: int | None = None
    """Optimizer steps, those of a stage 1, or of LoRAs, that were taken from another arm included."""
    seconds: float | None = None
    """Wall-clock seconds of training and validation, those of a stage 1, or of LoRAs, that were taken from another arm included."""
    relative_time: float | None = None
    """`seconds` over those of the arm `multi-full` with the same seed: times of one machine and one session compare, bare times do not."""
    peak_memory_bytes: int | None = None
    """Most memory in use while training: tensors on a CUDA device, else the process."""
    stored_bytes: int | None = None
    """Bytes that all tasks' models take on disk; a base that stays as it is counts once."""
    stage2_share: float | None = None
    """Stage 2's share of `seconds`, 0 to 1; null where there is none."""


class StageScores(Settings):
    """One stage of a run, scored at its best step whether or not it was the one that was kept."""

    validation: Score
    """Validation average."""
    test: Score | None = None
    """Test average, where there are test rows."""


class ArmRun(Settings):
    """An arm with one seed."""

    seed: int
    """The recipe's seed."""
    folders: list[str] = []
    """Its run directories, relative to the comparison's; of ablations the run that was changed. Yardsticks have none."""
    answers: dict[str, str] = {}
    """Split -> folder with `<task>.jsonl` predictions, relative to the comparison's; of arms of one task at a time `{task}` stands for
    the task's folder."""
    splits: dict[str, SplitScores] = {}
    """By split."""
    stages: dict[str, StageScores] = {}
    """By stage, of arms that are one run. A stage that was taken from another arm has its test average there."""
    released: str = ""
    """The stage whose model was kept."""
    budget: Budget = Budget()
    """What it cost."""


class Spread(Settings):
    """A number over seeds."""

    mean: Score
    """Mean."""
    sd: Score
    """Standard deviation (n - 1); null with one seed."""
    seeds: int
    """Seeds."""


class Summary(Settings):
    """An arm on one split, over seeds."""

    average: Spread
    """Mean over tasks (groups first)."""
    small: Spread | None = None
    """Mean over the tasks with fewer training rows than `Comparison.small_below`; null where these are all tasks or none."""
    delta_m: Spread | None = None
    """Mean over tasks of 100 (score - s) / s, s the score of the arm `single-full` with the same seed; negative is worse."""
    left_out: list[str] = []
    """Tasks that delta_m leaves out, with all seeds, because s is below 1 percent with one, so that the quotient would be noise."""
    tasks: dict[str, Spread] = {}
    """By task."""


class ArmResult(Settings):
    """An arm over all seeds."""

    title: str
    """What it is, in a line."""
    family: Family
    """What kind of arm."""
    runs: list[ArmRun] = []
    """One a seed."""
    summary: dict[str, Summary] = {}
    """By split."""
    failed: str = ""
    """Why it has no run, or none of some seeds: the messages of what went wrong."""


class Difference(Settings):
    """The difference of two arms' averages on test rows, answering one question."""

    question: str
    """In plain words."""
    arm: str
    """The first arm."""
    against: str
    """The second."""
    split: str
    """Where both were scored."""
    difference: Score
    """Mean over seeds of the first arm's average less the second's, in points."""
    low: Score
    """Lower end of the 95 % interval of the difference, itself a mean over seeds, under a paired bootstrap over rows."""
    high: Score
    """Upper end."""
    by_seed: list[Score] = []
    """The difference of each seed."""


class ComparedTask(Settings):
    """A task of the comparison."""

    kind: str
    """classification, regression or generation."""
    metric: str
    """The primary metric."""
    rows: dict[str, int] = {}
    """Split -> rows."""
    labels: list[str] | None = None
    """Classes, where it has them."""
    group: str | None = None
    """Tasks of one group are averaged first."""


class Comparison(Settings):
    """The whole file."""

    schema_version: int = SCHEMA
    recipe: str
    """Name of the recipe."""
    model: str
    """The base model as the recipe names it."""
    preset: str
    """The recipe's preset."""
    seeds: list[int]
    """Seeds."""
    small_below: int = 3000
    """A task with fewer training rows is small."""
    tasks: dict[str, ComparedTask]
    """By name."""
    arms: dict[str, ArmResult]
    """By name, in the order of the tables."""
    differences: list[Difference] = []
    """Pairs of arms that answer a question."""
    environment: dict[str, str] = {}
    """Versions, processors and the like."""


def verdict(one: Difference) -> Verdict:
    """Return what a difference says: an answer only where its interval leaves zero out, all seeds agree and there is a digit to show.

    Arms that score the same however rows are drawn (two gates that both kept their common stage 1) leave nothing to tell apart.
    """
    seeds = one.by_seed or [one.difference]
    if one.low == one.high == 0 and not any(seeds):
        return "the same scores"
    if abs(one.difference) < LEAST:
        return "not told apart"
    if one.low > 0 and all(value > 0 for value in seeds):
        return "better"
    return "worse" if one.high < 0 and all(value < 0 for value in seeds) else "not told apart"


def mean(values: Iterable[float | None]) -> float | None:
    """Return the mean of the numbers among `values`; None where there are none."""
    found = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(found) if found else None


def mean_budget(budgets: Sequence[Budget]) -> Budget:
    """Return what an arm cost, on average over its seeds."""
    found = {name: mean(getattr(budget, name) for budget in budgets) for name in Budget.model_fields}
    shares = ("seconds", "relative_time", "stage2_share")
    return Budget.model_validate({k: value if value is None or k in shares else round(value) for k, value in found.items()})


def base_size(results: Results) -> int:
    """Return the parameters of a run's base, with the FFNs that copies stand in for: it is needed whole to load a model."""
    counts = results.parameters
    added = ("task_adapters", "shared_adapters", "selector", "gate", "heads")
    return counts.get("total", 0) - sum(counts.get(group, 0) for group in added)


def write_comparison(comparison: Comparison, folder: Path) -> None:
    """Write compare.json atomically."""
    content = comparison.model_dump()
    write_json({"schema": content.pop("schema_version"), **content}, folder / NAME)


def read_comparison(folder: Path) -> Comparison:
    """Read the compare.json of a comparison's folder.

    Raises:
        CheckpointError: missing, unreadable, of another schema, or with other keys.
    """
    path = folder / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; give the --output-dir of a finished `alter compare`") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); run `alter compare` again, which keeps finished arms") from None
    if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA or "schema_version" in content:
        raise CheckpointError(f"{path}: not a comparison of schema {SCHEMA}; it was written by another program or version")
    try:
        return parse(Comparison, content, where=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}\nThe file was changed by hand, or written by another version of alter") from None
