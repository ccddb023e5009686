"""From files to examples: whose is a row, and all rows of one split of all tasks.

    Row -> whose task is it? -> its input (`alter.tasks.row`) + what it wants (`alter.tasks.answer`) -> Example

One file may feed many tasks: a row that names a task belongs to that task alone, a row that names none belongs to every task that
reads the file. Each file is read once for all tasks that share it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from alter.errors import ConfigError, DataError, TaskError, counted, did_you_mean
from alter.tasks.answer import infer_labels, labelled, target_text
from alter.tasks.columns import Columns
from alter.tasks.example import Example
from alter.tasks.row import ALIASES, at_place, canonical, is_blank, render_inputs, unlabelled
from alter.tasks.source import OnProblem, Row, hub_splits, read_hub_rows, read_rows
from alter.tasks.spec import CAPS, TaskSpec, label_text
from alter.tasks.template import check_template

SPLITS = ("train", "validation", "test")


def load_split(spec: TaskSpec, split: str, *, seed: int = 0, on_problem: OnProblem | None = None) -> list[Example]:
    """Return the examples of one task and split, in the file's order; see `load_tasks`."""
    return load_tasks([spec], split, seed=seed, on_problem=on_problem)[spec.name]


def load_tasks(
    specs: Sequence[TaskSpec],
    split: str,
    *,
    seed: int = 0,
    on_problem: OnProblem | None = None,
    on_other: Callable[[str, str], None] | None = None,
) -> dict[str, list[Example]]:
    """Return task -> examples of one split, each file read once; rows are cut to the task's `cap` of that split.

    Args:
        specs: the tasks.
        split: train, validation or test; a task without a source for validation or test gets no examples.
        seed: chooses the rows that `cap` and `validation_cap` keep; `test_cap` keeps the same ones for every seed.
        on_problem: gets every problem, and the bad row is left out; by default the first problem is raised.
        on_other: gets (task name, place) of each row that names none of `specs`.

    Raises:
        TaskError: the split is unknown, or a task has no training source.
        ConfigError: a template is not valid.
        DataError: a file or row is wrong, or a file has no rows of a task; not raised where `on_problem` is given.
    """
    if split not in SPLITS:
        raise TaskError(f"unknown split '{split}'; {did_you_mean(split, SPLITS)}")
    sources: dict[tuple[str, str], list[TaskSpec]] = {}
    for spec in specs:
        check_templates(spec)
        source = source_of(spec, split)
        if source is not None:
            sources.setdefault(source, []).append(spec)
        elif split == "train":
            raise TaskError(f"task '{spec.name}' has no training rows: source.train is missing; name a file there")
    examples: dict[str, list[Example]] = {spec.name: [] for spec in specs}
    report = on_problem or _raise
    for source, readers in sources.items():
        _read_source(source, split, readers, examples=examples, report=report, on_other=on_other)
    if split == "test":
        seed = 0  # else seeds would be scored on different rows, and their spread be that of the rows too
    return {spec.name: capped(examples[spec.name], spec, getattr(spec, CAPS[split]), seed) for spec in specs}


def source_of(spec: TaskSpec, split: str) -> tuple[str, str] | None:
    """Return ("file", path) or ("hub", id) of a split, or None where the task has none."""
    if spec.source is None:
        return None
    given: str | None = getattr(spec.source, split, None)
    if given is not None:
        return "file", given
    if spec.source.hub is None or (spec.source.splits is not None and split not in spec.source.splits):
        return None
    return "hub", spec.source.hub


def check_templates(spec: TaskSpec) -> None:
    """Compile the task's templates.

    Raises:
        ConfigError: one is not valid.
    """
    check_template(spec.input, where=f"task '{spec.name}': input")
    for name in ("input_pair", "target", "system"):
        if (template := getattr(spec, name)) is not None:
            check_template(template, where=f"task '{spec.name}': {name}")
    other = check_template(spec.target) - {"label"}
    if other and spec.kind != "generation":
        raise ConfigError(
            f"task '{spec.name}': target: {spec.target!r} reads {sorted(other)}, but the text of a label may read `label` alone: it is the "
            f"same for every row. Use {{{{ label }}}}, or set kind: generation"
        )


def no_validation_rows(spec: TaskSpec) -> DataError:
    """Return the error of a task that names no validation rows."""
    return DataError(
        f"task '{spec.name}' has no validation rows; name a file under source.validation: the best checkpoint is chosen on it"
    )


