"""What each process of `accelerate launch` runs in test_processes.py: `launched.py RECIPE OUTPUT_DIR [RECIPE OUTPUT_DIR ...]`."""

from __future__ import annotations

import sys

import torch

from alter.training.run import train

if __name__ == "__main__":
    torch.set_num_threads(1)
    arguments = sys.argv[1:]
    for recipe, output_dir in zip(arguments[::2], arguments[1::2], strict=True):
        train(recipe, output_dir=output_dir)
    torch.distributed.destroy_process_group()
