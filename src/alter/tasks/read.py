"""From rows to examples: find the columns, render the input, check the label.

    Row -> whose task is it? -> `canonical` (our column names) -> `render_inputs` + label -> Example

One file may feed many tasks: a row that names a task belongs to that task alone, a row that names none belongs to every task that
reads the file. Each file is read once for all tasks that share it.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from alter.errors import ConfigError, DataError, TaskError, did_you_mean
from alter.tasks.example import Example
from alter.tasks.source import OnProblem, Row, hub_splits, read_hub_rows, read_rows
from alter.tasks.spec import TaskSpec, label_text
from alter.tasks.template import check_template, render

SPLITS = ("train", "validation", "test")
MAX_LABELS = 1000

ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("text", "input", "sentence", "source", "prompt", "content", "sentence1"),
    "text_pair": ("text_pair", "sentence2"),
    "label": ("label", "target", "output", "completion"),
    "task_name": ("task_name", "task"),
    "references": ("references",),
    "messages": ("messages",),
}
"""Our name -> the columns that count as it where `columns` says nothing, in order."""


def canonical(values: Mapping[str, Any], spec: TaskSpec, *, place: str = "", for_prediction: bool = False) -> dict[str, Any]:
    """Return a row's columns, and beside them our names (`ALIASES`) as far as the row has them.

    Args:
        values: the row.
        spec: the task; its `columns` come first, then the usual names (`ALIASES`).
        place: `file:line`, for messages.
        for_prediction: the row needs no label and no task name, and may use our names instead of the file's.

    Raises:
        DataError: `columns` names a column that the row lacks.
    """
    found = dict(values)
    for ours, theirs in spec.columns.items():
        if theirs in values:
            found[ours] = values[theirs]
        elif not (for_prediction and (ours in ("label", "task_name") or ours in values)):
            hint = did_you_mean(theirs, values)
            raise DataError(f"{_at(place, spec)}: columns.{ours} is '{theirs}', and the file has no such column; {hint}")
    taken = {theirs for ours, theirs in spec.columns.items() if ours in ALIASES}
    for ours, names in ALIASES.items():
        if ours == "label" and spec.kind == "generation":
            names = (*names[1:], names[0])  # a row with a label and a target: here the text is meant
        if ours not in spec.columns:
            name = next((name for name in names if name in values and name not in taken), None)
            if name is not None:
                found[ours] = values[name]
            elif ours in taken:
                # The file's `text` is, say, our label: the input must not read it.
                del found[ours]
    return found


def render_inputs(spec: TaskSpec, values: Mapping[str, Any] | str, *, place: str = "") -> tuple[str, str | None]:
    """Return the rendered text and text pair of a row, labelled or not.

    Args:
        spec: the task.
        values: a row; a plain text counts as a row whose `text` it is.
        place: `file:line`, for messages.

    Raises:
        ConfigError: a template is not valid.
        DataError: a column is missing, or the text is empty.
    """
    example = unlabelled(spec, values, place=place)
    return example.text, example.text_pair


def unlabelled(spec: TaskSpec, values: Mapping[str, Any] | str, *, place: str = "") -> Example:
    """Return the example of a row that is to be answered; see `render_inputs`."""
    row = {"text": values} if isinstance(values, str) else canonical(values, spec, place=place, for_prediction=True)
    return _inputs(spec, row, place)


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
    """Return task -> examples of one split, each file read once; training rows are cut to the task's `cap`.

    Args:
        specs: the tasks.
        split: train, validation or test; a task without a source for validation or test gets no examples.
        seed: chooses the rows that `cap` and `validation_cap` keep.
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
    caps = {"train": "cap", "validation": "validation_cap"}
    if split not in caps:
        return examples
    return {spec.name: capped(examples[spec.name], spec, getattr(spec, caps[split]), seed) for spec in specs}


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


def target_text(spec: TaskSpec, label: str | float) -> str:
    """Return the text that stands for a label or a number of `spec`, as a model that writes answers it.

    Raises:
        DataError: the template gives no text.
    """
    if isinstance(label, float):
        label = str(int(label)) if label.is_integer() and abs(label) < 1e15 else repr(label)
    return render(spec.target, {"label": label}, where=f"task '{spec.name}': target")


