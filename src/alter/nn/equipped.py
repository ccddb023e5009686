"""A stock model with Mixture-of-Task-Adapters in it: its parts, its parameters by group, and what is switched at all sites at once.

The passes that such a model makes are in `alter.model` and `alter.nn.passes`.

Shapes: B rows, S tokens, E adapters of a site.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from alter.errors import ConfigError, ModelError, TaskError, did_you_mean
from alter.mta_settings import MTASettings, PartSettings
from alter.nn.ffn import find_ffn
from alter.nn.heads import HeadBank
from alter.nn.mixing import Weights
from alter.nn.mta import MTA, attach, detach, watch
from alter.nn.routing import Route, Router, RoutingState
from alter.nn.site import FFNSite, Kind, choose_sites, projection_weight
from alter.recipe import HeadSettings, Trained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.peers.injected import Injected


class Equipped(nn.Module):
    """A stock model with an MTA at each chosen site and, for encoders, per-task heads.

    Args:
        backbone: the stock model, one that `check_free` lets through; it is changed in place.
        kind: how it reads and writes text.
        sites: all its FFN sites, the encoder's first.
        task_names: the tasks, in the order of their ids.
        settings: the MTA.
        num_outputs: outputs of each task's head, in the same order; None: no heads.
        heads: the heads' settings.
        parts: the models that a merged one is made of.

    Raises:
        ConfigError: the chosen sites do not exist in this model.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        *,
        kind: Kind,
        sites: Sequence[FFNSite],
        task_names: Sequence[str],
        settings: MTASettings,
        num_outputs: Sequence[int] | None,
        heads: HeadSettings,
        parts: Sequence[PartSettings] = (),
    ) -> None:
        super().__init__()
        self.task_names = list(task_names)
        self.settings = settings
        self.head_settings = heads
        self.kind = kind
        self.state = RoutingState()
        ffns = [find_ffn(backbone, site) for site in sites]
        num_encoder = sum(ffn.site.stack == "encoder" for ffn in ffns)
        self.site_positions = choose_sites(settings.sites, num_encoder, num_decoder_layers=len(ffns) - num_encoder)
        self.ffns = [ffns[position] for position in self.site_positions]
        encoder = backbone.get_encoder() if self.kind == "encoder-decoder" else None
        for ffn, position in zip(self.ffns, self.site_positions, strict=True):
            beside = ffns[0].dim if encoder is not None and ffn.site.stack == "decoder" else None
            mta = MTA(
                ffn,
                settings,
                num_tasks=len(self.task_names),
                state=self.state,
                position=position,
                encoder_dim=beside,
                parts=parts,
            )
            attach(backbone, ffn, mta.to(projection_weight(ffn.down)))
        watch(backbone, encoder, self.state)
        self.backbone = backbone
        self.injected: Injected | None = None
        self.heads = None
        if num_outputs is not None and self.kind == "encoder":
            last = projection_weight(ffns[-1].down)
            self.heads = HeadBank(backbone.config.hidden_size, num_outputs, self.head_settings).to(last)

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
    def routed(self, route: Route) -> Iterator[None]:
        """Within this context the sites route the batch at hand; a task id that the model lacks is told by its number."""
        self.state.route = route
        try:
            yield
        except IndexError as error:  # looked at only now: reading task ids beforehand would make a GPU wait
            self._explain_index_error(route.task_ids_B, error)
            raise
        finally:
            self.state.route = self.state.encoder_BD = None

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Within this context the backbone computes the stock model's own function (heads stay)."""
        before, self.state.enabled = self.state.enabled, False
        try:
            with contextlib.nullcontext() if self.injected is None else self.injected.disabled(self.backbone):
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

    @contextlib.contextmanager
    def trace_weights(self) -> Iterator[dict[int, Weights]]:
        """Within this context each pass leaves its gate weights with their graph, for penalties: site position -> weights."""
        self.state.traced = {}
        try:
            yield self.state.traced
        finally:
            self.state.traced = None

    def after_step(self) -> None:
        """Let gates that ask for it put their parameters in order; called after each optimizer step."""
        for gate in (gate for mta in self.mtas for gate in (mta.selector, mta.gate)):
            if callable(tidy := getattr(gate, "after_step", None)):
                tidy()

    def start_gates(self) -> None:
        """Let every gate begin at the selector's weights: the start of stage 2."""
        for mta in self.mtas:
            mta.start_gate()

    def unequip(self) -> PreTrainedModel:
        """Take the MTAs, or a method of peft, out and return the stock model."""
        detach(self.backbone)
        if self.injected is not None:
            self.injected.remove(self.backbone)
            self.injected = None
        return self.backbone

    def gradient_checkpointing_enable(self) -> None:
        """Recompute activations in the backward pass, with the routing of the pass they belong to.

        Raises:
            ConfigError: the model carries X-LoRA, whose weights of a pass are gone by then.
        """
        if self.injected is not None and self.injected.reads_whole_texts:
            raise ConfigError("X-LoRA's weights of a pass cannot be recomputed; set train.gradient_checkpointing: false")
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
        for name, group in ({} if self.injected is None else self.injected.groups).items():
            groups[group][f"backbone.{name}"] = parameter = self.backbone.get_parameter(name)
            owned.add(id(parameter))
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


def check_free(backbone: PreTrainedModel, kind: Kind) -> None:
    """Refuse a model with a head that is not for writing, one that is equipped already, and one that hands its FFNs pieces of a row.

    Raises:
        ModelError: it is one of these.
    """
    if kind != "encoder" and not backbone.can_generate():
        auto = {"encoder-decoder": "AutoModelForSeq2SeqLM", "decoder": "AutoModelForCausalLM"}[kind]
        raise ModelError(
            f"{type(backbone).__name__} cannot write text, and a model of this family answers every task by writing; load it with {auto}"
        )
    if kind == "encoder" and (bare := getattr(backbone, "base_model", backbone)) is not backbone:
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
