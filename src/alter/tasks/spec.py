"""A task, as the user writes it down: one YAML file or one block of a recipe."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import pydantic

from alter.config import Settings, load_yaml, parse
from alter.errors import ConfigError, PluginError, counted
from alter.metrics import metric_traits

TaskKind = Literal["classification", "regression", "generation"]
Split = Literal["train", "validation", "test"]


class Source(Settings):
    """Where a task's rows are."""

    train: str | None = None
    """File of training rows (.jsonl, .json, .csv, .tsv, .parquet, each also with .gz); relative to the recipe's folder."""
    validation: str | None = None
    """File of validation rows; they choose the best checkpoint."""
    test: str | None = None
    """File of test rows; touched once, at the end."""
    hub: str | None = None
    """A data set on the Hugging Face hub, e.g. `nyu-mll/glue:rte`, or its local folder, instead of files (extra `hub`)."""
    splits: list[Split] | None = None
    """The splits that are taken from `hub`, e.g. `[train, validation]` where its test labels are hidden; by default all."""

    @pydantic.model_validator(mode="after")
    def _one_way(self) -> Source:
        files = [self.train, self.validation, self.test]
        if self.hub is None and not any(files):
            raise ValueError("names no file; give train, validation and test, or hub")
        if self.splits is not None and self.hub is None:
            raise ValueError("splits chooses among those of a hub data set; without hub, leave out the file of a split instead")
        if self.splits is not None and (not self.splits or len(set(self.splits)) != len(self.splits)):
            raise ValueError(f"splits is {self.splits}; name at least one of train, validation and test, each once")
        return self


class GenerationSettings(Settings):
    """How a model that writes text decodes it; the names and meanings are transformers'."""

    max_new_tokens: int | None = pydantic.Field(default=None, ge=1)
    """Longest answer in tokens; by default, and at most, the recipe's max_target_length."""
    num_beams: int = pydantic.Field(default=1, ge=1)
    """Beams of beam search; 1 is greedy decoding (or sampling)."""
    length_penalty: float = 1.0
    """Beam scores are divided by length ** length_penalty: above 1 favours long answers (num_beams > 1)."""
    do_sample: bool = False
    """Draw tokens at random instead of taking the likeliest; seeded by the caller's torch seed."""
    temperature: float = pydantic.Field(default=1.0, gt=0)
    """Temperature of sampling."""
    top_k: int | None = pydantic.Field(default=None, ge=1)
    """Sample among the k likeliest tokens only; by default all."""
    top_p: float = pydantic.Field(default=1.0, gt=0, le=1)
    """Sample among the likeliest tokens that make up this probability."""
    repetition_penalty: float = pydantic.Field(default=1.0, gt=0)
    """Above 1, tokens that stand in the text already are made less likely."""
    no_repeat_ngram_size: int | None = pydantic.Field(default=None, ge=1)
    """No n-gram of this size is written twice."""

    @pydantic.model_validator(mode="after")
    def _reads_what_it_sets(self) -> GenerationSettings:
        sampled = [
            name for name, default in (("temperature", 1.0), ("top_k", None), ("top_p", 1.0)) if getattr(self, name) != default
        ]
        if sampled and not self.do_sample:
            raise ValueError(f"{sampled[0]} is set, but do_sample is false, so nothing reads it; set do_sample: true")
        if self.length_penalty != 1.0 and self.num_beams == 1:
            raise ValueError("length_penalty is set, but num_beams is 1, so nothing reads it; raise num_beams")
        return self


CAPS = {"train": "cap", "validation": "validation_cap", "test": "test_cap"}
"""Split -> the key that limits its rows."""
NOT_SHIPPED = frozenset({"source", *CAPS.values(), "weight"})
"""What a model directory does not say of a task: which rows it was trained on."""


