"""Majority class and TF-IDF with logistic regression on a recipe's own rows (same caps, same seed), scored on test rows.

python benchmarks/yardsticks.py recipes/social.yaml --seed 0 --output runs/domains/social-yardsticks-seed0.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from alter.demo.run import yardsticks
from alter.recipe import load_recipe


def main() -> None:
    """Write yardstick -> split -> scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    found = yardsticks(load_recipe(options.recipe, [f"seed={options.seed}"]))
    content = {name: {split: scores.model_dump() for split, scores in splits.items()} for name, splits in found.items()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
