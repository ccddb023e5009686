"""A small complete recipe folder: a tiny base model, rows of easy tasks, recipe.yaml.

Every toy task can be learned from one word: `mood` (two labels), `topic` (three), `stars` (a number), `reply` (a pair of texts,
the word stands in the second). Rows are drawn by a seed, so a folder is the same on every machine.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from tests.tiny import save_tiny, save_tiny_lm

from alter.config import merge
from alter.recipe import Recipe, load_recipe
from alter.training.observer import Silent
from alter.training.run import Run, train

Row = dict[str, Any]

FILLER_WORDS = "the a to of in on for with from this that it you we they please thanks help now start stop open close"
FILLERS = FILLER_WORDS.split()
KEYS: dict[str, dict[str, list[str]]] = {
    "mood": {"pleased": ["good", "great", "love", "happy"], "upset": ["bad", "poor", "hate", "angry"]},
    "topic": {"money": ["bill", "card", "bank", "refund"], "access": ["login", "account"], "parcel": ["order", "late"]},
    "reply": {"agrees": ["yes", "right"], "denies": ["no", "not"]},
}
STARS = {"one": 1.0, "two": 2.0, "three": 3.0}
TASKS = ("mood", "topic", "stars", "reply")
SPLIT_SIZES = {"train": 24, "validation": 12, "test": 12}


def sentence(generator: random.Random, key: str, *, length: int = 4) -> str:
    """Return `length` filler words with `key` somewhere among them."""
    words = [generator.choice(FILLERS) for _ in range(length)]
    words.insert(generator.randrange(length + 1), key)
    return " ".join(words)


def toy_rows(task: str, number: int, *, seed: str, longest: int = 8) -> list[Row]:
    """Return rows of a toy task, all labels equally often, with 2 to `longest` filler words."""
    generator = random.Random(f"{seed}:{task}")
    rows: list[Row] = []
    for position in range(number):
        length = generator.randrange(2, longest + 1)
        if task == "stars":
            key, label = list(STARS.items())[position % len(STARS)]
            rows.append({"text": sentence(generator, key, length=length), "label": label})
            continue
        labels = sorted(KEYS[task])
        named = labels[position % len(labels)]
        said = sentence(generator, generator.choice(KEYS[task][named]), length=length)
        if task == "reply":
            rows.append({"text": sentence(generator, "open"), "text_pair": said, "label": named})
        else:
            rows.append({"text": said, "label": named})
    return rows


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(
    folder: Path,
    *,
    tasks: Sequence[str] = TASKS,
    family: str = "bert",
    sizes: Mapping[str, int] | None = None,
    longest: int = 8,
    dropout: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a base, rows and recipe.yaml into `folder` and return the recipe's path.

    Args:
        folder: is made if it is not there.
        tasks: which toy tasks.
        family: the base's family.
        sizes: rows per task and split, where they are not `SPLIT_SIZES`.
        longest: filler words of the longest rows; short rows are easier.
        dropout: the base's own dropout.
        settings: laid over the recipe, e.g. `{"preset": "alter", "train": {"save_steps": 1}}`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tiny(folder / "base", family, dropout=dropout)
    blocks: list[dict[str, Any]] = []
    for task in tasks:
        source = {}
        for split, number in {**SPLIT_SIZES, **(sizes or {})}.items():
            source[split] = write_jsonl(
                folder / f"{task}-{split}.jsonl", toy_rows(task, number, seed=split, longest=longest)
            ).name
        blocks.append({"name": task, "kind": "regression" if task == "stars" else "classification", "source": source})
    recipe = {
        "name": "toy",
        "model_name_or_path": str(folder / "base"),
        "max_length": 32,
        "mta": {"adapter": {"r": 4}},
        "train": {"per_device_train_batch_size": 8, "logging_steps": 1},
        "stages": {"stage1": {"max_steps": 3}, "stage2": {"max_steps": 2}},
        "tasks": blocks,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(merge(recipe, settings or {}), sort_keys=False), encoding="utf-8")
    return path


def toy(folder: Path, **arguments: Any) -> Recipe:
    """Return the recipe that `write_recipe` writes."""
    return load_recipe(write_recipe(folder, **arguments))


def changed(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return `recipe` with `settings` laid over it, checked again."""
    return Recipe.model_validate(merge(recipe.model_dump(), settings))