class TaskSpec(Settings):
    """One task: rows in, one label, one number or a text out."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """The task's name: letters, digits, `_`, `.`, `-`; also the name of its adapter's folder."""
    group: str | None = None
    """Tasks of one group are averaged first, so that a group counts once in the overall average."""
    kind: TaskKind = "classification"
    """`classification` (one of `labels`), `regression` (one number) or `generation` (a text; the base model must write)."""
    source: Source | None = None
    """Where the rows are; a recipe needs it, a model directory does not keep it."""
    columns: dict[str, str] = {}
    """Our name (`text`, `text_pair`, `label`, `task_name`, `references`, `messages`) -> the file's column name."""
    input: str = "{{ text }}"
    """Jinja template of the model's input; sees every column of the row, and `columns`' names."""
    input_pair: str | None = None
    """Jinja template of the second segment of a pair of texts; by default `text_pair`, where rows have one."""
    target: str = "{{ label }}"
    """Jinja template of the text that a model that writes learns to answer: of a label's or number's text (sees `label` alone), or of a
    generation's (sees every column; `label` is the row's target). Encoders answer by a head and read no target."""
    chat: bool = False
    """Write the input as a user's message, in the chat template of the base model's tokenizer (models that write). Rows with a
    `messages` column (a list of role and content) are taken as they are, the last assistant's message being the target."""
    system: str | None = None
    """Jinja template of the system message before it (chat); rows with `messages` bring their own."""
    labels: list[str] | None = None
    """The allowed labels, in the order of their ids; by default those of the training rows, sorted."""
    decoding: Literal["rank", "generate"] = "rank"
    """How a model that writes answers a classification: `rank` (the label whose text is likeliest, by exact log-likelihoods) or
    `generate` (write it; what is no label counts as wrong, and is counted)."""
    length_normalization: bool = False
    """Rank labels by log-likelihood per token instead of the whole label's (decoding rank)."""
    generation: GenerationSettings = GenerationSettings()
    """How text is decoded."""
    metrics: list[str] = []
    """Metrics by name; the first is the primary one (higher is better). Default: accuracy and f1_macro; pearson and spearmanr for a
    regression; rougeL and exact_match for a generation."""
    metric_labels: list[str] | None = None
    """The labels over which `f1_over_labels` averages; for `f1`, the one positive label. Both need it."""
    cap: int | None = pydantic.Field(default=None, ge=1)
    """At most this many training rows (a seeded sample)."""
    validation_cap: int | None = pydantic.Field(default=None, ge=1)
    """At most this many validation rows (a seeded sample), where choosing a checkpoint on all of them costs too much."""
    test_cap: int | None = pydantic.Field(default=None, ge=1)
    """At most this many test rows: a sample that is the same for every seed, where scoring all of them costs too much."""
    weight: float | None = pydantic.Field(default=None, gt=0)
    """Mixing weight of the task where the mixture's kind is `weights`."""

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> TaskSpec:
        for position, metric in enumerate(self.metrics):
            self._check_metric(metric, is_primary=position == 0)
        if self.kind != "classification" and self.labels is not None:
            raise ValueError(f"a {self.kind} task has no labels; drop `labels` or set kind: classification")
        if self.system is not None and not self.chat:
            raise ValueError(
                "system is set, but chat is false, so nothing reads it; set chat: true, or put its words into `input`"
            )
        if self.kind == "regression" and self.decoding == "generate":
            raise ValueError("decoding: generate is for classifications; numbers are written anyway, drop it")
        if self.labels is not None:
            self._check_labels(self.labels)
        unknown = set(self.metric_labels or []) - set(self.labels or self.metric_labels or [])
        if unknown:
            raise ValueError(f"metric_labels {sorted(unknown)} are not among labels {self.labels}")
        return self

    def _check_metric(self, metric: str, *, is_primary: bool) -> None:
        try:
            traits = metric_traits(metric)
        except PluginError as error:
            raise ValueError(str(error)) from None
        if traits.kind not in (None, self.kind):
            instead = {
                "classification": "accuracy or f1_macro", "regression": "pearson or spearmanr", "generation": "rougeL or bleu"
            }[self.kind]  # fmt: skip
            raise ValueError(
                f"the metric {metric} scores {traits.kind}, and this task's kind is {self.kind}; use e.g. {instead}, "
                f"or set kind: {traits.kind}"
            )
        if is_primary and not traits.higher_is_better:
            raise ValueError(
                f"the first of metrics is {metric}, of which lower is better; the first one chooses the best checkpoint and "
                f"counts in averages: put one first of which higher is better, e.g. [pearson, {metric}]"
            )
        self._check_metric_labels(metric, traits.metric_labels)

    def _check_metric_labels(self, metric: str, needed: str | None) -> None:
        seen = "none" if self.metric_labels is None else str(self.metric_labels)
        if needed == "one" and len(self.metric_labels or []) != 1:
            raise ValueError(
                f"the metric {metric} needs exactly one positive label, seen: {seen}; "
                f"set metric_labels: [<label>], or use f1_macro"
            )
        if needed == "some" and not self.metric_labels:
            raise ValueError(
                f"the metric {metric} needs the labels to look at, seen: {seen}; "
                f"set metric_labels: [<label>, ...], or use f1_macro"
            )

    @staticmethod
    def _check_labels(labels: list[str]) -> None:
        if len(labels) < 2:
            raise ValueError(f"labels holds {counted(len(labels), 'label')}; a classification needs at least 2")
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"labels holds {twice} more than once")

    @pydantic.field_validator("labels", "metric_labels", mode="before")
    @classmethod
    def _as_text(cls, labels: Any) -> Any:
        """Read `1` and `true` as the text that a data file holds: labels are always text."""
        if not isinstance(labels, list):
            return labels
        for position, label in enumerate(labels):
            if label is None or isinstance(label, list | dict):
                seen = "null" if label is None else f"a {type(label).__name__}"
                raise ValueError(f"position {position} holds {seen}; a label is text: write it in quotes, e.g. 'null'")
        return [label_text(label) for label in labels]

    @property
    def metric_names(self) -> list[str]:
        """The metrics to compute; the first is the primary one."""
        if self.metrics:
            return self.metrics
        return {
            "classification": ["accuracy", "f1_macro"], "regression": ["pearson", "spearmanr"], "generation": ["rougeL", "exact_match"]
        }[self.kind]  # fmt: skip

    @property
    def primary_metric(self) -> str:
        """The metric that counts in averages and chooses checkpoints."""
        return self.metric_names[0]