class UnknownTasks:
    """Collects rows that name a task which the recipe does not have; `note` is what `load_tasks` takes as `on_other`.

    Args:
        known: the names of the recipe's tasks.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self.known = set(known)
        self._places: dict[str, dict[str, None]] = {}

    def note(self, name: str, place: str) -> None:
        """Note the task that a row names; a row that is read twice (a file of two splits) counts once."""
        if name not in self.known:
            self._places.setdefault(name, {})[place] = None

    def problems(self) -> list[DataError]:
        """Return one error per unknown task, at its first row."""
        found = []
        for name, places in self._places.items():
            rows = counted(len(places), "row names", "rows name")
            hint = did_you_mean(name, self.known)
            found.append(DataError(f"{next(iter(places))}: {rows} the task '{name}', which the recipe does not have; {hint}"))
        return found


def _raise(error: DataError) -> None:
    raise error


def _read_source(
    source: tuple[str, str],
    split: str,
    specs: list[TaskSpec],
    *,
    examples: dict[str, list[Example]],
    report: OnProblem,
    on_other: Callable[[str, str], None] | None,
) -> None:
    """Append the examples of one file or hub split to those of the tasks that read it."""
    names = [spec.name for spec in specs]
    read_for = f"[read for task {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}]"

    def report_file(error: DataError) -> None:
        report(DataError(f"{error} {read_for}"))

    num_rows = 0
    claimed: Counter[str] = Counter()
    named: Counter[str] = Counter()
    columns = Columns()
    owners = _Owners(specs, columns)
    for row in _rows_of(source, split, report_file):
        num_rows += 1
        columns.note(row)
        mine, name = owners.of(row, report)
        if name is not None:
            named[name] += 1
            if not mine and on_other is not None:
                on_other(name, row.place)
        for spec in mine:
            claimed[spec.name] += 1
            _append_example(row, spec, examples[spec.name], report, columns)
    for spec in specs:
        if num_rows and not claimed[spec.name] and not owners.failed[spec.name]:
            report(_no_rows(source[1], spec, named, num_rows))


def _rows_of(source: tuple[str, str], split: str, report: OnProblem) -> Iterator[Row]:
    kind, where = source
    if kind == "file":
        return read_rows(where, report)
    # A hub data set need not have every split, as a task need not name every file; validation warns of it.
    if split != "train" and split not in _splits_or_report(where, report):
        return iter(())
    return read_hub_rows(where, split, report)


def _splits_or_report(where: str, report: OnProblem) -> list[str]:
    try:
        return hub_splits(where)
    except DataError as error:
        report(error)
        return []


def _append_example(row: Row, spec: TaskSpec, examples: list[Example], report: OnProblem, columns: Columns) -> None:
    try:
        examples.append(labelled(row, spec))
    except DataError as error:
        report(columns.explain(error, row, spec))


class _Owners:
    """Whose is a row? Tasks are kept by name, so that a file of 300 tasks costs one look-up per row."""

    def __init__(self, specs: list[TaskSpec], columns: Columns) -> None:
        self.columns = columns
        self.failed: Counter[str] = Counter()
        self._by_column: dict[str | None, dict[str, TaskSpec]] = {}
        for spec in specs:
            self._by_column.setdefault(spec.columns.get("task_name"), {})[spec.name] = spec

    def of(self, row: Row, report: OnProblem) -> tuple[list[TaskSpec], str | None]:
        """Return the tasks that the row belongs to, and the name of the task that it names, if any."""
        mine: list[TaskSpec] = []
        named: str | None = None
        for column, by_name in self._by_column.items():
            if column is not None and column not in row.values:
                self._report_missing(column, by_name, row, report)
                continue
            name = _named_task(row.values, column)
            if name is None:
                mine.extend(by_name.values())
                continue
            named = name
            if name in by_name:
                mine.append(by_name[name])
        return mine, named

    def _report_missing(self, column: str, by_name: dict[str, TaskSpec], row: Row, report: OnProblem) -> None:
        for spec in by_name.values():
            self.failed[spec.name] += 1
            at, hint = at_place(row.place, spec), did_you_mean(column, row.values)
            what = f"columns.task_name is '{column}', and the row has no such column"
            report(self.columns.explain(DataError(f"{at}: {what}; {hint}", missing=column), row, spec))


def _named_task(values: Mapping[str, Any], column: str | None) -> str | None:
    names = ALIASES["task_name"] if column is None else (column,)
    value = next((values[name] for name in names if name in values), None)
    return None if is_blank(value) else label_text(value)


def _no_rows(where: str, spec: TaskSpec, named: Counter[str], num_rows: int) -> DataError:
    names = did_you_mean(spec.name, named).removeprefix("allowed: ")
    return DataError(
        f"{where}: task '{spec.name}': none of the {counted(num_rows, 'row')} is of this task; the tasks they name: {names} "
        f"Give the task the name that its rows have, or name their column under columns.task_name"
    )


def capped(examples: list[Example], spec: TaskSpec, cap: int | None, seed: int) -> list[Example]:
    """Return at most `cap` of a task's examples: a sample chosen by the seed, in the file's order."""
    if cap is None or len(examples) <= cap:
        return examples
    # A text as seed is hashed the same way in every process and Python version.
    kept = random.Random(f"{seed}:{spec.name}:cap").sample(range(len(examples)), cap)
    return [examples[position] for position in sorted(kept)]


__all__ = [
    "ALIASES", "SPLITS", "UnknownTasks", "canonical", "capped", "check_templates", "infer_labels", "load_split", "load_tasks",
    "no_validation_rows", "render_inputs", "source_of", "target_text", "unlabelled",
]  # fmt: skip
