"""The loop: blocks in, forward, backward, step; now and then the held-out loss and a checkpoint.

A run bounded by `max_steps` on one process of one machine is the same bit by bit, whether it was interrupted or not. One bounded by
`max_seconds` is not: its learning rates, and where it ends, depend on the clock.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list

from alter.errors import CheckpointError, TrainingError
from alter.pretraining.batch import Batch, SummedLoss, collate
from alter.pretraining.blocks import Block, Cursor, blocks_of, first_blocks
from alter.pretraining.design import Design
from alter.pretraining.objectives import target_characters
from alter.pretraining.observer import HeldOut, PretrainObserver, PretrainReport
from alter.pretraining.progress import STAGE, PretrainProgress, load_pretrain_progress
from alter.pretraining.recipe import PretrainRecipe
from alter.pretraining.schedule import build_adamw, rate_at, set_rates, share_done
from alter.pretraining.text import Documents
from alter.tensors import load_tensors
from alter.training.journal import Journal
from alter.training.parameters import copies, load_parameters, put_back
from alter.training.precision import resolve_precision
from alter.training.state import check_processes, checkpoints_in, pack_optimizer, prune, save_checkpoint, unpack_optimizer

TRAIN, VALIDATION = 0, 1
"""What a block's masks are drawn for: with the seed and the block's number they make the same masks in every process and run."""


class Pretrainer:
    """Trains a model on text.

    Args:
        design: the model and what it is asked.
        recipe: the run's recipe.
        documents: text to learn from.
        validation: text for the held-out loss.
        digest: of the training files, so that a resumed run notices other text.
        folder: the run directory, for checkpoints and metrics.jsonl.
        observer: is told what happens.
        resume: go on from the newest checkpoint in `folder`.
    """

    def __init__(
        self,
        design: Design,
        *,
        recipe: PretrainRecipe,
        documents: Documents,
        validation: Documents,
        digest: str,
        folder: Path,
        observer: PretrainObserver,
        resume: bool = False,
    ) -> None:
        self.model = design.model
        self.objective = design.objective
        self.settings = recipe.train
        self.seed = recipe.seed
        self.documents = documents
        self.folder = folder
        self.observer = observer
        # accelerate keeps the first run's precision for the whole process and refuses another.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(mixed_precision=resolve_precision(recipe.train.mixed_precision))
        self.model.to(self.accelerator.device)
        self.changing = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        self.names = {id(parameter): name for name, parameter in self.changing.items()}
        self.causal = not self.model.config.is_encoder_decoder
        self.pad = _id(self.objective.source.pad_token_id)
        self.best: dict[str, torch.Tensor] = {}
        self.optimizer: torch.optim.Optimizer = build_adamw(self.changing.values(), recipe.train)
        self.loss_sum = torch.zeros((), dtype=torch.float64)
        self.loss_tokens = 0
        self.progress = PretrainProgress(
            num_processes=self.accelerator.num_processes, rows_digest=digest, base_fingerprint=design.fingerprint
        )
        if resume and (newest := checkpoints_in(self.checkpoints)[-1:]):
            self._resume(newest[0])
        if self.accelerator.is_main_process:
            self.journal = Journal(folder / "metrics.jsonl", size=self.progress.journal_bytes)
        self.held_out, self.characters = self._held_out(validation)
        self.summed, self.prepared = self.accelerator.prepare(SummedLoss(self.model), self.optimizer)

    @property
    def checkpoints(self) -> Path:
        """Where checkpoints are."""
        return self.folder / "checkpoints"

    def fit(self) -> PretrainProgress:
        """Train to the end; the model ends with the weights of the lowest held-out loss.

        Raises:
            TrainingError: the loss is no number any more, or the disk is full.
        """
        trainable = sum(parameter.numel() for parameter in self.changing.values())
        self.observer.started(
            first_step=self.progress.step,
            max_steps=self.settings.max_steps,
            max_seconds=self.settings.max_seconds,
            trainable=trainable,
            total=self.model.num_parameters(),
        )
        try:
            self._fit()
        finally:  # an error must not leave a terminal half drawn
            self.observer.closed()
        put_back(self.best, self.changing)
        return self.progress

    def _fit(self) -> None:
        self._started = self._logged = time.monotonic()
        self._before = self.progress.seconds
        self._logged_tokens = self.progress.tokens
        if not self.progress.curve:
            self._measure()
        blocks = blocks_of(self.documents, self.objective, start=self.progress.cursor)
        share = self._share()
        while share < 1.0 and not self.progress.finished:
            rate = rate_at(self.settings, step=self.progress.step, share=share)
            norm = self._step(blocks, rate)
            share = self._share()
            self.observer.stepped(self.progress.step, share)
            self._after_step(rate, norm, share)

    def _share(self) -> float:
        seconds = [self._before + time.monotonic() - self._started]
        if self.accelerator.num_processes > 1 and self.settings.max_seconds:
            broadcast_object_list(seconds)  # processes whose clocks differ must still end together
        self._advance(seconds=seconds[0])
        return share_done(self.settings, step=self.progress.step, seconds=seconds[0])

    def _step(self, blocks: Iterator[Block], rate: float) -> torch.Tensor:
        """Train on one step's blocks: micro-batches, then one optimizer step. Returns the gradient's norm."""
        accelerator = self.accelerator
        batches, cursor, count = self._batches(blocks)
        num_targets = sum(batch.num_targets for batch in batches)
        num_tokens = sum(batch.num_tokens for batch in batches)
        if accelerator.num_processes > 1:
            totals = accelerator.reduce(torch.tensor([num_targets, num_tokens], device=accelerator.device), "sum")
            num_targets, num_tokens = (int(total) for total in totals)
        set_rates(self.optimizer, rate, self.settings)
        self.summed.train(self.settings.dropout)
        for position, batch in enumerate(batches):
            last = position == len(batches) - 1
            with accelerator.no_sync(self.summed) if not last else contextlib.nullcontext():
                moved = batch.to(accelerator.device)
                loss = self.summed(moved.num_targets, moved.tensors)
                accelerator.backward(loss * (accelerator.num_processes / num_targets))
                self.loss_sum += loss.detach().double().cpu()
        norm = accelerator.clip_grad_norm_(list(self.changing.values()), self.settings.max_grad_norm)
        self.prepared.step()
        self.prepared.zero_grad()
        self.loss_tokens += num_targets
        self._advance(
            step=self.progress.step + 1,
            cursor=cursor,
            blocks=self.progress.blocks + count,
            tokens=self.progress.tokens + num_tokens,
        )
        assert isinstance(norm, torch.Tensor)
        return norm

    def _batches(self, blocks: Iterator[Block]) -> tuple[list[Batch], Cursor, int]:
        """Return this process's micro-batches of the next step, where its blocks end, and how many they are in all processes."""
        settings, processes = self.settings, self.accelerator.num_processes
        size = settings.per_device_train_batch_size
        taken = [next(blocks) for _ in range(size * settings.gradient_accumulation_steps * processes)]
        batches = []
        for micro_batch in range(settings.gradient_accumulation_steps):
            first = (micro_batch * processes + self.accelerator.process_index) * size
            mine = range(first, first + size)
            batches.append(self._collated([taken[n].units for n in mine], [self.progress.blocks + n for n in mine], TRAIN))
        return batches, taken[-1].next, len(taken)

    def _collated(self, blocks: Sequence[list[object]], numbers: Sequence[int], use: int) -> Batch:
        examples = [
            self.objective.example(units, np.random.default_rng((self.seed, use, number)))
            for units, number in zip(blocks, numbers, strict=True)
        ]
        return collate(examples, pad=self.pad, causal=self.causal)

    def _held_out(self, validation: Documents) -> tuple[list[Batch], int]:
        """Return the batches that the held-out loss is measured on, and the characters that they ask for."""
        size = self.settings.per_device_eval_batch_size
        found = first_blocks(validation, self.objective, count=size * self.settings.eval_batches)
        batches, characters = [], 0
        for start in range(0, len(found), size):
            blocks = found[start : start + size]
            numbers = range(start, start + len(blocks))
            batches.append(self._collated(blocks, numbers, VALIDATION))
            for units, number in zip(blocks, numbers, strict=True):
                example = self.objective.example(units, np.random.default_rng((self.seed, VALIDATION, number)))
                characters += target_characters(self.objective, example)
        return batches, max(1, characters)

    def _after_step(self, rate: float, norm: torch.Tensor, share: float) -> None:
        step, settings = self.progress.step, self.settings
        last = share >= 1.0
        logs = last or step % settings.logging_steps == 0
        measures = last or step % settings.eval_steps == 0
        saves = last or step % settings.save_steps == 0
        if logs or measures or saves:
            self._check_finite(norm)
        if logs:
            self._log(rate, norm, share)
        if measures:
            self._measure()
        if saves:
            if last:
                self._advance(finished=True)
            self._save()

    def _check_finite(self, norm: torch.Tensor) -> None:
        if not (math.isfinite(float(self.loss_sum)) and math.isfinite(float(norm))):
            raise self._no_number(f"the loss is {float(self.loss_sum)}, the gradient's norm {float(norm)}")

    def _no_number(self, what: str) -> TrainingError:
        return TrainingError(
            f"step {self.progress.step}: {what}. Nothing saved is lost: the last checkpoint in {self.checkpoints} is from before. "
            f"Lower train.learning_rate or train.max_grad_norm, raise train.warmup_steps"
            + (", or set train.mixed_precision: no" if self.accelerator.mixed_precision == "bf16" else "")
        )

    def _log(self, rate: float, norm: torch.Tensor, share: float) -> None:
        total = self.loss_sum
        if self.accelerator.num_processes > 1:
            total = self.accelerator.reduce(total.to(self.accelerator.device), "sum").cpu()
        now = time.monotonic()
        report = PretrainReport(
            step=self.progress.step,
            seconds=round(self.progress.seconds, 2),
            share=share,
            loss=float(total) / max(1, self.loss_tokens),
            learning_rate=rate,
            grad_norm=float(norm),
            tokens_per_second=(self.progress.tokens - self._logged_tokens) / max(1e-9, now - self._logged),
        )
        self.loss_sum, self.loss_tokens = torch.zeros((), dtype=torch.float64), 0
        self._logged, self._logged_tokens = now, self.progress.tokens
        if self.accelerator.is_main_process:
            self.journal.write({
                "event": "step", "step": report.step, "seconds": report.seconds, "loss": report.loss,
                "learning_rate": rate, "grad_norm": report.grad_norm, "tokens_per_second": round(report.tokens_per_second, 1),
            })  # fmt: skip
        self.observer.logged(report)

    @torch.no_grad()
    def _measure(self) -> None:
        """Measure the held-out loss; its lowest place is what the run ends with."""
        before = time.monotonic()
        plain = self.accelerator.unwrap_model(self.summed)
        plain.eval()
        nats, num_targets = 0.0, 0
        for batch in self.held_out:
            moved = batch.to(self.accelerator.device)
            nats += float(plain(moved.num_targets, moved.tensors))
            num_targets += batch.num_targets
        if not math.isfinite(nats):
            raise self._no_number(f"the held-out loss is {nats}")
        found = HeldOut(
            step=self.progress.step,
            seconds=round(self.progress.seconds, 2),
            loss=nats / num_targets,
            bits_per_character=nats / math.log(2) / self.characters,
        )
        best = self.progress.best_loss is None or found.loss < self.progress.best_loss
        curve = [*self.progress.curve, (found.step, found.seconds, round(found.loss, 5), round(found.bits_per_character, 5))]
        self._advance(curve=curve)
        if best:
            self.best = copies(self.changing)
            self._advance(best_loss=found.loss, best_bits_per_character=found.bits_per_character, best_step=found.step)
        if self.accelerator.is_main_process:
            self.journal.write({
                "event": "held_out", "step": found.step, "seconds": found.seconds, "loss": found.loss,
                "bits_per_character": found.bits_per_character, "best": best,
            })  # fmt: skip
        self.observer.measured(found, best=best)
        self._logged += time.monotonic() - before  # tokens per second are training's

    def _save(self) -> None:
        before = time.monotonic()
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._advance(journal_bytes=self.journal.size())
            meter = {"meter.loss": self.loss_sum, "meter.tokens": torch.tensor(self.loss_tokens)}
            tensors: dict[str, Mapping[str, torch.Tensor]] = {
                "model": self.changing,
                "optimizer": {**pack_optimizer(self.optimizer, self.names), **meter},
                "best": self.best,
            }
            save_checkpoint(self.checkpoints / f"{STAGE}-{self.progress.step:06d}", self.progress, tensors)
            prune(self.checkpoints, self.settings.save_total_limit)
        self.accelerator.wait_for_everyone()
        self._logged += time.monotonic() - before

    def _resume(self, folder: Path) -> None:
        saved = load_pretrain_progress(folder)
        check_processes(saved, self.progress, folder)
        if saved.rows_digest != self.progress.rows_digest:
            raise CheckpointError(
                f"{folder}: the training text changed since the run was started (digest {saved.rows_digest} then, "
                f"{self.progress.rows_digest} now); put the files back as they were, or start a new run in another --output-dir"
            )
        if saved.base_fingerprint not in ("", self.progress.base_fingerprint):
            raise CheckpointError(
                f"{folder}: the model that the run started from changed since (fingerprint {saved.base_fingerprint} then, "
                f"{self.progress.base_fingerprint} now); put the base or the encoder back, or start a new run in another --output-dir"
            )
        self.progress = saved
        load_parameters(
            folder / "model.safetensors",
            self.changing,
            advice="was the base changed since? Resume with the base that the run was started with, or start a new run in another "
            "--output-dir",
        )
        packed = load_tensors(folder / "optimizer.safetensors")
        unpack_optimizer(self.optimizer, packed, self.names)
        self.loss_sum, self.loss_tokens = packed["meter.loss"], int(packed["meter.tokens"])
        best = load_tensors(folder / "best.safetensors")
        self.best = {name: tensor.to(self.accelerator.device) for name, tensor in best.items()}

    def _advance(self, **changes: object) -> None:
        self.progress = self.progress.model_copy(update=changes)


def _id(token: object) -> int:
    assert isinstance(token, int)
    return token
