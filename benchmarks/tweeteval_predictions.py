"""Write a social run's test predictions as TweetEval's own script reads them: one label id a line, stance one file per target.

    python benchmarks/tweeteval_predictions.py runs/social --output-dir runs/social/tweeteval
    python evaluation_script.py --tweeteval_path ./datasets/ --predictions_path runs/social/tweeteval/     # in the benchmark's repository

Files: emotion.txt, hate.txt, irony.txt, offensive.txt, sentiment.txt, stance/<target>.txt, in the order of the benchmark's rows. The
test rows of emoji are held back here, so there is no emoji.txt and no global TweetEval score.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alter.recipe import load_recipe
from alter.score import evaluate_model
from alter.tasks.source import read_rows

TARGETS = {
    "legalization of abortion": "abortion",
    "atheism": "atheism",
    "climate change is a real concern": "climate",
    "climate change": "climate",
    "feminist movement": "feminist",
    "feminism": "feminist",
    "hillary clinton": "hillary",
}


def main() -> None:
    """Write the files and say how many lines each holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--output-dir", type=Path, required=True)
    options = parser.parse_args()
    scores = evaluate_model(options.run, split="test", predictions_dir=options.output_dir, predictions_format="ids")
    for task, score in scores.tasks.items():
        print(f"{task}: {score.metric} {score.score:.1f}, {score.num_examples} lines")
    split_stance(options.run, options.output_dir)


def split_stance(run: Path, folder: Path) -> None:
    """Turn stance.txt into one file per target."""
    recipe = load_recipe(run / "recipe.yaml")
    [source] = [task.source for task in recipe.tasks if task.name == "stance"]
    assert source is not None
    topics = [TARGETS[str(row.values["topic"]).lower()] for row in read_rows(str(source.test))]
    ids = (folder / "stance.txt").read_text(encoding="utf-8").split()
    (folder / "stance").mkdir(exist_ok=True)
    for target in sorted(set(topics)):
        chosen = [label for topic, label in zip(topics, ids, strict=True) if topic == target]
        (folder / "stance" / f"{target}.txt").write_text("\n".join(chosen) + "\n", encoding="utf-8")
        print(f"stance/{target}: {len(chosen)} lines")
    (folder / "stance.txt").unlink()


if __name__ == "__main__":
    main()
