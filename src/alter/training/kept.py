"""What a run keeps from step to step: where it is, the best parameters so far, the journal; and checkpoints to go on from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import nn

from alter.errors import CheckpointError
from alter.recipe import Recipe
from alter.results import SplitScores, StageResult
from alter.tensors import load_tensors, save_atomically
from alter.training.journal import Journal
from alter.training.meter import Meter
from alter.training.parameters import copies, load_parameters, put_back
from alter.training.state import (
    Progress,
    check_processes,
    checkpoints_in,
    load_progress,
    pack_optimizer,
    prune,
    save_checkpoint,
    unpack_optimizer,
)


class Kept:
    """Where a run is and what it has reached, in memory and in its folder; every process has one, the main process writes.

    Args:
        changing: name -> each parameter that a stage of the run may change.
        progress: where the run begins.
        recipe: the run's recipe.
        accelerator: tells the processes apart.
        folder: the run directory, for checkpoints and metrics.jsonl.
        resume: go on from the newest checkpoint in `folder`.

    Raises:
        CheckpointError: the checkpoint is damaged, or of other processes, training rows or another base than this run has.
    """

    def __init__(
        self,
        changing: Mapping[str, nn.Parameter],
        *,
        progress: Progress,
        recipe: Recipe,
        accelerator: Accelerator,
        folder: Path,
        resume: bool,
    ) -> None:
        self.changing = changing
        self.names = {id(parameter): name for name, parameter in changing.items()}
        self.progress = progress
        self.recipe = recipe
        self.accelerator = accelerator
        self.checkpoints = folder / "checkpoints"
        self.best: dict[str, torch.Tensor] = {}
        self.latest_scores: SplitScores | None = None  # of the last validation in this process
        self.resumed: Path | None = None  # the checkpoint that the stage in progress goes on from, if any
        newest = checkpoints_in(self.checkpoints)[-1:] if resume else []
        if newest:
            self.resumed = newest[0]
            saved = load_progress(newest[0])
            self._check_origin(saved, newest[0])
            self.progress = saved.model_copy(update=self.progress.model_dump(include={"rows_digest", "base_fingerprint"}))
            self._load(newest[0] / "model.safetensors")
        if self.accelerator.is_main_process:
            self.journal = Journal(folder / "metrics.jsonl", size=self.progress.journal_bytes)

    def _check_origin(self, saved: Progress, folder: Path) -> None:
        """Refuse a checkpoint of other processes, training rows or base than this run has."""
        check_processes(saved, self.progress, folder)
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

    def _load(self, path: Path) -> None:
        load_parameters(
            path,
            self.changing,
            advice=f"was {self.recipe.model_name_or_path} changed since? Resume with the base that the run was started with",
        )

    def advance(self, **changes: object) -> None:
        """Note where the run is now: fields of `Progress`."""
        self.progress = self.progress.model_copy(update=changes)

    def write(self, line: Mapping[str, object]) -> None:
        """Append a line to metrics.jsonl."""
        if self.accelerator.is_main_process:
            self.journal.write(line)

    def start_stage(self, name: str) -> None:
        """Begin a stage, unless it is the one in progress."""
        if name != self.progress.stage:
            same = self.progress.model_dump(include={"num_processes", "rows_digest", "base_fingerprint"})
            self.progress = Progress(stage=name, step=0, results=self.progress.results, **same)
            self.resumed, self.best, self.latest_scores = None, {}, None

    def resume_stage(self, optimizer: torch.optim.Optimizer, schedule: torch.optim.lr_scheduler.LambdaLR, meter: Meter) -> None:
        """Put back what `save` wrote beside the parameters, so that the stage goes on as if it had never stopped."""
        assert self.resumed is not None
        packed = load_tensors(self.resumed / "optimizer.safetensors")
        unpack_optimizer(optimizer, packed, self.names)
        meter.unpack(packed, self.accelerator)
        schedule.load_state_dict({**schedule.state_dict(), "last_epoch": self.progress.schedule_steps})
        for group, rate in zip(optimizer.param_groups, _rates_at(schedule, self.progress.schedule_steps), strict=True):
            group["lr"] = rate
        if self.progress.best_average is not None:
            best = load_tensors(self.resumed / "best.safetensors")
            self.best = {name: tensor.to(self.changing[name].device) for name, tensor in best.items()}

    def keep_best(self) -> None:
        """Copy the parameters as they are: the best of the stage so far."""
        self.best = copies(self.changing)

    def save(self, optimizer: torch.optim.Optimizer, meter: Meter) -> None:
        """Write a checkpoint, and delete the oldest ones.

        Raises:
            TrainingError: the disk is full.
        """
        sums = meter.pack(self.accelerator)
        self.accelerator.wait_for_everyone()
        if self.accelerator.is_main_process:
            self.advance(journal_bytes=self.journal.size())
            folder = self.checkpoints / f"{self.progress.stage}-{self.progress.step:06d}"
            tensors: dict[str, Mapping[str, torch.Tensor]] = {
                "model": self.changing,
                "optimizer": {**pack_optimizer(optimizer, self.names), **sums},
            }
            if self.best:
                tensors["best"] = self.best
            save_checkpoint(folder, self.progress, tensors)
            prune(self.checkpoints, self.recipe.train.save_total_limit)
        self.accelerator.wait_for_everyone()

    def finish_stage(self, trainable: int, *, peak: int | None) -> None:
        """Put the best parameters back, write them to a file of their own, and note what the stage reached."""
        name = self.progress.stage
        put_back(self.best, self.changing)
        if self.accelerator.is_main_process:
            save_atomically(self.best, self._best_of(name))
        self.accelerator.wait_for_everyone()
        assert self.progress.best_average is not None
        result = StageResult(
            average=self.progress.best_average,
            seconds=round(self.progress.seconds, 2),
            trainable_parameters=trainable,
            steps=self.progress.step,
            best_step=self.progress.best_step,
            scores=self.progress.best_scores,
            peak_memory_bytes=peak,
        )
        self.advance(finished=True, results={**self.progress.results, name: result})

    def restore(self, stage: str) -> None:
        """Put the best parameters of a finished stage back."""
        self._load(self._best_of(stage))

    def _best_of(self, stage: str) -> Path:
        return self.checkpoints / f"best-{stage}.safetensors"


def _rates_at(schedule: torch.optim.lr_scheduler.LambdaLR, step: int) -> list[float]:
    return [float(base) * factor(step) for base, factor in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