def infer_labels(spec: TaskSpec, examples: Iterable[Example]) -> list[str]:
    """Return the task's labels in the order of their ids: `labels`, or those of `examples`, sorted. Other kinds have none.

    Raises:
        TaskError: fewer than 2 labels, or so many that they are no labels.
    """
    if spec.kind != "classification":
        return []
    if spec.labels is not None:
        return list(spec.labels)
    rows = list(examples)
    labels = sorted({str(example.label) for example in rows if example.label is not None})
    at = _at(rows[0].place if rows else "", spec)
    if len(labels) < 2:
        seen = f"only the label '{labels[0]}'" if labels else "no label"
        remedy = "a classification needs at least 2. Add rows, or list `labels`"
        raise TaskError(f"{at}: the {len(rows)} training rows hold {seen}; {remedy}")
    if len(labels) > MAX_LABELS:
        remedy = "set kind: regression for numbers, or kind: generation for text"
        shown = ", ".join(repr(label[:40]) for label in labels[:3])
        raise TaskError(f"{at}: {len(labels)} different labels ({shown}, ...), and at most {MAX_LABELS} are allowed; {remedy}")
    return labels


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
            rows = "1 row names" if len(places) == 1 else f"{len(places)} rows name"
            hint = did_you_mean(name, self.known)
            found.append(DataError(f"{next(iter(places))}: {rows} the task '{name}', which the recipe does not have; {hint}"))
        return found


def _raise(error: DataError) -> None:
    raise error


def _at(place: str, spec: TaskSpec) -> str:
    return f"{place}: task '{spec.name}'" if place else f"task '{spec.name}'"


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
    owners = _Owners(specs)
    for row in _rows_of(source, split, report_file):
        num_rows += 1
        mine, name = owners.of(row, report)
        if name is not None:
            named[name] += 1
            if not mine and on_other is not None:
                on_other(name, row.place)
        for spec in mine:
            claimed[spec.name] += 1
            _append_example(row, spec, examples[spec.name], report)
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


def _append_example(row: Row, spec: TaskSpec, examples: list[Example], report: OnProblem) -> None:
    try:
        values = canonical(row.values, spec, place=row.place)
        example = _inputs(spec, values, row.place)
        if spec.kind == "generation":
            label: str | float = _target(values, spec, row.place)
            example = replace(example, references=_references(values, str(label), _at(row.place, spec)))
        else:
            label = _label(values, spec, _at(row.place, spec))
    except DataError as error:
        report(error)
    else:
        examples.append(replace(example, label=label))


class _Owners:
    """Whose is a row? Tasks are kept by name, so that a file of 300 tasks costs one look-up per row."""

    def __init__(self, specs: list[TaskSpec]) -> None:
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
            hint = did_you_mean(column, row.values)
            report(DataError(f"{_at(row.place, spec)}: columns.task_name is '{column}', and the file has no such column; {hint}"))


def _named_task(values: Mapping[str, Any], column: str | None) -> str | None:
    names = ALIASES["task_name"] if column is None else (column,)
    value = next((values[name] for name in names if name in values), None)
    return None if _is_blank(value) else label_text(value)


def _no_rows(where: str, spec: TaskSpec, named: Counter[str], num_rows: int) -> DataError:
    names = did_you_mean(spec.name, named).removeprefix("allowed: ")
    return DataError(
        f"{where}: task '{spec.name}': none of the {num_rows} rows is of this task; the tasks they name: {names} "
        f"Give the task the name that its rows have, or name their column under columns.task_name"
    )


def capped(examples: list[Example], spec: TaskSpec, cap: int | None, seed: int) -> list[Example]:
    """Return at most `cap` of a task's examples: a sample chosen by the seed, in the file's order."""
    if cap is None or len(examples) <= cap:
        return examples
    # A text as seed is hashed the same way in every process and Python version.
    kept = random.Random(f"{seed}:{spec.name}:cap").sample(range(len(examples)), cap)
    return [examples[position] for position in sorted(kept)]


def _is_blank(value: object) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, list | dict) and not value)


def _inputs(spec: TaskSpec, values: Mapping[str, Any], place: str) -> Example:
    """Return the row's example, without its label."""
    if spec.chat and not _is_blank(values.get("messages")):
        messages, _ = _conversation(values["messages"], _at(place, spec))
        return Example(task=spec.name, text="\n".join(text for _, text in messages), messages=messages, place=place)
    text, text_pair = _rendered(spec, values, place)
    example = Example(task=spec.name, text=text, text_pair=text_pair, place=place)
    if not spec.chat:
        return example
    system = () if spec.system is None else (("system", _segment(spec.system, values, name="system", at=_at(place, spec))),)
    return replace(example, messages=(*system, ("user", text if text_pair is None else f"{text}\n{text_pair}")))