def _expanded(given: str, task: str) -> Path:
    """Return a path with `~` and `$VARIABLES` replaced, so that a recipe need not know where data lies on a machine."""
    path = os.path.expandvars(os.path.expanduser(given))
    if "$" in path:
        variable = path[path.index("$") :].split("/")[0]
        raise ConfigError(
            f"task '{task}': source '{given}' names {variable}, which is not set; export it: it is the folder of your data"
        )
    return Path(path)


def label_text(value: object) -> str:
    """Return a label as text: `True` from YAML, JSON or parquet is `true`, 1 is `1`."""
    return str(value).lower() if isinstance(value, bool) else str(value).strip()


def load_task(path: Path) -> TaskSpec:
    """Read a task from its own YAML file; its source paths are relative to that file."""
    settings = load_yaml(path)
    settings.setdefault("name", path.stem)
    spec = parse(TaskSpec, settings, where=str(path))
    return resolve_paths(spec, path.parent)


def resolve_paths(spec: TaskSpec, folder: Path) -> TaskSpec:
    """Return `spec` with its source files, and a hub data set's local folder, made absolute; relative ones lie in `folder`."""
    if spec.source is None:
        return spec
    files = {
        split: str((folder / _expanded(given, spec.name)).resolve())
        for split in ("train", "validation", "test")
        if (given := getattr(spec.source, split)) is not None
    }
    if spec.source.hub is not None:
        files["hub"] = _resolved_hub(spec.source.hub, spec.name, folder)
    return spec.model_copy(update={"source": spec.source.model_copy(update=files)})


def _resolved_hub(given: str, task: str, folder: Path) -> str:
    """Return a hub id as it is, and the path of a local data set (`folder` or `folder:config`) absolute."""
    whole = folder / _expanded(given, task)
    if whole.exists():  # first: a local folder may have a colon in its own name
        return str(whole.resolve())
    name, separator, config = given.rpartition(":")
    local = folder / _expanded(name, task) if separator else None
    return f"{local.resolve()}:{config}" if local is not None and local.exists() else given
