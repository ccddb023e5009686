"""The loop. Both stages go through it: choose rows, forward, backward, step, now and then validate and save.

Shapes: B rows.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from torch import nn

from alter.data.batch import Batch, collate
from alter.data.codec import Codec
from alter.data.encode import Features
from alter.errors import ConfigError
from alter.model import MTAModel
from alter.recipe import Recipe, StageSettings, Trained
from alter.results import StageResult
from alter.training.adopt import adopt_stage1
from alter.training.check_stage import check_stage
from alter.training.kept import Kept
from alter.training.memory import peak_memory, reset_peak_memory
from alter.training.meter import Meter
from alter.training.observer import Observer, StepReport
from alter.training.optim import build_optimizer, build_schedule
from alter.training.penalties import Penalties
from alter.training.precision import resolve_precision
from alter.training.prepare import rows_digest
from alter.training.remarks import about_cuts
from alter.training.scope import parameter_scopes
from alter.training.state import Progress
from alter.training.steps import StepPlan, cut, row_weights
from alter.training.validation import Validate, better, check_losses, check_parameters, validate_step


class Trainer:
    """Trains an equipped model in stages.

    Args:
        model: the equipped model.
        recipe: the run's recipe.
        rows: task -> encoded training rows.
        codec: the base model's way with text.
        validate: scores the model on validation rows; its average chooses the best step.
        fingerprint: the base model's, so that a resumed run notices another base.
        folder: the run directory, for checkpoints and metrics.jsonl.
        observer: is told what happens.
        resume: go on from the newest checkpoint in `folder`.
    """

    def __init__(
        self,
        model: MTAModel,
        *,
        recipe: Recipe,
        rows: Mapping[str, Sequence[Features]],
        codec: Codec,
        validate: Validate,
        fingerprint: str,
        folder: Path,
        observer: Observer,
        resume: bool = False,
    ) -> None:
        self.model = model
        self.recipe = recipe
        self.rows = rows
        self.codec = codec
        self.validate = validate
        self.observer = observer
        trains_backbone = any("backbone" in stage.trains for stage in recipe.stages.values())
        # A backbone may hold parameters that no pass reads (a pooler): DDP must look for them.
        kwargs = DistributedDataParallelKwargs(find_unused_parameters=trains_backbone)
        # accelerate keeps the first run's precision for the whole process and refuses another: a sweep needs each run's own.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(mixed_precision=resolve_precision(recipe.train.mixed_precision), kwargs_handlers=[kwargs])
        self.model.to(self.accelerator.device)
        self.model.label_smoothing = recipe.train.label_smoothing
        if recipe.train.gradient_checkpointing:
            self.model.gradient_checkpointing_enable()
        kept: list[Trained] = ["task_adapters", "shared_adapters", "selector", "gate", "heads"]
        if trains_backbone:
            kept.append("backbone")
        groups = self.model.parameter_groups()
        self.changing = {name: p for group in kept for name, p in groups[group].items()}
        progress = Progress(
            stage="stage1",
            step=0,
            num_processes=self.accelerator.num_processes,
            rows_digest=rows_digest(rows),
            base_fingerprint=fingerprint,
        )
        self.kept = Kept(
            self.changing, progress=progress, recipe=recipe, accelerator=self.accelerator, folder=folder, resume=resume
        )

    @property
    def _pack_to(self) -> int | None:
        return self.codec.max_length + self.codec.max_target_length if self.recipe.train.packing else None

    def fit(self) -> dict[str, StageResult]:
        """Train all stages that are not over yet; the model ends with the best parameters of the last one.

        Returns:
            what each stage reached; the stages' best parameters are in `checkpoints/`.

        Raises:
            TrainingError: the loss is no number any more, or the disk is full.
            ConfigError: no stage has anything to do, or one has nothing to train.
            CheckpointError: the checkpoint to go on from is damaged.
        """
        stages = {name: stage for name, stage in self.recipe.stages.items() if stage.num_train_epochs > 0}
        if not stages:
            raise ConfigError(
                "every stage has num_train_epochs 0, so there is nothing to train; raise stages.stage1.num_train_epochs"
            )
        for name, stage in stages.items():
            check_stage(self.model, name, stage)
        try:
            if self.kept.resumed is None:
                for warning in about_cuts(self.recipe, self.rows):
                    self.observer.warned(warning)
                if self.recipe.stage1_from is not None:
                    adopt_stage1(self.kept, self.model, self.recipe)
            self._fit_stages(stages)
        finally:  # an error must not leave a terminal half drawn or a tracker's file open
            self.observer.closed()
        return self.kept.progress.results

    def _fit_stages(self, stages: Mapping[str, StageSettings]) -> None:
        for name, stage in sorted(stages.items()):
            if name < self.kept.progress.stage or name in self.kept.progress.results:
                continue
            self.kept.start_stage(name)
            self._fit_stage(name, stage)

    def _fit_stage(self, name: str, stage: StageSettings) -> None:
        train, kept = self.recipe.train, self.kept
        plan = StepPlan(
            rows=self.rows,
            mixture=self.recipe.mixture,
            weights={task.name: task.weight for task in self.recipe.tasks},
            rows_per_step=train.per_device_train_batch_size * train.gradient_accumulation_steps * self.accelerator.num_processes,
            seed=self.recipe.seed * 2 + (name == "stage2"),
        )
        num_steps = plan.num_steps(stage)
        trainable = self.model.set_trainable(stage.trains)
        if stage.router == "gate" and kept.resumed is None:
            self.model.start_gates()
        self.model.router = stage.router
        self.model.state.adapter_dropout = stage.adapter_dropout
        optimizer = build_optimizer(self.model.parameter_groups(), stage.learning_rates, weight_decay=train.weight_decay)
        schedule = build_schedule(optimizer, stage, num_steps=num_steps)
        scopes = parameter_scopes(self.model, stage.router)
        wrapped, prepared = self.accelerator.prepare(self.model, optimizer)
        penalties = Penalties(self.model, stage, accelerator=self.accelerator, micro_batches=train.gradient_accumulation_steps)
        meter = Meter(self.model.task_names, self.model.device, penalties=penalties.names)
        if kept.resumed is not None:
            kept.resume_stage(optimizer, schedule, meter)
        if kept.resumed is None or not self.accelerator.is_main_process:
            # Each process drops units of its own. A checkpoint holds the main process's state only: the others draw anew.
            torch.manual_seed(plan.seed + self.accelerator.process_index + 1_000_003 * kept.progress.step)
        count = sum(parameter.numel() for parameter in trainable.values())
        reset_peak_memory(self.model.device)
        self.observer.stage_started(name, num_steps=num_steps, first_step=kept.progress.step, trainable=count)
        started = time.monotonic() - kept.progress.seconds
        while kept.progress.step < num_steps and not kept.progress.finished:
            rows = plan.step(kept.progress.step)
            norm = self._step(wrapped, prepared, rows, trainable, scopes, meter, penalties)
            schedule.step()
            kept.advance(step=kept.progress.step + 1, seconds=time.monotonic() - started, schedule_steps=kept.progress.step + 1)
            self.observer.stepped(name, kept.progress.step)
            self._report(name, plan, num_steps, optimizer, norm, meter)
            self._validate_and_save(stage, plan, num_steps, optimizer, meter, norm)
        self.model.state.adapter_dropout = 0.0
        kept.finish_stage(count, peak=peak_memory(self.model.device))
        self.accelerator.free_memory()
        self.model = self.accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)

    def _step(
        self,
        wrapped: nn.Module,
        optimizer: object,
        rows: Sequence[Features],
        trainable: Mapping[str, nn.Parameter],
        scopes: Mapping[str, frozenset[int]],
        meter: Meter,
        penalties: Penalties,
    ) -> torch.Tensor:
        """Train on one step's rows: micro-batches, then one optimizer step. Returns the gradient's norm."""
        accelerator, train = self.accelerator, self.recipe.train
        wrapped.train()
        penalties.look_ahead((batch, bool(mine)) for mine, batch in self._micro_batches(rows))
        for micro_batch, (mine, batch) in enumerate(self._micro_batches(rows)):
            last = micro_batch == train.gradient_accumulation_steps - 1
            with accelerator.no_sync(wrapped) if not last else contextlib.nullcontext():
                with penalties.traced() as traced:
                    out = wrapped(**batch.inputs, task_ids=batch.task_ids_B, **batch.supervised)
                losses_B = out.losses if mine else out.losses * 0.0
                weights_B = row_weights(mine or rows[:1], rows, by=train.loss_weighting).to(losses_B.device)
                loss = penalties.on_top((losses_B * weights_B).sum(), traced, batch, counted=bool(mine), meter=meter)
                accelerator.backward(loss * accelerator.num_processes)
                meter.add(losses_B.detach(), batch.task_ids_B, counted=bool(mine))
        present = {row.task_id for row in rows}
        for name, parameter in trainable.items():
            if name in scopes and not scopes[name] & present:
                # Absent tasks stand still: AdamW would otherwise move them by momentum and weight decay.
                parameter.grad = None
        norm = accelerator.clip_grad_norm_(list(trainable.values()), train.max_grad_norm)
        optimizer.step()  # type: ignore[attr-defined]
        optimizer.zero_grad()  # type: ignore[attr-defined]
        self.model.after_step()
        assert isinstance(norm, torch.Tensor)
        return norm

    def _micro_batches(self, rows: Sequence[Features]) -> Iterator[tuple[list[Features], Batch]]:
        """Yield this process's rows of each micro-batch of a step, and them padded together."""
        train, here = self.recipe.train, self.accelerator
        for micro_batch in range(train.gradient_accumulation_steps):
            mine = cut(rows, micro_batch=micro_batch, process=here.process_index, train=train, num_processes=here.num_processes)
            # A process with no rows left still takes part, with a row that weighs nothing: the others wait for it.
            yield mine, collate(mine or rows[:1], self.codec, pack_to=self._pack_to).to(self.model.device)

    def _report(
        self, name: str, plan: StepPlan, num_steps: int, optimizer: torch.optim.Optimizer, norm: torch.Tensor, meter: Meter
    ) -> None:
        step = self.kept.progress.step
        if step % self.recipe.train.logging_steps and step != num_steps:
            return
        loss, losses, rate = meter.read(self.accelerator)
        check_losses(self.kept, loss, losses, norm)
        report = StepReport(
            stage=name,
            step=step,
            num_steps=num_steps,
            epoch=step / plan.steps_per_epoch,
            loss=loss,
            losses=losses,
            learning_rates={str(group["name"]): float(group["lr"]) for group in optimizer.param_groups},
            grad_norm=float(norm),
            rows_per_second=rate,
            penalties=meter.penalties,
        )
        self.kept.write({
            "event": "step", "stage": name, "step": step, "epoch": round(report.epoch, 4), "loss": loss, "losses": losses,
            "learning_rates": report.learning_rates, "grad_norm": report.grad_norm, "rows_per_second": round(rate, 1),
            **({"penalties": meter.penalties} if meter.penalties else {}),
        })  # fmt: skip
        self.observer.logged(report)

    def _validate_and_save(
        self,
        stage: StageSettings,
        plan: StepPlan,
        num_steps: int,
        optimizer: torch.optim.Optimizer,
        meter: Meter,
        norm: torch.Tensor,
    ) -> None:
        step, train = self.kept.progress.step, self.recipe.train
        last = step == num_steps
        validates = last or step % (stage.eval_steps or math.ceil(plan.steps_per_epoch / stage.evals_per_epoch)) == 0
        saves = last or (step % train.save_steps == 0 if train.save_steps else validates)
        if validates or saves:  # nothing is ever scored or saved of a model that is no number
            loss, losses = meter.peek(self.accelerator)
            check_losses(self.kept, loss, losses, norm)
            check_parameters(self.kept)
        meter.pause()
        if validates:
            patience = stage.early_stopping_patience
            validate_step(self.kept, self.model, self.validate, observer=self.observer, patience=patience, loss=loss)
        if saves or self.kept.progress.finished:
            self.kept.save(optimizer, meter)
        meter.go_on()

    def restore(self, stage: str) -> None:
        """Put the best parameters of a finished stage back into the model, and its router to work."""
        self.kept.restore(stage)
        self.model.router = self.recipe.stages[stage].router


__all__ = ["Trainer", "better"]