def _conversation(given: Any, at: str) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Return a row's messages up to the answer, and the answer: the last message, where the assistant wrote it."""
    messages: list[tuple[str, str]] = []
    for position, message in enumerate(given if isinstance(given, list) else [given]):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if role not in ("system", "user", "assistant", "tool") or not isinstance(content, str) or not content.strip():
            raise DataError(
                f"{at}: messages[{position}] is {message!r}; a message is {{'role': 'system' | 'user' | 'assistant' | 'tool', "
                f"'content': text}}"
            )
        messages.append((role, content))
    answer = messages.pop()[1] if messages and messages[-1][0] == "assistant" else None
    if all(role != "user" for role, _ in messages):
        raise DataError(f"{at}: messages holds no user's message before the answer; a conversation begins with the user's")
    return tuple(messages), answer


def _target(values: Mapping[str, Any], spec: TaskSpec, place: str) -> str:
    """Return the text that a generation row wants."""
    at = _at(place, spec)
    if spec.chat and not _is_blank(values.get("messages")):
        answer = _conversation(values["messages"], at)[1]
        if answer is None:
            raise DataError(
                f"{at}: the last of messages is not the assistant's, so the row has no target; end it with the answer"
            )
        return answer
    if "label" not in values and "label" in check_template(spec.target):
        columns = ", ".join(sorted(values))
        raise DataError(f"{at}: the row has no target; name its column under columns.label (the row's columns: {columns})")
    return _segment(spec.target, values, name="target", at=at).strip()


def _references(values: Mapping[str, Any], target: str, at: str) -> tuple[str, ...]:
    """Return every text that counts as right: the row's `references`, or its target alone."""
    given = values.get("references")
    if _is_blank(given):
        return (target,)
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
        raise DataError(f"{at}: references is {given!r}; it must be a list of texts that count as right")
    return tuple(texts)


def _rendered(spec: TaskSpec, values: Mapping[str, Any], place: str) -> tuple[str, str | None]:
    text = _segment(spec.input, values, name="input", at=_at(place, spec))
    if spec.input_pair is not None:
        return text, _segment(spec.input_pair, values, name="input_pair", at=_at(place, spec))
    # A shared file has empty cells in this column for tasks of single texts; a task that maps the column means it.
    if _is_blank(values.get("text_pair")) and "text_pair" not in spec.columns:
        return text, None
    return text, _segment("{{ text_pair }}", values, name="text_pair", at=_at(place, spec))


def _segment(template: str, values: Mapping[str, Any], *, name: str, at: str) -> str:
    text = render(template, values, where=f"{at}: {name}")
    # Fixed words around empty columns ("Question: ") are no input either.
    read = sorted(check_template(template) & values.keys())
    if not text.strip() or (read and all(_is_blank(values[column]) for column in read)):
        seen = ", ".join(f"{column}={values[column]!r}" for column in read) or repr(text)
        raise DataError(f"{at}: the {name} is empty ({seen}); fill the row's text or remove the row")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        seen = f"{text[error.start]!a} at {error.start}"
        raise DataError(f"{at}: the {name} holds half a character ({seen}); write the file as UTF-8 again") from None
    return text


def _label(values: Mapping[str, Any], spec: TaskSpec, at: str) -> str | float:
    if "label" not in values:
        columns = ", ".join(sorted(values))
        raise DataError(f"{at}: the row has no label; name its column under columns.label (the row's columns: {columns})")
    value = values["label"]
    if spec.kind == "regression":
        return _number(value, at)
    if _is_blank(value):
        raise DataError(f"{at}: the label is empty ({value!r}); {_allowed(spec)} Fill it or remove the row")
    if isinstance(value, list | dict):
        raise DataError(f"{at}: the label is a {type(value).__name__} ({value!r}); {_allowed(spec)} A row has one label")
    label = label_text(value)
    if spec.labels is not None and label not in spec.labels:
        raise DataError(f"{at}: unknown label '{label}'; {did_you_mean(label, spec.labels)} Mend the row, or add it to `labels`")
    return label


def _allowed(spec: TaskSpec) -> str:
    return "allowed: any text." if spec.labels is None else did_you_mean("", spec.labels)


def _number(value: object, at: str) -> float:
    try:
        # A boolean is a number to Python and a class to everybody else.
        number = math.nan if isinstance(value, bool) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{at}: the label {value!r} is no finite number; a regression needs one, such as 3.5; mend the row")
    return number
