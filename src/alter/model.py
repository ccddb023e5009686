"""MTAModel: a stock transformers model, equipped in place with Mixture-of-Task-Adapters and, for encoders, per-task heads.

    model = equip(hf_model, tasks={"intent": 6, "urgency": 3}, preset="alter-lite")
    out = model(input_ids=..., attention_mask=..., task_ids=task_ids_B)      # out.logits (B, C), each row under its own head

Shapes: B rows, S tokens, D model width, T tasks, C outputs of the largest task, E adapters of a site.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from alter.backbones._find import family_of, sites_of
from alter.config import merge, parse
from alter.errors import ConfigError, ModelError, TaskError, did_you_mean
from alter.nn.ffn import find_ffn
from alter.nn.heads import HeadBank
from alter.nn.losses import NOT_A_CLASS, row_losses
from alter.nn.mta import MTA, attach, detach
from alter.nn.routing import Route, Router, RoutingState
from alter.nn.site import projection_weight
from alter.presets import PRESETS
from alter.recipe import HeadSettings, MTASettings, Trained, check_mta


@dataclass
class MTAOutput(ModelOutput):
    """What a forward pass returns.

    Attributes:
        loss: mean over the rows that count, where labels were given; 0 where none counts.
        logits: (B, C), -inf where a row's task has no such output; None without heads.
        losses: (B,), where labels were given; 0 for rows that do not count.
        last_hidden_state: (B, S, D).
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    losses: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class MTAModel(nn.Module):
    """A stock model with an MTA at each chosen site.

    Args:
        backbone: the stock model; it is changed in place.
        task_names: the tasks, in the order of their ids.
        settings: the MTA.
        num_outputs: outputs of each task's head, in the same order; None: no heads, the hidden states are the output.
        heads: the heads' settings.

    Raises:
        ModelError: the model's family is unknown, or it has a head or carries an MTA already.
        ConfigError: the sites do not exist in this model.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        task_names: Sequence[str],
        settings: MTASettings,
        num_outputs: Sequence[int] | None = None,
        heads: HeadSettings | None = None,
    ) -> None:
        super().__init__()
        self.task_names = list(task_names)
        self.settings = settings
        self.head_settings = heads or HeadSettings()
        self.family = family_of(backbone)
        _check_free(backbone)
        self.state = RoutingState()
        ffns = [find_ffn(backbone, site) for site in sites_of(backbone)]
        self.site_positions = choose_sites(settings.sites, len(ffns))
        self.ffns = [ffns[position] for position in self.site_positions]
        for ffn, position in zip(self.ffns, self.site_positions, strict=True):
            mta = MTA(ffn, settings, num_tasks=len(self.task_names), state=self.state, position=position)
            attach(backbone, ffn, mta.to(projection_weight(ffn.down)))
        self.backbone = backbone
        width = backbone.config.hidden_size
        last = projection_weight(self.ffns[-1].down)
        self.heads = None if num_outputs is None else HeadBank(width, num_outputs, self.head_settings).to(last)
        self.label_smoothing = 0.0

    @property
    def mtas(self) -> list[MTA]:
        """The MTA of every site, first layer first."""
        return [module for module in self.backbone.modules() if isinstance(module, MTA)]

    @property
    def num_adapters(self) -> int:
        """Task adapters per site."""
        return self.settings.num_adapters or len(self.task_names)

    @property
    def router(self) -> Router:
        """What weighs the adapters now: the selector (stage 1) or the gate (stage 2)."""
        return self.state.router

    @router.setter
    def router(self, router: Router) -> None:
        self.state.router = router

    def task_ids(self, tasks: Sequence[str]) -> torch.Tensor:
        """Return the ids of named tasks, (B,).

        Raises:
            TaskError: a name is unknown.
        """
        ids = {name: position for position, name in enumerate(self.task_names)}
        for task in tasks:
            if task not in ids:
                raise TaskError(f"unknown task '{task}'; {did_you_mean(task, ids)}")
        return torch.tensor([ids[task] for task in tasks], device=self.device)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *,
        task_ids: torch.Tensor,
        label_ids: torch.Tensor | None = None,
        targets: torch.Tensor | None = None,
        **backbone_inputs: Any,
    ) -> MTAOutput:
        """Run a batch that may mix tasks.

        Args:
            input_ids: (B, S) token ids.
            attention_mask: (B, S), 1 for tokens and 0 for padding; None: no padding.
            task_ids: (B,) task of each row.
            label_ids: (B,) class of each row of a task with several outputs, -100 where it has none and does not count; gives a
                loss. None: no such row counts.
            targets: (B,) standardised targets of the rows of tasks with one output (regressions); gives a loss. None: 0, the mean.
            backbone_inputs: further inputs of the stock model, e.g. token_type_ids.

        Raises:
            TaskError: `labels` was given, or task_ids do not fit the rows or the tasks.
        """
        if "labels" in backbone_inputs:
            raise TaskError(
                "labels=... was given, but an MTAModel takes label_ids=... (class of each row, -100 for none) and targets=... "
                "(number of each regression row); rename it"
            )
        self._check_task_ids(input_ids, task_ids)
        with self._routed(Route(task_ids_B=task_ids, mask_BS=attention_mask)):
            out = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **backbone_inputs)
            hidden_BSD = out.last_hidden_state
            if self.heads is None:
                return MTAOutput(last_hidden_state=hidden_BSD)
            logits_BC = self.heads(hidden_BSD, task_ids, attention_mask)
            is_regression_B = self.heads.is_regression_T.index_select(0, task_ids)
        if label_ids is None and targets is None:
            return MTAOutput(logits=logits_BC, last_hidden_state=hidden_BSD)
        label_ids = torch.full_like(task_ids, NOT_A_CLASS) if label_ids is None else label_ids
        targets = torch.zeros_like(logits_BC[:, 0]) if targets is None else targets
        smoothing = self.label_smoothing if self.training else 0.0
        losses_B = row_losses(logits_BC, label_ids, targets, is_regression_B=is_regression_B, label_smoothing=smoothing)
        num_counted = (is_regression_B | (label_ids != NOT_A_CLASS)).sum()
        loss = losses_B.sum() / num_counted.clamp_min(1)
        return MTAOutput(loss=loss, logits=logits_BC, losses=losses_B, last_hidden_state=hidden_BSD)

    @staticmethod
    def _check_task_ids(input_ids: torch.Tensor | None, task_ids: torch.Tensor) -> None:
        if input_ids is not None and task_ids.shape != input_ids.shape[:1]:
            raise TaskError(
                f"task_ids has shape {tuple(task_ids.shape)}, but the batch has {input_ids.shape[0]} rows; give one task id per row"
            )

    def _explain_index_error(self, task_ids: torch.Tensor, error: IndexError) -> None:
        unknown = sorted({task for task in task_ids.tolist() if not 0 <= task < len(self.task_names)})
        if unknown:
            raise TaskError(
                f"task_ids holds {unknown}, but the model has {len(self.task_names)} tasks; allowed: 0 to {len(self.task_names) - 1}. "
                f"Make them with task_ids([name, ...])"
            ) from error

    @contextlib.contextmanager
    def _routed(self, route: Route) -> Iterator[None]:
        self.state.route = route
        try:
            yield
        except IndexError as error:  # looked at only now: reading task ids beforehand would make a GPU wait
            self._explain_index_error(route.task_ids_B, error)
            raise
        finally:
            self.state.route = None

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within this context the backbone computes the stock model's own function (heads stay)."""
        before, self.state.enabled = self.state.enabled, False
        try:
            yield
        finally:
            self.state.enabled = before

    @contextlib.contextmanager
    def record_weights(self) -> Iterator[dict[int, torch.Tensor]]:
        """Within this context each pass leaves its gate weights: site position -> (B, E) or (B, S, E)."""
        self.state.recorded, self.state.recording = {}, True
        try:
            yield self.state.recorded
        finally:
            self.state.recording = False

    def start_gates(self) -> None:
        """Let every gate begin at the selector's weights: the start of stage 2."""
        for mta in self.mtas:
            mta.start_gate()

    def unequip(self) -> PreTrainedModel:
        """Take the MTAs out and return the stock model."""
        detach(self.backbone)
        return self.backbone

    def gradient_checkpointing_enable(self) -> None:
        """Recompute activations in the backward pass, with the routing of the pass they belong to."""
        settings = {"use_reentrant": False, "context_fn": self.state.checkpoint_contexts}
        if hasattr(self.backbone, "activation_checkpointing_enable"):  # the name since transformers 5.23; the older one warns
            self.backbone.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
        else:
            self.backbone.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)

    def parameter_groups(self) -> dict[Trained, dict[str, nn.Parameter]]:
        """Return every parameter by group and name. The FFNs that copies replace belong to no group: nothing reads them."""
        groups: dict[Trained, dict[str, nn.Parameter]] = {
            "task_adapters": {}, "shared_adapters": {}, "selector": {}, "gate": {}, "heads": {}, "backbone": {}
        }  # fmt: skip
        owned: set[int] = set()
        prefixes = {id(module): name for name, module in self.named_modules()}
        for mta in self.mtas:
            prefix = prefixes[id(mta)]
            for name, parameter in mta.named_parameters():
                groups[_group_of(name, mta.num_adapters)][f"{prefix}.{name}"] = parameter
                owned.add(id(parameter))
            for path in mta.bank.replaced:
                owned.update(id(parameter) for parameter in self.backbone.get_submodule(path).parameters(recurse=False))
        for name, parameter in self.named_parameters():
            if id(parameter) not in owned:
                groups["heads" if name.startswith("heads.") else "backbone"][name] = parameter
        return groups

    def set_trainable(self, trains: Sequence[Trained]) -> dict[str, nn.Parameter]:
        """Freeze everything but the named groups; return what trains, by name."""
        self.requires_grad_(False)
        trainable: dict[str, nn.Parameter] = {}
        for group, parameters in self.parameter_groups().items():
            if group in trains:
                trainable.update(parameters)
        for parameter in trainable.values():
            parameter.requires_grad_(True)
        return trainable

    def count_parameters(self) -> dict[str, int]:
        """Return the number of parameters by group, and `total`."""
        counts = {str(group): sum(p.numel() for p in members.values()) for group, members in self.parameter_groups().items()}
        return {**counts, "total": sum(parameter.numel() for parameter in self.parameters())}

    def describe_trainable(self) -> str:
        """Return a line that says how much of the model trains, as PEFT's `print_trainable_parameters` words it."""
        trainable = sum(parameter.numel() for parameter in self.parameters() if parameter.requires_grad)
        total = sum(parameter.numel() for parameter in self.parameters())
        return f"trainable params: {trainable:,} || all params: {total:,} || trainable%: {100 * trainable / total:.4f}"


