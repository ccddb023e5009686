"""What each of two processes runs in test_processes.py: one run, in which the second process may not score: `RECIPE OUTPUT_DIR`.

Each process writes the seed that its stages began with to OUTPUT_DIR.<process>.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from alter.training.run import train
from alter.training.trainer import Trainer

real_step = Trainer._step
seeds: list[int] = []


def step(self: Trainer, *arguments: Any) -> torch.Tensor:
    """Note the seed, and forbid the second process to score."""
    seeds.append(torch.initial_seed())
    if not self.accelerator.is_main_process:
        self.validate = None  # type: ignore[assignment]
    return real_step(self, *arguments)


if __name__ == "__main__":
    torch.set_num_threads(1)
    Trainer._step = step  # type: ignore[method-assign]
    recipe, output_dir = sys.argv[1:]
    train(recipe, output_dir=output_dir)
    rank = torch.distributed.get_rank()
    Path(f"{output_dir}.{rank}").write_text(" ".join(str(seed) for seed in seeds))
    torch.distributed.destroy_process_group()
