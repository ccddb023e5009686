"""Mean losses between two lines of the journal, by task and over all processes.

Shapes: B rows, T tasks, P penalties.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator


class Meter:
    """Sums losses by task on the device, so that reading them is the only moment the device is waited for."""

    def __init__(self, task_names: Sequence[str], device: torch.device, *, penalties: Sequence[str] = ()) -> None:
        self.task_names = list(task_names)
        self.sums_T = torch.zeros(len(self.task_names), device=device)
        self.counts_T = torch.zeros(len(self.task_names), device=device)
        self.penalty_names = list(penalties)
        self.penalties: dict[str, float] = {}
        self._penalties_P1 = torch.zeros(len(self.penalty_names) + 1, device=device)  # the last: how often they were added
        self.rows = 0
        self.latest: tuple[float, dict[str, float]] = (0.0, {})
        self.since = time.monotonic()
        self.paused_at = self.since

    def add(self, losses_B: torch.Tensor, task_ids_B: torch.Tensor, *, counted: bool) -> None:
        """Add a micro-batch's losses."""
        if counted:
            self.sums_T.index_add_(0, task_ids_B, losses_B)
            self.counts_T.index_add_(0, task_ids_B, torch.ones_like(losses_B))
            self.rows += int(losses_B.shape[0])

    def add_penalties(self, values_P: torch.Tensor) -> None:
        """Add the penalties of a step, as one pass found them."""
        self._penalties_P1 += torch.cat([values_P, values_P.new_ones(1)])

    def peek(self, accelerator: Accelerator) -> tuple[float, dict[str, float]]:
        """Return the mean loss and each task's mean loss over all processes since the last `read`, or what that found if none came."""
        sums_T, counts_T = accelerator.reduce(self.sums_T.clone(), "sum"), accelerator.reduce(self.counts_T.clone(), "sum")
        losses = {
            task: total / count
            for task, total, count in zip(self.task_names, sums_T.tolist(), counts_T.tolist(), strict=True)
            if count
        }
        return (float(sums_T.sum() / counts_T.sum()), losses) if losses else self.latest

    def read(self, accelerator: Accelerator) -> tuple[float, dict[str, float], float]:
        """Return what `peek` does and the rows per second of this process, and start again; `penalties` are then their means."""
        loss, losses = self.latest = self.peek(accelerator)
        if self.penalty_names:
            *sums, number = accelerator.reduce(self._penalties_P1, "sum").tolist()
            self.penalties = {name: total / number for name, total in zip(self.penalty_names, sums, strict=True)}
            self._penalties_P1.zero_()
        now = time.monotonic()
        rate = self.rows / max(1e-9, now - self.since)
        self.sums_T.zero_()
        self.counts_T.zero_()
        self.rows, self.since = 0, now
        return loss, losses, rate

    def pack(self, accelerator: Accelerator) -> dict[str, torch.Tensor]:
        """Return what is summed since the last `read`, over all processes, for a checkpoint."""
        packed = {
            "meter.sums": accelerator.reduce(self.sums_T.clone(), "sum"),
            "meter.counts": accelerator.reduce(self.counts_T.clone(), "sum"),
        }
        if self.penalty_names:
            packed["meter.penalties"] = accelerator.reduce(self._penalties_P1.clone(), "sum")
        return packed

    def unpack(self, packed: Mapping[str, torch.Tensor], accelerator: Accelerator) -> None:
        """Go on from what `pack` returned: the next line of the journal is then that of a run that never stopped."""
        if accelerator.is_main_process:  # the sums are those of all processes, so one of them goes on from them
            self.sums_T.copy_(packed["meter.sums"])
            self.counts_T.copy_(packed["meter.counts"])
            if self.penalty_names:
                self._penalties_P1.copy_(packed["meter.penalties"])

    def pause(self) -> None:
        """Stop the clock while something else than training goes on."""
        self.paused_at = time.monotonic()

    def go_on(self) -> None:
        """Let the clock run again."""
        self.since += time.monotonic() - self.paused_at