def _check_free(backbone: PreTrainedModel) -> None:
    """Refuse a model with a head, one that is equipped already, whichever its sites, and one that hands its FFNs pieces of a row."""
    if (bare := getattr(backbone, "base_model", backbone)) is not backbone:
        raise ModelError(
            f"{type(backbone).__name__} has a head of its own, and an MTAModel brings one per task; allowed: the model without a "
            f"head ({type(bare).__name__}). Load it with AutoModel.from_pretrained"
        )
    equipped = [name for name, module in backbone.named_modules() if isinstance(module, MTA)]
    if equipped:
        raise ModelError(f"the model already carries an MTA ({equipped[0]}); load the base model afresh, or call unequip() first")
    chunk = getattr(backbone.config, "chunk_size_feed_forward", 0)
    if chunk:
        raise ModelError(
            f"the model hands its FFNs {chunk} tokens at a time (config.chunk_size_feed_forward is {chunk}), and gates need whole "
            f"rows; load it with chunk_size_feed_forward=0, which gives the same results"
        )


def _group_of(name: str, num_adapters: int) -> Trained:
    """Return the group of an MTA's parameter by its name, e.g. `bank.adapters.3.lora_A.0`."""
    part, _, rest = name.partition(".")
    if part in ("selector", "gate"):
        return "selector" if part == "selector" else "gate"
    adapter = int(rest.split(".")[1])
    return "task_adapters" if adapter < num_adapters else "shared_adapters"


