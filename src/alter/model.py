"""MTAModel: a stock transformers model, equipped in place with Mixture-of-Task-Adapters and, for encoders, per-task heads.

    model = equip(hf_encoder, tasks={"intent": 6, "urgency": 3}, preset="alter-lite")
    out = model(input_ids=..., attention_mask=..., task_ids=task_ids_B)      # out.logits (B, C), each row under its own head

    model = equip(hf_seq2seq_or_causal_lm, tasks=["headline", "translate"])
    out = model(input_ids=..., attention_mask=..., task_ids=task_ids_B, labels=labels_BT)      # out.losses (B,)
    ids = model.generate(input_ids=..., attention_mask=..., task_ids=task_ids_B, num_beams=4)

Shapes: B rows, S tokens, T tokens to write, V vocabulary, D model width, C outputs of the largest task, E adapters of a site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from alter.backbones._find import family_of, sites_of
from alter.config import merge, parse
from alter.errors import ConfigError, ModelError, TaskError, did_you_mean
from alter.mta_settings import MTASettings, PartSettings, check_mta
from alter.nn.equipped import Equipped, check_free
from alter.nn.losses import NOT_A_CLASS, mean_over_targets, row_losses, token_losses
from alter.nn.packing import Packing
from alter.nn.passes import one_stack, two_stacks
from alter.nn.routing import Route
from alter.nn.site import choose_sites
from alter.peers.injected import inject
from alter.peers.xlora import without_cache
from alter.presets import PRESETS
from alter.recipe import HeadSettings


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


class MTAModel(Equipped):
    """A stock model with an MTA at each chosen site.

    Args:
        backbone: the stock model; it is changed in place.
        task_names: the tasks, in the order of their ids.
        settings: the MTA.
        num_outputs: outputs of each task's head, in the same order; None: no heads, the hidden states are the output. Models that write
            answer every task by text and have no heads.
        heads: the heads' settings.
        parts: the models that a merged one is made of (`alter merge`); each weighs its own adapters.
        peft: a method of the library peft in place of the MTA, as a recipe's block `peft` has it (with `sites: none`).

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
        parts: Sequence[PartSettings] = (),
        peft: Mapping[str, Any] | None = None,
    ) -> None:
        kind = family_of(backbone).kind
        check_free(backbone, kind)
        sites = sites_of(backbone)
        super().__init__(
            backbone,
            kind=kind,
            sites=sites,
            task_names=task_names,
            settings=settings,
            num_outputs=num_outputs,
            heads=heads or HeadSettings(),
            parts=parts,
        )
        self.label_smoothing = 0.0
        if peft is not None:
            paths = [path for site in sites for path in (*site.inputs, site.down)]
            self.injected = inject(backbone, peft, paths=paths, num_tasks=len(task_names), state=self.state)

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
        with self.routed(Route(task_ids_B=task_ids, mask_BS=attention_mask)):
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
            logits_BTV = two_stacks(self, input_ids, mask_BS, task_ids, labels_BT, given)
        else:
            logits_BTV = one_stack(self, input_ids, mask_BS, task_ids, labels_BT, packing, given)
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

    def encode(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, task_ids: torch.Tensor
    ) -> torch.Tensor:
        """Return what the encoder of an encoder-decoder makes of the rows, (B, S, D): `forward` takes it as `encoder_outputs`."""
        with self.routed(Route(task_ids_B=task_ids, mask_BS=attention_mask)):
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
        if self.injected is not None and self.injected.reads_whole_texts:
            settings = without_cache(settings)
        was_training = self.training
        self.eval()
        self.state.kept, self.state.kept_reads = {}, {}
        try:
            with self.routed(Route(task_ids_B=task_ids, mask_BS=attention_mask)):
                writer: Any = self.backbone
                return writer.generate(input_ids=input_ids, attention_mask=attention_mask, **settings)
        finally:
            self.state.kept, self.state.kept_reads = None, {}
            self.train(was_training)


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
