"""MTAModel: a stock transformers model, equipped in place with Mixture-of-Task-Adapters and, for encoders, per-task heads.

    model = equip(hf_encoder, tasks={"intent": 6, "urgency": 3}, preset="alter-lite")
    out = model(input_ids=..., attention_mask=..., task_ids=task_ids_B)      # out.logits (B, C), each row under its own head

    model = equip(hf_seq2seq_or_causal_lm, tasks=["headline", "translate"])
    out = model(input_ids=..., attention_mask=..., task_ids=task_ids_B, labels=labels_BT)      # out.losses (B,)
    ids = model.generate(input_ids=..., attention_mask=..., task_ids=task_ids_B, num_beams=4)

Shapes: B rows, S tokens, T tokens to write, V vocabulary, D model width, C outputs of the largest task, E adapters of a site.
"""

from __future__ import annotations

import contextlib
import inspect
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
from alter.nn.losses import NOT_A_CLASS, mean_over_targets, row_losses, token_losses
from alter.nn.mta import MTA, attach, detach, watch
from alter.nn.packing import Packing
from alter.nn.routing import Route, Router, RoutingState
from alter.nn.site import Kind, projection_weight
from alter.nn.tokens import mean_over_tokens
from alter.presets import PRESETS
from alter.recipe import HeadSettings, MTASettings, Trained, check_mta


