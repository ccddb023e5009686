"""The control of a base model: the same architecture and tokenizers, every weight random.

python benchmarks/random_base.py package:alter_mini --output-dir runs/random-base
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from alter.backbones._load import TARGET_TOKENIZER, load_base, load_target_tokenizer


def main() -> None:
    """Write a folder that any recipe takes as model_name_or_path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model, tokenizer = load_base(options.base)
    torch.manual_seed(options.seed)
    fresh = type(model)(model.config)
    fresh.generation_config = model.generation_config
    fresh.save_pretrained(options.output_dir)
    tokenizer.save_pretrained(options.output_dir)
    target = load_target_tokenizer(options.base)
    if target is not None:
        target.save_pretrained(options.output_dir / TARGET_TOKENIZER)


if __name__ == "__main__":
    main()
