"""AdapterFusion and MTL-LoRA of the library adapters beside a comparison: same rows, same base, same epochs; scored by our own metrics.

python benchmarks/adapters_peer/beside.py RECIPE [key=value ...] --compared FOLDER --python OTHER_PYTHON [--seed 0] [--arm NAME ...]

RECIPE and its settings as `alter compare` got them; FOLDER is its --output-dir. The rows go to a folder of their own as plain files, the
other environment's Python (requirements.txt) trains on them, and what it answers is scored here and put into FOLDER, where the next
`alter compare RECIPE --output-dir FOLDER --resume` shows it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alter.backbones._codec import codec_for
from alter.backbones._find import sites_of
from alter.backbones._load import load_base, resolve_base
from alter.comparing.changes import budget
from alter.comparing.matched import size_of_mta
from alter.evaluation import score_task, split_scores
from alter.nn.ffn import find_ffn
from alter.nn.site import projection_shape
from alter.recipe import Recipe, load_recipe
from alter.results import Results, SplitScores, StageResult, write_results
from alter.tasks.example import Example
from alter.tasks.spec import TaskSpec
from alter.training.prepare import Rows, check_tasks, encode_split, read_rows

ARMS = ("adapters-fusion", "adapters-mtl-lora")
PEER = Path(__file__).with_name("peer.py")
SPLITS = ("train", "validation", "test")
UP_PROJECTIONS = 3
"""MTL-LoRA's B matrices, as its paper has them."""


def export(recipe: Recipe, rows: Rows, folder: Path, *, arms: Sequence[str], fusion_rate: float | None) -> None:
    """Write job.json and the rows: text for readers, token ids and a label's number for the program."""
    base, tokenizer = load_base(recipe.model_name_or_path, revision=recipe.revision)
    codec = codec_for(base, tokenizer, recipe, name=recipe.model_name_or_path, revision=recipe.revision)
    if codec.kind != "encoder":
        raise SystemExit(f"{recipe.model_name_or_path} writes text, and these two arms are for encoders with heads")
    check_tasks(rows.specs, codec.kind)
    for split in SPLITS:
        encoded = encode_split(rows, split, codec=codec)
        for spec in rows.specs:
            path = folder / "rows" / split / f"{spec.name}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            pairs = zip(rows.splits[split][spec.name], encoded[spec.name], strict=True)
            lines = [
                {"text": row.text, "text_pair": row.text_pair, **one.inputs, "label": one.label_id, "target": one.target}
                for row, one in pairs
            ]
            path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    job = {**_settings(recipe, rows, base, fusion_rate), "arms": list(arms), "pad": tokenizer.pad_token_id}
    (folder / "job.json").write_text(json.dumps(job, indent=2) + "\n", encoding="utf-8")


def _settings(recipe: Recipe, rows: Rows, base: Any, fusion_rate: float | None) -> dict[str, Any]:
    """Return what the other program is told: the recipe's numbers, and sizes as near the MTA's as can be."""
    ffns = [find_ffn(base, site) for site in sites_of(base)]
    whole = size_of_mta(ffns, recipe)
    adapters = (recipe.mta.num_adapters or len(recipe.tasks)) + recipe.mta.num_shared
    width = base.config.hidden_size
    shapes = [projection_shape(projection) for ffn in ffns for projection in ffn.projections]
    stages = {
        name: {
            "epochs": stage.num_train_epochs,
            "max_steps": stage.max_steps,
            "evals_per_epoch": stage.evals_per_epoch,
            "rates": {"adapters": stage.learning_rates.adapters, "heads": stage.learning_rates.heads},
        }
        for name, stage in recipe.stages.items()
    }
    second = recipe.stages.get("stage2", recipe.stages["stage1"])
    together = budget(recipe)
    return {
        "base": resolve_base(recipe.model_name_or_path),
        "seed": recipe.seed,
        "heads": {"pooling": recipe.heads.pooling, "dropout": recipe.heads.dropout},
        "train": {
            "batch_size": recipe.train.per_device_train_batch_size * recipe.train.gradient_accumulation_steps,
            "weight_decay": recipe.train.weight_decay,
            "max_grad_norm": recipe.train.max_grad_norm,
            "warmup_ratio": recipe.stages["stage1"].warmup_ratio,
        },
        "stages": {**stages, "stage2": stages.get("stage2", stages["stage1"])},
        "both": {"epochs": together["num_train_epochs"], "max_steps": together["max_steps"]},
        "fusion_rate": fusion_rate or second.learning_rates.adapters,
        # A bottleneck after each block's FFN has 2 D w + w + D parameters; an adapter of the MTA has whole / adapters over all blocks.
        "width": max(1, round((whole / adapters / len(ffns) - width) / (2 * width + 1))),
        "mtl_rank": max(1, round(whole / sum(inputs + UP_PROJECTIONS * outputs for inputs, outputs in shapes))),
        "up_projections": UP_PROJECTIONS,
        "tasks": [
            {
                "name": spec.name,
                "outputs": 1 if spec.kind == "regression" else len(spec.labels or []),
                "metric": spec.primary_metric,
            }
            for spec in rows.specs
        ],
    }


