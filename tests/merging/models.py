"""Model directories and plain model folders to merge: tiny, of one base, every part of them changed as training would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tests.nn.equipped import IDS_BS, MASK_BS, randomise
from tests.tiny import save_tiny, tiny_model, tiny_tokenizer

from alter import __version__
from alter.backbones._load import base_fingerprint, load_base
from alter.checkpoint import load_model, save_model
from alter.model import MTAModel, equip
from alter.model_config import AlterConfig, BaseInfo
from alter.recipe import Trained
from alter.tasks.spec import TaskSpec

LABELS = ["yes", "no", "maybe"]


def save_part(
    folder: Path,
    base: Path,
    tasks: Sequence[str],
    *,
    preset: Any = "alter-lite",
    mta: dict[str, Any] | None = None,
    router: Any = "gate",
    heads: dict[str, Any] | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """Write a model directory: tasks `score...` are regressions, `text...` generations, the others have two or three labels."""
    stock, _ = load_base(str(base))
    fingerprint = base_fingerprint(stock)
    specs = [spec_of(task, position) for position, task in enumerate(tasks)]
    outputs = {spec.name: len(spec.labels or [0]) for spec in specs}
    torch.manual_seed(seed)
    model = equip(stock, tasks=outputs, preset=preset, mta=mta, heads=heads).eval()
    model.router = router
    changed: list[Trained] = ["task_adapters", "shared_adapters", "selector", "gate", "heads"]
    randomise(model, *changed, seed=seed, scale=0.1)
    if preset == "alter":
        randomise(model, "backbone", seed=seed, scale=0.01)
    info = BaseInfo(name=str(base), model_type=str(stock.config.model_type), fingerprint=fingerprint, trained=preset == "alter")
    told = {
        "alter_version": __version__,
        "name": folder.name,
        "base": info,
        "preset": preset,
        "router": router,
        "max_length": 32,
        "mta": model.settings,
        "heads": model.head_settings,
        "tasks": specs,
        "scales": {spec.name: (2.0 + seed, 0.5) for spec in specs if spec.kind == "regression"},
    }
    save_model(model, AlterConfig.model_validate({**told, **config}), folder, card="# a card\n")
    return folder


def spec_of(task: str, position: int) -> TaskSpec:
    if task.startswith("score"):
        return TaskSpec(name=task, kind="regression")
    if task.startswith("text"):
        return TaskSpec(name=task, kind="generation")
    return TaskSpec(name=task, labels=LABELS[: 2 + position % 2])


def outputs(model: MTAModel, task: str) -> torch.Tensor:
    """Return what a model gives the rows of one task: its own outputs alone, (B, C), or logits of what it writes."""
    rows_B = model.task_ids([task] * len(IDS_BS))
    texts = {} if model.kind == "encoder" else {"labels": IDS_BS[:, :4] if model.kind == "encoder-decoder" else IDS_BS}
    with torch.no_grad():
        found: torch.Tensor = model(IDS_BS, MASK_BS, task_ids=rows_B, **texts).logits
    return found[:, found[0].isfinite()] if model.kind == "encoder" else found


def assert_same_answers(merged: Path, parts: Sequence[Path], *, atol: float = 1e-6) -> None:
    """Check that a merged model gives every task what the task's own model gives it, also in one batch of all tasks."""
    whole = load_model(merged).model
    names = []
    for part in parts:
        own = load_model(part).model
        for task in own.task_names:
            names.append(task)
            torch.testing.assert_close(outputs(whole, task), outputs(own, task), atol=atol, rtol=1e-5)
    assert whole.task_names == names


def save_stock(folder: Path, *, seed: int | None = None, scale: float = 0.02, dtype: torch.dtype = torch.float32) -> Path:
    """Write a plain model folder: the tiny BERT, changed at random where a seed is given."""
    model = tiny_model("bert")
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    model.to(dtype).save_pretrained(folder)
    tiny_tokenizer("bert").save_pretrained(folder)
    return folder


def change_config(folder: Path, file: str = "config.json", **keys: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


__all__ = ["IDS_BS", "MASK_BS", "assert_same_answers", "change_config", "outputs", "save_part", "save_stock", "save_tiny"]