def journal(run: Run | Path) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl, without the one number that a clock decides."""
    folder = run if isinstance(run, Path) else run.folder
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in line.items() if key != "rows_per_second"} for line in lines]


def steps(run: Run | Path) -> list[dict[str, Any]]:
    """Return the journal's step lines."""
    return [line for line in journal(run) if line["event"] == "step"]


def weights(run: Run | Path) -> dict[str, bytes]:
    """Return every safetensors file of the released model: path -> bytes."""
    folder = (run if isinstance(run, Path) else run.folder) / "model"
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))}


class StopError(Exception):
    """What `StopAt` raises."""


class StopAt(Silent):
    """An observer that breaks a run off after its n-th optimizer step, counted over both stages."""

    def __init__(self, number: int) -> None:
        self.left = number

    def stepped(self, stage: str, step: int) -> None:
        """Count, and break off."""
        self.left -= 1
        if self.left < 0:
            raise StopError(f"{stage}, step {step}")


def train_in_child(recipe: Recipe, folder: Path, started: Any) -> None:
    """Train with one thread and resume what is there: the body of a process that a test kills."""
    import torch

    torch.set_num_threads(1)

    class Tell(Silent):
        def stage_started(self, stage: str, *, num_steps: int, first_step: int, trainable: int) -> None:
            started.set()

    train(recipe, output_dir=folder, resume=(folder / "recipe.yaml").exists(), observer=Tell())


TEXT_TASKS = ("mood", "stars", "echo")
"""Toy tasks for models that write: `echo` writes the one word of its row that is no filler."""


def echo_rows(number: int, *, seed: str, longest: int = 4) -> list[Row]:
    """Return rows of `echo`; every third row says that another word counts as right as well."""
    generator = random.Random(f"{seed}:echo")
    words = sorted(word for labels in KEYS.values() for keys in labels.values() for word in keys)
    rows: list[Row] = []
    for position in range(number):
        word = generator.choice(words)
        row: Row = {"text": sentence(generator, word, length=generator.randrange(1, longest + 1)), "target": word}
        rows.append({**row, "references": [word, f"the {word}"]} if position % 3 == 0 else row)
    return rows


def write_text_recipe(
    folder: Path,
    name: str = "t5",
    *,
    tasks: Sequence[str] = TEXT_TASKS,
    dropout: float = 0.0,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a base that writes text, rows and recipe.yaml into `folder` and return the recipe's path.

    Args:
        folder: is made if it is not there.
        name: the base's variant in `tests.tiny.GENERATIVE`.
        tasks: `echo` and toy tasks.
        dropout: the base's own dropout.
        settings: laid over the recipe.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_tiny_lm(folder / "base", name, dropout=dropout)
    blocks: list[dict[str, Any]] = []
    for task in tasks:
        source = {}
        for split, number in SPLIT_SIZES.items():
            rows = echo_rows(number, seed=split) if task == "echo" else toy_rows(task, number, seed=split, longest=4)
            source[split] = write_jsonl(folder / f"{task}-{split}.jsonl", rows).name
        kind = {"echo": "generation", "stars": "regression"}.get(task, "classification")
        blocks.append({"name": task, "kind": kind, "source": source})
    recipe = {
        "name": "texts",
        "model_name_or_path": str(folder / "base"),
        "max_length": 16,
        "max_target_length": 6,
        "prompt_separator": " :",
        "mta": {"adapter": {"r": 4}},
        "train": {"per_device_train_batch_size": 8, "logging_steps": 1},
        "stages": {
            "stage1": {"max_steps": 3, "learning_rates": {"adapters": 0.03}, "evals_per_epoch": 1},
            "stage2": {"max_steps": 2},
        },
        "tasks": blocks,
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(merge(recipe, settings or {}), sort_keys=False), encoding="utf-8")
    return path


def toy_texts(folder: Path, name: str = "t5", **arguments: Any) -> Recipe:
    """Return the recipe that `write_text_recipe` writes."""
    return load_recipe(write_text_recipe(folder, name, **arguments))
