"""A recipe: one YAML file that says everything about one run.

    recipe YAML -> `load_recipe` (preset below, overrides on top) -> Recipe -> the resolved recipe beside the weights

The settings' docstrings are the reference: `docs/reference/` is made from them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic

from alter.config import Settings, apply_overrides, load_yaml, merge, parse
from alter.errors import ConfigError, did_you_mean
from alter.mta_settings import NO_SCORES, UNDROPPED, UNMOVED, MTASettings, check_mta, known, reads_selector
from alter.presets import PRESETS
from alter.registry import Registry
from alter.tasks.spec import TaskSpec, load_task, resolve_paths

PENALTIES = Registry("penalty", package="alter.nn.penalties", attribute="PENALTY")

Trained = Literal["task_adapters", "shared_adapters", "selector", "gate", "heads", "backbone"]
STAGE_NAMES = ("stage1", "stage2")


class MixtureSettings(Settings):
    """How often each task's rows are drawn."""

    kind: Literal["proportional", "equal", "temperature", "weights"] = "proportional"
    """Rates by size, all equal, size ** (1 / temperature), or each task's own `weight`."""
    temperature: float = pydantic.Field(default=2.0, ge=1)
    """1 is proportional, large values come near equal (kind temperature)."""
    maximum: int | None = pydantic.Field(default=None, ge=1)
    """A task counts as at most this large when rates are computed."""


class HeadSettings(Settings):
    """The per-task heads of an encoder-only model."""

    pooling: Literal["mean", "cls", "max"] = "mean"
    """How a row's token states become one vector."""
    kind: Literal["linear", "mlp"] = "linear"
    """`linear`, or `mlp` (dense, tanh, linear, as in RoBERTa's classification head)."""
    dropout: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Dropout on the pooled vector, in training only."""


class LearningRates(Settings):
    """One learning rate per group of parameters; they decide more than the method does."""

    adapters: float = pydantic.Field(default=1e-3, gt=0)
    """Task adapters and shared adapters."""
    heads: float = pydantic.Field(default=5e-3, gt=0)
    """Per-task heads."""
    selector: float = pydantic.Field(default=3e-3, gt=0)
    """The selector's logits."""
    gate: float = pydantic.Field(default=3e-3, gt=0)
    """The gates' parameters."""
    backbone: float = pydantic.Field(default=5e-5, gt=0)
    """The pretrained model, where a stage trains it."""


