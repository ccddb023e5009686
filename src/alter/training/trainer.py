"""The loop. Both stages go through it: choose rows, forward, backward, step, now and then validate and save.

Shapes: B rows.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from torch import nn

from alter.data.batch import collate
from alter.data.codec import Codec
from alter.data.encode import Features
from alter.errors import CheckpointError, ConfigError, TrainingError
from alter.model import MTAModel
from alter.recipe import Recipe, StageSettings, Trained
from alter.results import SplitScores, StageResult
from alter.tensors import load_tensors, save_atomically
from alter.training.journal import Journal
from alter.training.meter import Meter
from alter.training.observer import Observer, StepReport
from alter.training.optim import build_optimizer, build_schedule
from alter.training.precision import resolve_precision
from alter.training.prepare import rows_digest
from alter.training.scope import parameter_scopes
from alter.training.state import (
    Progress,
    checkpoints_in,
    load_progress,
    pack_optimizer,
    prune,
    save_checkpoint,
    unpack_optimizer,
)
from alter.training.steps import StepPlan, cut, row_weights

Validate = Callable[[MTAModel], SplitScores]


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
        self.folder = folder
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
        self.names = {id(parameter): name for name, parameter in self.changing.items()}
        self.best: dict[str, torch.Tensor] = {}
        self.progress = Progress(
            stage="stage1",
            step=0,
            num_processes=self.accelerator.num_processes,
            rows_digest=rows_digest(rows),
            base_fingerprint=fingerprint,
        )
        self._resumed: Path | None = None
        newest = checkpoints_in(self._checkpoints)[-1:] if resume else []
        if newest:
            self._resumed = newest[0]
            saved = load_progress(newest[0])
            self._check_origin(saved, newest[0])
            self.progress = saved.model_copy(update=self.progress.model_dump(include={"rows_digest", "base_fingerprint"}))
            self._load_parameters(newest[0] / "model.safetensors")
        if self.accelerator.is_main_process:
            self.journal = Journal(folder / "metrics.jsonl", size=self.progress.journal_bytes)

    def _check_origin(self, saved: Progress, folder: Path) -> None:
        """Refuse a checkpoint of other processes, training rows or base than this run has."""
        before, now = saved.num_processes, self.progress.num_processes
        if before != now:
            raise CheckpointError(f"{folder}: written by a run of {before} process(es), this one has {now}; resume with {before}")
        if saved.rows_digest not in ("", self.progress.rows_digest):
            raise CheckpointError(
                f"{folder}: the training rows changed since the run was started (digest {saved.rows_digest} then, "
                f"{self.progress.rows_digest} now); put the files of rows and the tokenizer back as they were, or start a new run in "
                f"another --output-dir"
            )
        if saved.base_fingerprint not in ("", self.progress.base_fingerprint):
            raise CheckpointError(
                f"{folder}: the base model {self.recipe.model_name_or_path} changed since the run was started (fingerprint "
                f"{saved.base_fingerprint} then, {self.progress.base_fingerprint} now). Resume with the base that the run was "
                f"started with, or start a new run in another --output-dir"
            )

    @property
    def _pack_to(self) -> int | None:
        return self.codec.max_length + self.codec.max_target_length if self.recipe.train.packing else None

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

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
        groups = self.model.parameter_groups()
        for name, stage in stages.items():
            if not any(groups[group] for group in stage.trains):
                raise ConfigError(
                    f"stages.{name}.trains is [{', '.join(stage.trains)}], and this model has no such parameters; add a group that has "
                    f"some ({', '.join(group for group, members in groups.items() if members)}), or set stages.{name}.num_train_epochs: 0"
                )
        try:
            if self._resumed is None:
                self._warn_of_cut_rows()
            self._fit_stages(stages)
        finally:  # an error must not leave a terminal half drawn or a tracker's file open
            self.observer.closed()
        return self.progress.results

    def _warn_of_cut_rows(self) -> None:
        recipe = self.recipe
        for task, rows in self.rows.items():
            if num_cut := sum(row.truncated for row in rows):
                self.observer.warned(
                    f"{num_cut} of {len(rows)} training rows of task '{task}' are longer than max_length={recipe.max_length} tokens "
                    f"and were cut; raise max_length"
                )
            if num_cut := sum(row.target_truncated for row in rows):
                self.observer.warned(
                    f"the targets of {num_cut} of {len(rows)} training rows of task '{task}' are longer than "
                    f"max_target_length={recipe.max_target_length} tokens and were cut; raise max_target_length"
                )

    def _fit_stages(self, stages: Mapping[str, StageSettings]) -> None:
        for name, stage in sorted(stages.items()):
            if name < self.progress.stage or name in self.progress.results:
                continue
            if name != self.progress.stage:
                kept = self.progress.model_dump(include={"num_processes", "rows_digest", "base_fingerprint"})
                self.progress = Progress(stage=name, step=0, results=self.progress.results, **kept)
                self._resumed, self.best = None, {}
            self._fit_stage(name, stage)

    def _fit_stage(self, name: str, stage: StageSettings) -> None:
        train = self.recipe.train
        plan = StepPlan(
            rows=self.rows,
            mixture=self.recipe.mixture,
            weights={task.name: task.weight for task in self.recipe.tasks},
            rows_per_step=train.per_device_train_batch_size * train.gradient_accumulation_steps * self.accelerator.num_processes,
            seed=self.recipe.seed * 2 + (name == "stage2"),
        )
        num_steps = plan.num_steps(stage)
        trainable = self.model.set_trainable(stage.trains)
        if stage.router == "gate" and self._resumed is None:
            self.model.start_gates()
        self.model.router = stage.router
        optimizer = build_optimizer(self.model.parameter_groups(), stage.learning_rates, weight_decay=train.weight_decay)
        schedule = build_schedule(optimizer, stage, num_steps=num_steps)
        scopes = parameter_scopes(self.model, stage.router)
        wrapped, prepared = self.accelerator.prepare(self.model, optimizer)
        meter = Meter(self.model.task_names, self.model.device)
        if self._resumed is not None:
            self._resume_stage(optimizer, schedule, meter)
        if self._resumed is None or not self.accelerator.is_main_process:
            # Each process drops units of its own. A checkpoint holds the main process's state only: the others draw anew.
            torch.manual_seed(plan.seed + self.accelerator.process_index + 1_000_003 * self.progress.step)
        count = sum(parameter.numel() for parameter in trainable.values())
        self.observer.stage_started(name, num_steps=num_steps, first_step=self.progress.step, trainable=count)
        started = time.monotonic() - self.progress.seconds
        while self.progress.step < num_steps and not self.progress.finished:
            rows = plan.step(self.progress.step)
            norm = self._step(wrapped, prepared, rows, trainable, scopes, meter)
            schedule.step()
            self._advance(step=self.progress.step + 1, seconds=time.monotonic() - started, schedule_steps=self.progress.step + 1)
            self.observer.stepped(name, self.progress.step)
            self._report(name, plan, num_steps, optimizer, norm, meter)
            self._validate_and_save(name, stage, plan, num_steps, optimizer, meter, norm)
        self._finish_stage(name, count)
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
    ) -> torch.Tensor:
        """Train on one step's rows: micro-batches, then one optimizer step. Returns the gradient's norm."""
        accelerator, train = self.accelerator, self.recipe.train
        wrapped.train()
        for micro_batch in range(train.gradient_accumulation_steps):
            mine = cut(
                rows,
                micro_batch=micro_batch,
                process=accelerator.process_index,
                train=train,
                num_processes=accelerator.num_processes,
            )
            last = micro_batch == train.gradient_accumulation_steps - 1
            with accelerator.no_sync(wrapped) if not last else contextlib.nullcontext():
                # A process with no rows left still takes part, with a row that weighs nothing: the others wait for it.
                batch = collate(mine or rows[:1], self.codec, pack_to=self._pack_to).to(self.model.device)
                out = wrapped(**batch.inputs, task_ids=batch.task_ids_B, **batch.supervised)
                losses_B = out.losses if mine else out.losses * 0.0
                weights_B = row_weights(mine or rows[:1], rows, by=train.loss_weighting).to(losses_B.device)
                accelerator.backward((losses_B * weights_B).sum() * accelerator.num_processes)
                meter.add(losses_B.detach(), batch.task_ids_B, counted=bool(mine))
        present = {row.task_id for row in rows}
        for name, parameter in trainable.items():
            if name in scopes and not scopes[name] & present:
                # Absent tasks stand still: AdamW would otherwise move them by momentum and weight decay.
                parameter.grad = None
        norm = accelerator.clip_grad_norm_(list(trainable.values()), train.max_grad_norm)
        optimizer.step()  # type: ignore[attr-defined]
        optimizer.zero_grad()  # type: ignore[attr-defined]
        assert isinstance(norm, torch.Tensor)
        return norm

    def _report(
        self, name: str, plan: StepPlan, num_steps: int, optimizer: torch.optim.Optimizer, norm: torch.Tensor, meter: Meter
    ) -> None:
        step = self.progress.step
        if step % self.recipe.train.logging_steps and step != num_steps:
            return
        loss, losses, rate = meter.read(self.accelerator)
        self._check_finite(name, loss, losses, norm)
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
        )
        if self.accelerator.is_main_process:
            self.journal.write({
                "event": "step", "stage": name, "step": step, "epoch": round(report.epoch, 4), "loss": loss, "losses": losses,
                "learning_rates": report.learning_rates, "grad_norm": report.grad_norm, "rows_per_second": round(rate, 1),
            })  # fmt: skip
        self.observer.logged(report)

    def _check_finite(self, name: str, loss: float, losses: Mapping[str, float], norm: torch.Tensor) -> None:
        # fp16 meets infinite gradients now and then: the scaler skips such a step.
        if math.isfinite(loss) and (self.recipe.train.mixed_precision == "fp16" or math.isfinite(float(norm))):
            return
        bad = [task for task, value in losses.items() if not math.isfinite(value)]
        raise self._no_number(name, f"the loss is {loss}, the gradient's norm {float(norm)} (tasks: {', '.join(bad) or 'all'})")

    def _check_parameters(self, name: str) -> None:
        """Refuse a model that the last update broke: the loss is from before it."""
        broken = [key for key, parameter in self.changing.items() if not torch.isfinite(parameter).all()]
        if broken:
            raise self._no_number(
                name, f"the update made {len(broken)} of {len(self.changing)} parameters NaN or infinite, first {broken[0]}"
            )

    def _no_number(self, name: str, what: str) -> TrainingError:
        return TrainingError(
            f"{name}, step {self.progress.step}: {what}. Nothing saved is lost: the last checkpoint in {self._checkpoints} is from before. "
            f"Lower stages.{name}.learning_rates, or train.max_grad_norm"
            + (", or use mixed_precision: bf16 instead of fp16" if self.recipe.train.mixed_precision == "fp16" else "")
        )

    def _validate_and_save(
        self,
        name: str,
        stage: StageSettings,
        plan: StepPlan,
        num_steps: int,
        optimizer: torch.optim.Optimizer,
        meter: Meter,
        norm: torch.Tensor,
    ) -> None:
        step, train = self.progress.step, self.recipe.train
        last = step == num_steps
        validates = last or step % (stage.eval_steps or math.ceil(plan.steps_per_epoch / stage.evals_per_epoch)) == 0
        saves = last or (step % train.save_steps == 0 if train.save_steps else validates)
        if validates or saves:  # nothing is ever scored or saved of a model that is no number
            self._check_finite(name, *meter.peek(self.accelerator), norm)
            self._check_parameters(name)
        meter.pause()
        if validates:
            self._validate(name, stage)
        if saves or self.progress.finished:
            self._save(optimizer, meter)
        meter.go_on()

    def _score(self, name: str) -> SplitScores:
        """Score on the main process and tell the others, so that all of them choose the same best step and stop together."""
        told: list[SplitScores | str | None] = [None]
        if self.accelerator.is_main_process:
            try:
                with self.accelerator.autocast():  # generation too computes as training does
                    told = [self.validate(self.model)]
            except TrainingError as error:  # finite parameters, and outputs beyond all numbers
                told = [str(error)]
        if self.accelerator.num_processes > 1:
            broadcast_object_list(told)
        [scores] = told
        if isinstance(scores, SplitScores):
            return scores
        raise self._no_number(name, str(scores))

    def _validate(self, name: str, stage: StageSettings) -> None:
        scores = self._score(name)
        best = better(scores.average, than=self.progress.best_average)
        if best:
            self.best = {key: parameter.detach().clone() for key, parameter in self.changing.items()}
            self._advance(
                best_average=scores.average,
                best_step=self.progress.step,
                best_scores={task: score.score for task, score in scores.tasks.items()},
                validations_without_gain=0,
            )
        else:
            self._advance(validations_without_gain=self.progress.validations_without_gain + 1)
        if self.accelerator.is_main_process:
            tasks = {task: {"score": score.score, "metric": score.metric} for task, score in scores.tasks.items()}
            self.journal.write({
                "event": "validation", "stage": name, "step": self.progress.step, "average": scores.average, "tasks": tasks,
                "best": best,
            })  # fmt: skip
        self.observer.validated(name, self.progress.step, scores, best=best)
        self._warn_of_collapse(name, scores)
        patience = stage.early_stopping_patience
        if patience is not None and self.progress.validations_without_gain >= patience:
            self._advance(finished=True)

    def _warn_of_collapse(self, name: str, scores: SplitScores) -> None:
        collapsed = [
            f"{task} (always '{s.constant_prediction}')" for task, s in scores.tasks.items() if s.constant_prediction is not None
        ]
        if collapsed:
            self.observer.warned(
                f"{name}, step {self.progress.step}: one answer for every row on {', '.join(collapsed)}. Early in training this may "
                f"pass; if it stays, lower stages.{name}.learning_rates.adapters or raise train.per_device_train_batch_size"
            )

    def _save(self, optimizer: torch.optim.Optimizer, meter: Meter) -> None:
        sums = meter.pack(self.accelerator)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self._advance(journal_bytes=self.journal.size())
            folder = self._checkpoints / f"{self.progress.stage}-{self.progress.step:06d}"
            tensors: dict[str, Mapping[str, torch.Tensor]] = {
                "model": self.changing,
                "optimizer": {**pack_optimizer(optimizer, self.names), **sums},
            }
            if self.best:
                tensors["best"] = self.best
            save_checkpoint(folder, self.progress, tensors)
            prune(self._checkpoints, self.recipe.train.save_total_limit)
        self.accelerator.wait_for_everyone()

    def restore(self, stage: str) -> None:
        """Put the best parameters of a finished stage back into the model, and its router to work."""
        self._load_parameters(self._checkpoints / f"best-{stage}.safetensors")
        self.model.router = self.recipe.stages[stage].router

    def _finish_stage(self, name: str, trainable: int) -> None:
        with torch.no_grad():
            for key, tensor in self.best.items():
                self.changing[key].copy_(tensor)
        if self.accelerator.is_main_process:
            save_atomically(self.best, self._checkpoints / f"best-{name}.safetensors")
        self.accelerator.wait_for_everyone()
        assert self.progress.best_average is not None
        result = StageResult(
            average=self.progress.best_average,
            seconds=round(self.progress.seconds, 2),
            trainable_parameters=trainable,
            steps=self.progress.step,
            best_step=self.progress.best_step,
            scores=self.progress.best_scores,
        )
        self._advance(finished=True, results={**self.progress.results, name: result})

    def _resume_stage(self, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, meter: Meter) -> None:
        assert self._resumed is not None
        packed = load_tensors(self._resumed / "optimizer.safetensors")
        unpack_optimizer(optimizer, packed, self.names)
        meter.unpack(packed, self.accelerator)
        schedule.load_state_dict({**schedule.state_dict(), "last_epoch": self.progress.schedule_steps})
        for group, rate in zip(optimizer.param_groups, _rates_at(schedule, self.progress.schedule_steps), strict=True):
            group["lr"] = rate
        if self.progress.best_average is not None:
            best = load_tensors(self._resumed / "best.safetensors")
            self.best = {name: tensor.to(self.model.device) for name, tensor in best.items()}

    def _load_parameters(self, path: Path) -> None:
        tensors = load_tensors(path)
        unfit = [name for name, p in self.changing.items() if name not in tensors or tensors[name].shape != p.shape]
        if unfit:
            raise CheckpointError(
                f"{path}: does not fit this model ({len(unfit)} parameters missing or of another shape, first {unfit[0]}); was "
                f"{self.recipe.model_name_or_path} changed since? Resume with the base that the run was started with"
            )
        with torch.no_grad():
            for name, parameter in self.changing.items():
                parameter.copy_(tensors[name])

    def _advance(self, **changes: object) -> None:
        self.progress = self.progress.model_copy(update=changes)


def better(average: float, *, than: float | None) -> bool:
    """Return whether a validation average beats the best one so far; any number beats none, and NaN beats nothing but none."""
    return than is None or average > than or (math.isnan(than) and not math.isnan(average))


def _rates_at(schedule: torch.optim.lr_scheduler.LambdaLR, step: int) -> list[float]:
    return [float(base) * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