def choose_sites(sites: str | list[int], num_layers: int) -> list[int]:
    """Return the positions of the FFNs that carry an MTA, in order.

    Raises:
        ConfigError: a position does not exist; negative ones count from the last.
    """
    if sites == "all":
        return list(range(num_layers))
    if sites == "last":
        return [num_layers - 1]
    if isinstance(sites, str):
        every = int(sites.removeprefix("every-"))
        return sorted(range(num_layers - 1, -1, -every))
    wrong = [position for position in sites if not -num_layers <= position < num_layers]
    if wrong:
        raise ConfigError(f"mta.sites names {wrong}, but this model has {num_layers} FFNs; allowed: 0 to {num_layers - 1}")
    return sorted({position % num_layers for position in sites})


def _check_tasks(tasks: Sequence[str] | Mapping[str, int]) -> None:
    if not tasks:
        raise ConfigError("equip(tasks=...) is empty; name at least one task")
    names = list(tasks)
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ConfigError(f"equip(tasks=...) names {twice} more than once; give each task its own name")
    without = [name for name, outputs in tasks.items() if outputs < 1] if isinstance(tasks, Mapping) else []
    if without:
        raise ConfigError(f"equip(tasks=...) gives {without} no outputs; give the number of labels, or 1 for a regression")


def equip(
    model: PreTrainedModel,
    *,
    tasks: Sequence[str] | Mapping[str, int],
    preset: Literal["alter", "alter-lite"] = "alter-lite",
    mta: Mapping[str, Any] | None = None,
    heads: Mapping[str, Any] | None = None,
) -> MTAModel:
    """Equip a stock transformers model in place, on its device and in its dtype; what the preset's stage 1 trains is trainable.

    Args:
        model: the stock model without a head, e.g. from `AutoModel.from_pretrained`.
        tasks: task names (the hidden states are the output), or task name -> number of outputs (encoder-only: one head per task;
            1 output is a regression).
        preset: what the MTA is, unless `mta` says otherwise.
        mta: settings over the preset's, e.g. `{"adapter": {"kind": "bottleneck", "r": 8}, "sites": "every-2"}`.
        heads: the heads' settings, e.g. `{"pooling": "cls"}`.

    Raises:
        ConfigError: no tasks, a task twice or without outputs, an unknown preset or setting, or settings that do not fit.
        ModelError: the model's family is unknown, or it has a head or carries an MTA already.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset '{preset}'; {did_you_mean(preset, PRESETS)}")
    _check_tasks(tasks)
    settings = parse(MTASettings, merge(PRESETS[preset]["mta"], mta or {}), where="equip(mta=...)")
    try:
        check_mta(settings, num_tasks=len(tasks))
    except ValueError as error:
        raise ConfigError(f"equip(mta=...): {error}") from None
    head_settings = parse(HeadSettings, dict(heads or {}), where="equip(heads=...)")
    num_outputs = list(tasks.values()) if isinstance(tasks, Mapping) else None
    equipped = MTAModel(model, task_names=list(tasks), settings=settings, num_outputs=num_outputs, heads=head_settings)
    equipped.set_trainable(PRESETS[preset]["stages"]["stage1"]["trains"])
    return equipped


__all__ = ["NOT_A_CLASS", "MTAModel", "MTAOutput", "ModelError", "choose_sites", "equip"]