class StageSettings(Settings):
    """One stage of training."""

    router: Literal["selector", "gate"]
    """What weighs the adapters during this stage."""
    trains: list[Trained]
    """The groups of parameters that this stage trains; everything else is frozen."""
    num_train_epochs: float = pydantic.Field(default=3.0, ge=0)
    """Passes over the mixture; 0 skips the stage."""
    max_steps: int | None = pydantic.Field(default=None, ge=1)
    """Stop after this many optimizer steps, whatever num_train_epochs says."""
    learning_rates: LearningRates = LearningRates()
    """Learning rates by group."""
    lr_scheduler_type: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the decay after the warm-up."""
    warmup_ratio: float = pydantic.Field(default=0.06, ge=0, le=1)
    """Share of the stage's steps over which rates rise from 0."""
    eval_steps: int | None = pydantic.Field(default=None, ge=1)
    """Validate every so many steps; by default as `evals_per_epoch` says."""
    evals_per_epoch: int = pydantic.Field(default=1, ge=1)
    """Validations per epoch, where eval_steps is not given; a short stage needs several to find its best step."""
    early_stopping_patience: int | None = pydantic.Field(default=None, ge=1)
    """Stop the stage after so many validations without a better average."""
    adapter_dropout: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Probability with which a row in training does without an adapter, drawn anew at every site, so that others, and the base, learn to do
    without it; the weights that stay are divided by one less it. For adapters that add to the base (not `ffn_clone`). Penalties and
    recorded weights are of all adapters."""
    penalties: dict[str, pydantic.NonNegativeFloat] = {}
    """Penalty on gate weights -> the factor at which it is added to the loss, e.g. `{mutual_information: 0.005}`; 0 is as good as
    none. `alter list penalties` names them."""

    @pydantic.field_validator("penalties")
    @classmethod
    def _known_penalties(cls, penalties: dict[str, float]) -> dict[str, float]:
        for name in penalties:
            known(PENALTIES, name)
        return penalties

    @pydantic.model_validator(mode="after")
    def _trains_what_it_uses(self) -> StageSettings:
        if not self.trains:
            raise ValueError("trains is empty; name at least one group, or set num_train_epochs: 0 to skip the stage")
        if self.router == "selector" and "gate" in self.trains:
            raise ValueError("trains names 'gate', but router: selector does not use it")
        return self


class TrainSettings(Settings):
    """What both stages share."""

    per_device_train_batch_size: int = pydantic.Field(default=32, ge=1)
    """Rows per process and micro-batch."""
    gradient_accumulation_steps: int = pydantic.Field(default=1, ge=1)
    """Micro-batches per optimizer step."""
    per_device_eval_batch_size: int = pydantic.Field(default=64, ge=1)
    """Rows per batch in evaluation and prediction."""
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    """AdamW's weight decay; biases, norms, selectors and gates are exempt."""
    max_grad_norm: float = pydantic.Field(default=1.0, gt=0)
    """Gradients are clipped to this norm over all parameters."""
    label_smoothing: float = pydantic.Field(default=0.0, ge=0, lt=1)
    """Label smoothing of the classification loss, or of every token's (models that write)."""
    loss_weighting: Literal["row", "token"] = "row"
    """What counts alike in a step's loss of models that write: each row (the mean over its tokens), so that short answers are not
    drowned by long ones, or each token."""
    packing: bool = False
    """Put several short rows, of any tasks, into one sequence with attention inside each row only (decoder-only models)."""
    mixed_precision: Literal["no", "bf16", "fp16", "auto"] = "no"
    """Autocast type; fp16 needs a GPU. `auto` is bf16 where the device multiplies it natively, which the results then say."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    logging_steps: int = pydantic.Field(default=10, ge=1)
    """Write a line to metrics.jsonl every so many steps."""
    save_steps: int | None = pydantic.Field(default=None, ge=1)
    """Write a resumable checkpoint every so many steps; by default at every validation."""
    save_total_limit: int = pydantic.Field(default=2, ge=1)
    """Resumable checkpoints to keep."""
    test_stages: Literal["released", "all"] = "released"
    """Score the released stage alone on test rows, or every stage (for comparisons; no choice is made by it)."""
    report_to: list[Literal["tensorboard"]] = []
    """Trackers beside metrics.jsonl (needs the extra `track`)."""


class Recipe(Settings):
    """One run."""

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    """The run's name in results and model cards; by default the file's."""
    model_name_or_path: str
    """The base model: a hub id, a local folder, or `package:<python package that carries a model>`."""
    revision: str | None = None
    """Branch, tag or commit of a hub model."""
    preset: Literal["alter", "alter-lite"] = "alter-lite"
    """`alter-lite`: LoRA on every FFN, frozen backbone. `alter`: as the paper's reference, FFN copies in the last block."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Seed of everything random."""
    max_length: int = pydantic.Field(default=128, ge=4)
    """Longest input in tokens; longer ones are cut, and counted in results.json."""
    max_target_length: int = pydantic.Field(default=64, ge=2)
    """Longest text to write in tokens (models that write); longer targets are cut in training, and answers end there."""
    prompt_separator: str = "\n"
    """What stands between input and answer where one stack reads and writes (decoder-only models; not in chats)."""
    mta: MTASettings
    """The Mixture-of-Task-Adapters module."""
    heads: HeadSettings = HeadSettings()
    """Per-task heads."""
    peft: dict[str, Any] | None = None
    """A method of the library peft in place of the MTA: its config as peft spells it, e.g. `{peft_type: LORA, r: 8, lora_alpha: 8}`. It
    sits on all projections of all FFNs, unless `target_modules` says otherwise. Needs `mta.sites: none`, `stages.stage2: null` and the
    extra `peft`."""
    mixture: MixtureSettings = MixtureSettings()
    """How tasks are mixed."""
    train: TrainSettings = TrainSettings()
    """What both stages share."""
    stages: dict[str, StageSettings]
    """`stage1` and `stage2`; `stage2: null` for one stage only."""
    stage1_from: str | None = None
    """Take stage 1 from this finished run instead of training it: a run directory with the same base, tasks, adapters, selector and
    heads, e.g. to try several second stages on it. Of `stages.stage1` only `router` and `trains` are read then."""
    tasks: list[TaskSpec] = pydantic.Field(min_length=1)
    """The tasks: blocks, or paths of YAML files of one task each."""

    @pydantic.field_validator("stages", mode="before")
    @classmethod
    def _known_stages(cls, stages: Any) -> Any:
        """Name a misspelt stage before its missing keys are told, and drop `stage2: null`."""
        if not isinstance(stages, dict):
            return stages
        for stage in stages:
            if stage not in STAGE_NAMES:
                raise ValueError(f"unknown stage '{stage}'; {did_you_mean(stage, STAGE_NAMES)}")
        return {stage: settings for stage, settings in stages.items() if stage != "stage2" or settings is not None}

    @pydantic.field_serializer("stages", mode="wrap")
    def _with_stage2(self, stages: dict[str, StageSettings], serialize: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Write `stage2: null` where there is none, else the preset's stage 2 would come back when the recipe is read again."""
        return {**serialize(stages), **({} if "stage2" in stages else {"stage2": None})}

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        self._check_tasks()
        check_mta(self.mta, num_tasks=len(self.tasks))
        self._check_peft()
        if "stage1" not in self.stages:
            raise ValueError("stages has no stage1; stage 2 builds on it")
        for name, stage in self.stages.items():
            if stage.router == "gate" and "selector" in stage.trains and not reads_selector(self.mta.gate):
                raise ValueError(
                    f"stages.{name}.trains names 'selector', but router: gate does not use it: a gate of kind {self.mta.gate.kind} "
                    f"{'with over: all ' if self.mta.gate.kind in ('task', 'linear') else ''}replaces its weights; drop it"
                )
            if stage.adapter_dropout > 0 and (self.mta.sites == "none" or self.mta.adapter.kind in UNDROPPED):
                none = "mta.sites is none: there is nothing that a row could do without"
                why = none if self.mta.sites == "none" else UNDROPPED[self.mta.adapter.kind]
                raise ValueError(f"stages.{name}.adapter_dropout is {stage.adapter_dropout:g}, but {why}; set it to 0")
            for penalty, factor in stage.penalties.items():
                if factor > 0 and (problem := penalty_problem(penalty, stage, self.mta)):
                    raise ValueError(f"stages.{name}.penalties names '{penalty}', but {problem}")
        return self

    def _check_peft(self) -> None:
        if self.peft is None:
            return
        if self.mta.sites != "none":
            raise ValueError(
                f"peft takes the place of the MTA, but mta.sites is {self.mta.sites}; set mta.sites: none, or drop peft"
            )
        if "stage2" in self.stages:
            raise ValueError("peft has no shared adapters and no gate for a second stage; set stages.stage2: null, or drop peft")

    def _check_tasks(self) -> None:
        names = [task.name for task in self.tasks]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"tasks names {twice} more than once; give each task its own name")
        without_rows = [task.name for task in self.tasks if task.source is None]
        if without_rows:
            raise ValueError(f"tasks {without_rows} have no source; say where the rows are, e.g. source: {{train: train.jsonl}}")
        missing = [task.name for task in self.tasks if task.weight is None]
        if self.mixture.kind == "weights" and missing:
            raise ValueError(f"mixture.kind is weights, but tasks {missing} have no weight")