@dataclass
class MTAOutput(ModelOutput):
    """What a forward pass returns.

    Attributes:
        loss: mean over the rows that count, where labels were given; 0 where none counts.
        logits: (B, C), -inf where a row's task has no such output; None without heads. Models that write: (B, T, V), of the next token.
        losses: (B,), where labels were given; 0 for rows that do not count. Models that write: each row's mean over its tokens.
        token_losses: (B, T), models that write; where labels were given, 0 where none is. Decoder-only: of the last T tokens.
        last_hidden_state: (B, S, D), encoders.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    losses: torch.Tensor | None = None
    token_losses: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None


class MTAModel(nn.Module):
    """A stock model with an MTA at each chosen site.

    Args:
        backbone: the stock model; it is changed in place.
        task_names: the tasks, in the order of their ids.
        settings: the MTA.
        num_outputs: outputs of each task's head, in the same order; None: no heads, the hidden states are the output. Models that write
            answer every task by text and have no heads.
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
        self.kind = family_of(backbone).kind
        _check_free(backbone, self.kind)
        self.state = RoutingState()
        ffns = [find_ffn(backbone, site) for site in sites_of(backbone)]
        num_encoder = sum(ffn.site.stack == "encoder" for ffn in ffns)
        self.site_positions = choose_sites(settings.sites, num_encoder, num_decoder_layers=len(ffns) - num_encoder)
        self.ffns = [ffns[position] for position in self.site_positions]
        encoder = backbone.get_encoder() if self.kind == "encoder-decoder" else None
        for ffn, position in zip(self.ffns, self.site_positions, strict=True):
            beside = ffns[0].dim if encoder is not None and ffn.site.stack == "decoder" else None
            mta = MTA(ffn, settings, num_tasks=len(self.task_names), state=self.state, position=position, encoder_dim=beside)
            attach(backbone, ffn, mta.to(projection_weight(ffn.down)))
        watch(backbone, encoder, self.state)
        self.backbone = backbone
        self.heads = None
        if num_outputs is not None and self.kind == "encoder":
            last = projection_weight(self.ffns[-1].down)
            self.heads = HeadBank(backbone.config.hidden_size, num_outputs, self.head_settings).to(last)
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
        labels: torch.Tensor | None = None,
        packing: Packing | None = None,
        **backbone_inputs: Any,
    ) -> MTAOutput:
        """Run a batch that may mix tasks.

        Args:
            input_ids: (B, S) token ids.
            attention_mask: (B, S), 1 for tokens and 0 for padding; None: no padding.
            task_ids: (B,) task of each row.
            label_ids: (B,) class of each row of a task with several outputs, -100 where it has none and does not count; gives a
                loss. None: no such row counts. Encoders only, as `targets`.
            targets: (B,) standardised targets of the rows of tasks with one output (regressions); gives a loss. None: 0, the mean.
            labels: ids of the texts to write, -100 elsewhere; gives a loss. Encoder-decoder: (B, T). Decoder-only: (B, S), the ids of
                `input_ids` where they are to be learned; the tokens before count as the prompt, which is all that gates by row see.
            packing: lets several rows share a sequence (decoder-only); the rows are given padded all the same.
            backbone_inputs: further inputs of the stock model, e.g. token_type_ids or encoder_outputs.

        Raises:
            TaskError: `labels` was given to an encoder, or label_ids or targets to a model that writes, or task_ids do not fit the rows
                or the tasks.
        """
        self._check_task_ids(input_ids, task_ids)
        if self.kind != "encoder":
            if label_ids is not None or targets is not None:
                raise TaskError(
                    "label_ids and targets are for encoders; this model writes: give labels=... (ids of the text, -100 elsewhere)"
                )
            return self._forward_text(input_ids, attention_mask, task_ids, labels, packing, backbone_inputs)
        if labels is not None:
            raise TaskError(
                "labels=... was given, but an MTAModel takes label_ids=... (class of each row, -100 for none) and targets=... "
                "(number of each regression row); rename it"
            )
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

    def _forward_text(
        self,
        input_ids: torch.Tensor | None,
        mask_BS: torch.Tensor | None,
        task_ids: torch.Tensor,
        labels_BT: torch.Tensor | None,
        packing: Packing | None,
        given: dict[str, Any],
    ) -> MTAOutput:
        """Run a model that writes; see `forward`."""
        if self.kind == "encoder-decoder":
            logits_BTV = self._run_two_stacks(input_ids, mask_BS, task_ids, labels_BT, given)
        else:
            logits_BTV = self._run_one_stack(input_ids, mask_BS, task_ids, labels_BT, packing, given)
        if labels_BT is None:
            return MTAOutput(logits=logits_BTV)
        predicted_BTV, wanted_BT = logits_BTV, labels_BT
        if self.kind == "decoder":  # a token's output predicts the next one
            predicted_BTV = logits_BTV[:, :-1]
            wanted_BT = labels_BT[:, labels_BT.shape[1] - predicted_BTV.shape[1] :]
        losses_BT = token_losses(predicted_BTV, wanted_BT, label_smoothing=self.label_smoothing if self.training else 0.0)
        losses_B = mean_over_targets(losses_BT, wanted_BT)
        num_counted = (wanted_BT != NOT_A_CLASS).any(-1).sum()
        loss = losses_B.sum() / num_counted.clamp_min(1)
        return MTAOutput(loss=loss, logits=logits_BTV, losses=losses_B, token_losses=losses_BT)

    def _run_two_stacks(
        self,
        input_ids: torch.Tensor | None,
        mask_BS: torch.Tensor | None,
        task_ids: torch.Tensor,
        labels_BT: torch.Tensor | None,
        given: dict[str, Any],
    ) -> torch.Tensor:
        if labels_BT is not None and "decoder_input_ids" not in given:
            given = {**given, "decoder_input_ids": self._shifted(labels_BT)}
        with self._routed(Route(task_ids_B=task_ids, mask_BS=mask_BS)):
            if (outputs := given.get("encoder_outputs")) is not None:
                self.state.encoder_BD = mean_over_tokens(outputs[0], mask_BS)
            logits = self.backbone(input_ids=input_ids, attention_mask=mask_BS, use_cache=False, **given).logits
        assert isinstance(logits, torch.Tensor)
        return logits

    def _shifted(self, labels_BT: torch.Tensor) -> torch.Tensor:
        """Return what the decoder reads to write these labels."""
        shift: Any = self.backbone.prepare_decoder_input_ids_from_labels
        try:
            shifted = shift(labels=labels_BT)
        except (TypeError, ValueError):  # what transformers' own functions raise for a token that is None
            config = self.backbone.config
            seen = {name: getattr(config, name, None) for name in ("decoder_start_token_id", "pad_token_id")}
            if None not in seen.values():
                raise
            raise ModelError(
                f"this {type(self.backbone).__name__}'s config does not say what its decoder begins with and is padded with ({seen}); set "
                f"both in its config.json, e.g. decoder_start_token_id to the id of the token that stands before every text"
            ) from None
        assert isinstance(shifted, torch.Tensor)
        return shifted

    def _run_one_stack(
        self,
        input_ids: torch.Tensor | None,
        mask_BS: torch.Tensor | None,
        task_ids: torch.Tensor,
        labels_BT: torch.Tensor | None,
        packing: Packing | None,
        given: dict[str, Any],
    ) -> torch.Tensor:
        prompt_BS = mask_BS
        if labels_BT is not None:
            prompt_BS = labels_BT == NOT_A_CLASS if mask_BS is None else (labels_BT == NOT_A_CLASS) & (mask_BS != 0)
        mask: torch.Tensor | dict[str, torch.Tensor] | None
        takes = inspect.signature(self.backbone.forward).parameters
        takes_positions = "position_ids" in takes
        if "logits_to_keep" not in takes or packing is not None:
            given = {name: value for name, value in given.items() if name != "logits_to_keep"}
        if packing is not None:
            assert input_ids is not None
            if not takes_positions:
                raise ModelError(
                    f"rows cannot be packed for a {type(self.backbone).__name__}: it takes no position_ids; set train.packing: false"
                )
            dtype = projection_weight(self.ffns[-1].down).dtype
            mask, input_ids = _packed_mask(packing, dtype, self.backbone.config), packing.pack(input_ids)
            given = {**given, "position_ids": packing.position_ids()}
        else:
            mask = mask_BS
            if takes_positions and mask_BS is not None and "position_ids" not in given:  # padding on the left shifts nobody
                given = {**given, "position_ids": (mask_BS.long().cumsum(-1) - 1).clamp_min(0)}
        with self._routed(Route(task_ids_B=task_ids, mask_BS=prompt_BS, packing=packing)):
            logits = self.backbone(input_ids=input_ids, attention_mask=mask, use_cache=False, **given).logits
        assert isinstance(logits, torch.Tensor)
        return logits if packing is None else packing.unpack(logits)

    def encode(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, task_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return what the encoder of an encoder-decoder makes of the rows, (B, S, D): `forward` takes it as `encoder_outputs`."""
        with self._routed(Route(task_ids_B=task_ids, mask_BS=attention_mask)):
            encoder: Any = self.backbone.get_encoder()
            hidden_BSD = encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        assert isinstance(hidden_BSD, torch.Tensor)
        return hidden_BSD

    @torch.no_grad()
    def generate(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, task_ids: torch.Tensor, **settings: Any
    ) -> Any:
        """Write an answer to each row; the rows may be of any tasks.

        Args:
            input_ids: (B, S) token ids; decoder-only models need them padded on the left.
            attention_mask: (B, S), 1 for tokens and 0 for padding; None: no padding.
            task_ids: (B,) task of each row.
            settings: as transformers' `generate` takes them: max_new_tokens, num_beams, do_sample, num_return_sequences, ...

        Returns:
            what transformers' `generate` returns: ids (B * num_return_sequences, T), with the prompt for decoder-only models.

        Raises:
            TaskError: task_ids do not fit the rows or the tasks.
            ModelError: the model is an encoder, which writes nothing.
        """
        if self.kind == "encoder":
            raise ModelError(
                f"a {type(self.backbone).__name__} is an encoder and writes no text; use an encoder-decoder or decoder-only base model"
            )
        self._check_task_ids(input_ids, task_ids)
        was_training = self.training
        self.eval()
        self.state.kept, self.state.kept_reads = {}, {}
        try:
            with self._routed(Route(task_ids_B=task_ids, mask_BS=attention_mask)):
                writer: Any = self.backbone
                return writer.generate(input_ids=input_ids, attention_mask=attention_mask, **settings)
        finally:
            self.state.kept, self.state.kept_reads = None, {}
            self.train(was_training)

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
            self.state.route = self.state.encoder_BD = None

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


def _check_free(backbone: PreTrainedModel, kind: Kind) -> None:
    """Refuse a model with a head that is not for writing, one that is equipped already, and one that hands its FFNs pieces of a row."""
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


def _packed_mask(packing: Packing, dtype: torch.dtype, config: Any) -> torch.Tensor | dict[str, torch.Tensor]:
    """Return the attention mask of packed rows: transformers takes a ready one as it is, so sliding windows must be in it."""
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if other := sorted(kinds - {"full_attention", "sliding_attention"}):
        raise ModelError(
            f"rows cannot be packed for a '{config.model_type}' model: its layers of the kind {', '.join(other)} would mix them; set "
            f"train.packing: false"
        )
    if "sliding_attention" in kinds:  # one mask for each kind of layer
        return {kind: packing.attention_mask(dtype, window=window if kind == "sliding_attention" else None) for kind in kinds}
    return packing.attention_mask(dtype, window=None if kinds else window)


def _group_of(name: str, num_adapters: int) -> Trained:
    """Return the group of an MTA's parameter by its name, e.g. `bank.adapters.3.lora_A.0`."""
    part, _, rest = name.partition(".")
    if part in ("selector", "gate"):
        return "selector" if part == "selector" else "gate"
    adapter = int(rest.split(".")[1])
    return "task_adapters" if adapter < num_adapters else "shared_adapters"


def choose_sites(sites: str | list[int], num_layers: int, *, num_decoder_layers: int = 0) -> list[int]:
    """Return the positions of the FFNs that carry an MTA, in order; an encoder-decoder's stacks are chosen from alike.

    Args:
        sites: `all`, `last`, `every-K` (each of every stack), or positions among all FFNs, the encoder's first.
        num_layers: FFNs of the encoder.
        num_decoder_layers: FFNs of the decoder, which come after them.

    Raises:
        ConfigError: a position does not exist; negative ones count from the last.
    """
    total = num_layers + num_decoder_layers
    if isinstance(sites, str):
        every = {"all": 1, "last": total}.get(sites) or int(sites.removeprefix("every-"))
        stacks = (range(num_layers), range(num_layers, total))
        return sorted(position for stack in stacks for position in stack[::-1][::every])
    wrong = [position for position in sites if not -total <= position < total]
    if wrong:
        raise ConfigError(f"mta.sites names {wrong}, but this model has {total} FFNs; allowed: 0 to {total - 1}")
    return sorted({position % total for position in sites})


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
        model: the stock model: an encoder without a head (`AutoModel`), or a model that writes (`AutoModelForSeq2SeqLM`,
            `AutoModelForCausalLM`).
        tasks: task names, or task name -> number of outputs (encoders: one head per task, 1 output is a regression; without numbers
            the hidden states are the output. Models that write have no heads).
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