def score(recipe: Recipe, rows: Rows, folder: Path, arm: str, place: Path) -> Results:
    """Score what the other program answered and write results.json and predictions as a run of alter has them."""
    told = json.loads((folder / "answers" / arm / "told.json").read_text(encoding="utf-8"))
    cost: dict[str, Any] = told["cost"]
    names = [name for name in ("stage1", "stage2") if name in cost]
    splits: dict[str, SplitScores] = {}
    stages = {}
    for stage in names:
        splits = {
            split: _scores(rows, split, folder / "answers" / arm / stage / split, place) for split in ("validation", "test")
        }
        stages[stage] = StageResult(
            average=splits["validation"].average,
            seconds=cost[stage]["seconds"],
            trainable_parameters=cost[stage]["trainable"],
            steps=cost[stage]["steps"],
            test=splits["test"] if splits["test"].tasks else None,
        )
    results = Results(
        recipe=f"{recipe.name}-{arm}",
        model=recipe.model_name_or_path,
        seed=recipe.seed,
        stages=stages,
        released=names[-1],
        splits={split: found for split, found in splits.items() if found.tasks},
        parameters={"total": cost["total"]},
        environment=told["versions"],
    )
    write_results(results, place / "results.json")
    return results


def _scores(rows: Rows, split: str, answers: Path, place: Path) -> SplitScores:
    """Score one split, and write its predictions; a later stage's take the place of an earlier one's."""
    scored = {}
    for spec in rows.specs:
        examples = rows.splits[split][spec.name]
        if not examples:
            continue
        given = [_meant(one, spec, rows) for one in json.loads((answers / f"{spec.name}.json").read_text(encoding="utf-8"))]
        scored[spec.name] = score_task(spec, given, [_right(example) for example in examples])
        lines = [
            {"input": example.text, "prediction": said, "target": _right(example)}
            for example, said in zip(examples, given, strict=True)
        ]
        path = place / "predictions" / split / f"{spec.name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return split_scores(scored, {spec.name: spec for spec in rows.specs})


def _meant(given: float, spec: TaskSpec, rows: Rows) -> str | float:
    """Return a label's name, or a number in its own units."""
    if spec.kind == "regression":
        scale = rows.scales[spec.name]
        return given * scale.std + scale.mean
    return (spec.labels or [])[int(given)]


def _right(example: Example) -> str | float:
    assert example.label is not None
    return example.label


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--compared", type=Path, required=True, help="the --output-dir of alter compare")
    parser.add_argument("--python", required=True, help="the Python of the other environment")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--arm", action="append", choices=ARMS)
    parser.add_argument("--fusion-rate", type=float, help="learning rate of fusion layers; by default that of stage 2's adapters")
    options = parser.parse_args()
    recipe = load_recipe(options.recipe, [*options.overrides, f"seed={options.seed}"])
    rows = read_rows(recipe)
    arms = options.arm or list(ARMS)
    for arm in arms:  # one by one: what is finished is kept where the next one is broken off
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            export(recipe, rows, folder, arms=[arm], fusion_rate=options.fusion_rate)
            subprocess.run([options.python, str(PEER), str(folder)], check=True)
            found = score(recipe, rows, folder, arm, options.compared / "arms" / arm / f"seed{options.seed}")
            print(arm, {split: round(scores.average, 2) for split, scores in found.splits.items()})


if __name__ == "__main__":
    main()