def penalty_problem(penalty: str, stage: StageSettings, mta: MTASettings) -> str:
    """Return why a penalty would have nothing to act on in a stage, with the remedy; empty where it has."""
    role = stage.router
    kind = (mta.selector if role == "selector" else mta.gate).kind
    if mta.sites == "none":
        return "mta.sites is none, so that there are no gate weights; drop it"
    if role not in stage.trains:
        return f"the stage does not train the {role}, which it would act on; add {role} to trains, or drop it"
    if penalty == "sparsity":
        return f"mta.{role}.kind is {kind}, which has no scores; use kind taps, or drop it" if kind in NO_SCORES else ""
    if kind in UNMOVED:
        return f"mta.{role}.kind is {kind}, whose weights it cannot move; use kind selector, task or linear, or drop it"
    if penalty == "load_balance" and (role == "selector" or mta.num_shared < 2):
        return "the stage weighs fewer than two shared adapters, which it balances; drop it"
    return ""


def load_recipe(path: str | Path, overrides: list[str] | None = None) -> Recipe:
    """Read a recipe, lay it over its preset and apply `key.path=value` overrides.

    Args:
        path: the YAML file; task files and data files in it are relative to its folder.
        overrides: e.g. `["seed=1", "stages.stage1.num_train_epochs=3"]`; tasks by name: `tasks.intent.cap=100`.

    Raises:
        ConfigError: anything in it is wrong; the message names the key.
    """
    file = Path(path)
    return resolve_recipe(load_yaml(file), folder=file.parent, where=str(file), name=file.stem, overrides=overrides)


def resolve_recipe(
    settings: dict[str, Any], *, folder: Path, where: str, name: str = "recipe", overrides: list[str] | None = None
) -> Recipe:
    """Turn a recipe's plain mapping into a `Recipe`; see `load_recipe`."""
    given = {"name": name, **settings}
    given["tasks"] = _task_blocks(given.get("tasks"), folder=folder, where=where)
    given = apply_overrides(given, overrides or [])
    preset = given.get("preset", "alter-lite")
    if not isinstance(preset, str) or preset not in PRESETS:
        raise ConfigError(f"{where}: unknown preset '{preset}'; {did_you_mean(str(preset), PRESETS)}")
    recipe = parse(Recipe, merge(PRESETS[preset], given), where=where)
    return recipe.model_copy(update={"tasks": [resolve_paths(task, folder) for task in recipe.tasks]})


def _task_blocks(tasks: Any, *, folder: Path, where: str) -> list[Any]:
    """Read tasks that are given as paths of YAML files; refuse anything but a list."""
    if not isinstance(tasks, list) or not tasks:
        raise ConfigError(f"{where}: tasks must be a list of at least one task (a block, or the path of a task's YAML file)")
    return [load_task(folder / task).model_dump(exclude_defaults=True) if isinstance(task, str) else task for task in tasks]
