"""Check all rows of a recipe before any model is loaded, and say everything that is wrong at once.

    Recipe -> `validate_recipe` -> ValidationReport(problems, warnings, summaries)

A problem stops a run; a warning does not (rows that stand in training and test alike, labels that only some splits show). The base
model is not looked at here: `alter.check` does that.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alter.errors import AlterError, DataError, counted
from alter.recipe import Recipe, load_recipe
from alter.tasks.answer import infer_labels
from alter.tasks.example import Example
from alter.tasks.read import SPLITS, UnknownTasks, check_templates, load_tasks, no_validation_rows, source_of
from alter.tasks.source import hub_splits
from alter.tasks.spec import CAPS, TaskSpec

NUM_SHOWN = 3
_MAX_LINES = 10
_PLACE = re.compile(r"^(?P<file>.+?):(?P<line>\d+): (?P<what>.*)$", re.DOTALL)
_AROUND = re.compile(r"(?<=\)), (?:after|before|where) .*?(?=; each row must be)", re.DOTALL)
"""The text around a fault in JSON, which differs where the fault is the same."""


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """What a task's files hold.

    Attributes:
        name: the task.
        kind: classification, regression or generation.
        rows: split -> good rows, before `cap`.
        cap: the most training rows that a run uses, if limited.
        labels: split -> label -> rows; empty for the other kinds.
        label_range: smallest and largest training label of a regression.
        examples: the first three training rows as the model would read them: text, text_pair, label or target text.
    """

    name: str
    kind: str
    rows: dict[str, int]
    cap: int | None
    labels: dict[str, dict[str, int]]
    label_range: tuple[float, float] | None
    examples: list[tuple[str, str | None, str | float | None]]


@dataclass(frozen=True, kw_only=True)
class BaseSummary:
    """What the base model is.

    Attributes:
        name: as the recipe names it.
        kind: encoder, encoder-decoder or decoder.
        model_type: its config's.
        family: the family that covers it; None where its FFNs are searched by structure.
        writes: whether it writes text, so that tasks of kind generation fit it.
    """

    name: str
    kind: str
    model_type: str
    family: str | None
    writes: bool


@dataclass(frozen=True, kw_only=True)
class ValidationReport:
    """What validation found.

    Attributes:
        problems: what must be mended before a run, each with file, line and task; the same problem in more rows is told once.
        warnings: what should be looked at.
        summaries: task -> what its files hold.
        base: what the base model is; None where it was not looked at.
    """

    problems: list[str]
    warnings: list[str]
    summaries: dict[str, TaskSummary]
    base: BaseSummary | None = None

    @property
    def is_valid(self) -> bool:
        """Whether a run may start."""
        return not self.problems


@dataclass
class _Problems:
    """Problems by what they say, in the order of their first place."""

    places: dict[tuple[str, str], dict[str, None]] = field(default_factory=dict)
    first: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, error: AlterError) -> None:
        match = _PLACE.match(str(error))
        file, line, what = (match["file"], match["line"], match["what"]) if match else ("", "", str(error))
        # A file of two splits tells its problems twice; a dict keeps each line once and in order.
        key = (file, _AROUND.sub("", what))
        self.first.setdefault(key, what)
        self.places.setdefault(key, {})[line] = None

    def listed(self) -> list[str]:
        return [_told_once(key[0], self.first[key], list(lines)) for key, lines in self.places.items()]


def _told_once(file: str, what: str, lines: list[str]) -> str:
    if not file:
        return what
    told = f"{file}:{lines[0]}: {what}"
    if len(lines) == 1:
        return told
    more = ", ".join(lines[1:_MAX_LINES]) + (", ..." if len(lines) > _MAX_LINES else "")
    return f"{told} (the same in {len(lines) - 1} more: line {more})"


def validate_recipe(recipe: Recipe | str | Path) -> ValidationReport:
    """Read every file of a recipe fully and report all problems, all warnings and a summary per task.

    Args:
        recipe: a YAML file, or a resolved recipe.

    Raises:
        ConfigError: the recipe itself cannot be read; what is wrong with its rows is in the report.
    """
    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    problems = _Problems()
    specs = [spec for spec in recipe.tasks if _can_be_read(spec, problems)]
    unknown = UnknownTasks(spec.name for spec in recipe.tasks)
    # The cap is a choice of rows for training; validation looks at all of them.
    uncapped = [spec.model_copy(update=dict.fromkeys(CAPS.values())) for spec in specs]
    splits = {split: load_tasks(uncapped, split, on_problem=problems.add, on_other=unknown.note) for split in SPLITS}
    for error in unknown.problems():
        problems.add(error)
    warnings = settings_without_effect(recipe)
    summaries: dict[str, TaskSummary] = {}
    for spec in specs:
        examples = {split: splits[split][spec.name] for split in SPLITS}
        _check_labels(spec, examples["train"], problems)
        warnings += _missing_splits(spec, problems) + _duplicates(spec, examples) + _unseen_labels(spec, examples)
        warnings += labels_without_validation(spec, examples["train"], examples["validation"])
        summaries[spec.name] = _summary(spec, examples)
    return ValidationReport(problems=problems.listed(), warnings=warnings, summaries=summaries)


def _can_be_read(spec: TaskSpec, problems: _Problems) -> bool:
    try:
        check_templates(spec)
    except AlterError as error:
        problems.add(error)
        return False
    if source_of(spec, "train") is None:
        problems.add(DataError(f"task '{spec.name}' has no training rows: source.train is missing; name a file there"))
        return False
    return True


def _check_labels(spec: TaskSpec, train: list[Example], problems: _Problems) -> None:
    # Without rows the file's own problem has been told.
    if not train:
        return
    try:
        infer_labels(spec, train)
    except AlterError as error:
        problems.add(error)


def _missing_splits(spec: TaskSpec, problems: _Problems) -> list[str]:
    """Tell of validation rows that are named nowhere, and return warnings of splits that a hub data set lacks."""
    sources = {split: source_of(spec, split) for split in SPLITS[1:]}
    if sources["validation"] is None:
        problems.add(no_validation_rows(spec))
    on_hub = {split: source[1] for split, source in sources.items() if source is not None and source[0] == "hub"}
    if not on_hub:
        return []
    try:
        present = hub_splits(next(iter(on_hub.values())))
    except AlterError:
        # Reading the rows failed the same way, and that is among the problems.
        return []
    if "validation" in on_hub and "validation" not in present:
        problems.add(no_validation_rows(spec))
    return [
        f"task '{spec.name}': {dataset_id} has no split '{split}' (it has {', '.join(present)}): no {split} rows are used"
        for split, dataset_id in on_hub.items()
        if split not in present
    ]


def _duplicates(spec: TaskSpec, examples: Mapping[str, list[Example]]) -> list[str]:
    train = {(example.text, example.text_pair) for example in examples["train"]}
    warnings = []
    for split in SPLITS[1:]:
        twice = [example for example in examples[split] if (example.text, example.text_pair) in train]
        if twice:
            warnings.append(
                f"{twice[0].place}: task '{spec.name}': {len(twice)} of {counted(len(examples[split]), f'{split} row')} "
                f"{'stands' if len(twice) == 1 else 'stand'} in train with the same text; scores on such rows tell little"
            )
    return warnings


def _unseen_labels(spec: TaskSpec, examples: Mapping[str, list[Example]]) -> list[str]:
    if spec.kind != "classification" or not examples["train"]:
        return []
    seen = {example.label for example in examples["train"]}
    warnings = []
    for split in SPLITS[1:]:
        unseen: dict[object, list[str]] = {}
        for example in examples[split]:
            if example.label not in seen:
                unseen.setdefault(example.label, []).append(example.place)
        warnings += [
            f"{places[0]}: task '{spec.name}': the label '{label}' stands in {counted(len(places), f'{split} row')} and in no "
            f"training row; the model cannot learn it"
            for label, places in unseen.items()
        ]
    return warnings


def labels_without_validation(spec: TaskSpec, train: Sequence[Example], validation: Sequence[Example]) -> list[str]:
    """Return a warning of the labels that training rows have and no validation row has, or none; `train` says it too."""
    if spec.kind != "classification" or not train or not validation:  # without any rows that is what is told
        return []
    shown = {example.label for example in validation}
    missing = sorted({str(example.label) for example in train if example.label not in shown})
    if not missing:
        return []
    named = ", ".join(f"'{label}'" for label in missing[:_MAX_LINES]) + (", ..." if len(missing) > _MAX_LINES else "")
    return [
        f"task '{spec.name}': {counted(len(missing), 'label')} of its training rows ({named}) "
        f"{'stands' if len(missing) == 1 else 'stand'} in no validation row; the best step is chosen without looking at "
        f"{'it' if len(missing) == 1 else 'them'}: add such validation rows"
    ]


def settings_without_effect(recipe: Recipe) -> list[str]:
    """Return a warning for each task that asks for longer answers than the recipe allows, and stage that trains what is not there.

    `train` says it too.
    """
    most = recipe.max_target_length
    none_shared = [
        f"stages.{name}.trains names shared_adapters, but mta.num_shared is 0, so there are none; set mta.num_shared: 2 and a gate that "
        f"weighs them (mta.gate.kind: {'outputs' if recipe.preset == 'alter' else 'task'}), or leave the group out"
        for name, stage in recipe.stages.items()
        if "shared_adapters" in stage.trains and recipe.mta.num_shared == 0 and recipe.mta.sites != "none"
    ]
    return none_shared + [
        f"task '{spec.name}': generation.max_new_tokens is {spec.generation.max_new_tokens}, but max_target_length is {most}, so its "
        f"answers end after {counted(most, 'token')}; raise max_target_length, or lower max_new_tokens"
        for spec in recipe.tasks
        if (spec.generation.max_new_tokens or 0) > most
    ]


def _summary(spec: TaskSpec, examples: Mapping[str, list[Example]]) -> TaskSummary:
    numbers = [example.label for example in examples["train"] if isinstance(example.label, float)]
    counts = {split: Counter(str(example.label) for example in rows) for split, rows in examples.items()}
    return TaskSummary(
        name=spec.name,
        kind=spec.kind,
        rows={split: len(rows) for split, rows in examples.items()},
        cap=spec.cap,
        labels={} if spec.kind != "classification" else {split: dict(sorted(count.items())) for split, count in counts.items()},
        label_range=(min(numbers), max(numbers)) if numbers else None,
        examples=[(example.text, example.text_pair, example.label) for example in examples["train"][:NUM_SHOWN]],
    )
