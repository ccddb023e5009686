"""What each of several processes runs in test_resume.py: `launched.py RECIPE OUTPUT_DIR`."""

from __future__ import annotations

import sys

import torch

from alter.pretraining.run import pretrain

if __name__ == "__main__":
    torch.set_num_threads(1)
    pretrain(sys.argv[1], output_dir=sys.argv[2])
    torch.distributed.destroy_process_group()
