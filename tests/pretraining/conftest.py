"""A few kilobytes of text, and recipes small enough to pretrain in a second."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cli.command import Alter

NAMES = ["Ada", "Ben", "Cleo", "Dan", "Eve", "Finn"]
VERBS = ["sees", "likes", "calls", "finds", "helps"]
THINGS = ["the red house", "the old bridge", "a small garden", "two grey cats", "the long road"]

T5: dict[str, Any] = {
    "architecture": "t5",
    "config": {"d_model": 32, "d_kv": 8, "num_heads": 4, "d_ff": 64, "num_layers": 1, "num_decoder_layers": 1},
}
GPT2: dict[str, Any] = {"architecture": "gpt2", "config": {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64}}
LLAMA: dict[str, Any] = {
    "architecture": "llama",
    "config": {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "max_position_embeddings": 64,
    },
}  # fmt: skip


def prose(count: int, *, seed: int) -> str:
    """Return documents of a few sentences each, blank lines between."""
    chance = random.Random(seed)

    def sentence() -> str:
        return f"{chance.choice(NAMES)} {chance.choice(VERBS)} {chance.choice(THINGS)}."

    return "\n\n".join("\n".join(sentence() for _ in range(chance.randint(2, 6))) for _ in range(count)) + "\n"


def recipe_of(folder: Path, **settings: Any) -> Path:
    """Write text files and a recipe of a tiny T5 over them; `settings` replace whole keys, `train` is laid on top."""
    (folder / "train.txt").write_text(prose(200, seed=1), encoding="utf-8")
    (folder / "valid.txt").write_text(prose(20, seed=2), encoding="utf-8")
    train = {
        "per_device_train_batch_size": 4, "per_device_eval_batch_size": 4, "eval_batches": 2, "max_steps": 4, "eval_steps": 2,
        "save_steps": 1, "logging_steps": 3, "warmup_steps": 1, "learning_rate": 3e-3, **settings.pop("train", {}),
    }  # fmt: skip
    content = {
        "model": T5,
        "tokenizer": {"train": {"vocab_size": 320, "num_sentinels": 20}},
        "source": {"train": ["train.txt"], "validation": ["valid.txt"], "shuffle_buffer": 8},
        "max_length": 32,
        **settings,
        "train": train,
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}), encoding="utf-8")
    return path


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def alter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alter:
    return Alter(monkeypatch, capsys)
