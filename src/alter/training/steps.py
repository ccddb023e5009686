"""Which rows each optimizer step trains on: a pure function of the seed and the step, so any step can be found again.

One step's rows are cut into micro-batches and processes by stride, so every cut has rows of about the same length, and the mean over
a step's rows is the same for any number of processes and micro-batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from alter.data.encode import Features
from alter.recipe import MixtureSettings, StageSettings, TrainSettings
from alter.tasks.mixture import mixing_rates, plan_epoch


@dataclass(kw_only=True)
class StepPlan:
    """The rows of every step of one stage.

    Attributes:
        rows: task -> its training rows.
        mixture: how tasks are mixed.
        weights: task -> its own mixing weight.
        rows_per_step: rows of one optimizer step, over all processes and micro-batches.
        seed: of the stage.
    """

    rows: Mapping[str, Sequence[Features]]
    mixture: MixtureSettings
    weights: Mapping[str, float | None]
    rows_per_step: int
    seed: int
    _epochs: dict[int, list[list[tuple[str, int]]]] = field(default_factory=dict)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the mixture."""
        return len(self._epoch(0))

    def num_steps(self, stage: StageSettings) -> int:
        """Return the optimizer steps of a stage."""
        steps = math.ceil(stage.num_train_epochs * self.steps_per_epoch)
        return steps if stage.max_steps is None else min(steps, stage.max_steps)

    def step(self, number: int) -> list[Features]:
        """Return the rows of step `number`, counted from 0 over the whole stage."""
        epoch, position = divmod(number, self.steps_per_epoch)
        return [self.rows[task][row] for task, row in self._epoch(epoch)[position]]

    def _epoch(self, epoch: int) -> list[list[tuple[str, int]]]:
        if epoch not in self._epochs:
            sizes = {task: len(rows) for task, rows in self.rows.items()}
            self._epochs = {
                key: plan for key, plan in self._epochs.items() if key == 0
            }  # epoch 0 tells the length; keep one more
            self._epochs[epoch] = plan_epoch(
                sizes,
                mixing_rates(sizes, self.mixture, self.weights),
                {task: [row.length for row in rows] for task, rows in self.rows.items()},
                self.rows_per_step,
                self.seed,
                epoch,
                maximum=self.mixture.maximum,
            )
        return self._epochs[epoch]


def cut(rows: Sequence[Features], *, micro_batch: int, process: int, train: TrainSettings, num_processes: int) -> list[Features]:
    """Return one process's rows of one micro-batch; empty where a short last step has none left for it."""
    cuts = train.gradient_accumulation_steps * num_processes
    return list(rows[micro_batch * num_processes + process :: cuts])


def row_weights(mine: Sequence[Features], step: Sequence[Features], *, by: str) -> torch.Tensor:
    """Return how much each row's mean loss counts in the step's, (B,); they sum to 1 over all rows of the step.

    Args:
        mine: the rows at hand.
        step: all rows of the optimizer step, over all processes and micro-batches.
        by: `row` (all alike) or `token` (by the tokens that a row wants written; rows without any count as one).
    """
    if by == "row":
        return torch.full((len(mine),), 1 / len(step))
    total = sum(len(row.target_ids) or 1 for row in step)
    return torch.tensor([(len(row.target_ids) or 1) / total for row in mine])
