"""Weights that are no numbers are told with their model and their tensor, before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.merging.models import save_part, save_stock, save_tiny

import alter
from alter.errors import CheckpointError, ConfigError

LORA = {"adapter": {"kind": "lora", "r": 2, "lora_alpha": 4.0}}
HUGE = {"scale": 1e308}


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "base")


def spoil(path: Path, part: str, value: float = float("nan")) -> str:
    """Set one number of the first tensor whose name holds `part`, and return the tensor's name."""
    found = load_file(path)
    name = next(name for name in sorted(found) if part in name)
    found[name].view(-1)[0] = value
    save_file(found, path)
    return name


def pair(base: Path, folder: Path, **settings: Any) -> list[Path]:
    return [save_part(folder / name, base, [f"task-{name}"], mta=LORA, seed=ord(name), **settings) for name in ("a", "b")]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("method", ["average", "ties", "metagpt"])
def test_in_a_plain_folder(tmp_path: Path, method: str, value: float) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        save_stock(tmp_path / "stock" / name, seed=seed)
    name = spoil(tmp_path / "stock" / "two" / "model.safetensors", "intermediate.dense.weight", value)
    models = [tmp_path / "stock" / "one", tmp_path / "stock" / "two"]
    with pytest.raises(CheckpointError, match=rf"two: '{name}' holds numbers that are not finite.*leave this model out"):
        alter.merge(models, method=method, base=tmp_path / "stock" / "base", output_dir=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["stock"]


def test_in_the_base_of_plain_folders(tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "one", "two")):
        save_stock(tmp_path / name, seed=seed)
    name = spoil(tmp_path / "base" / "model.safetensors", "intermediate.dense.weight")
    with pytest.raises(CheckpointError, match=rf"base: '{name}' holds numbers that are not finite"):
        alter.merge([tmp_path / "one", tmp_path / "two"], method="ties", base=tmp_path / "base", output_dir=tmp_path / "out")


@pytest.mark.parametrize("method", ["average", "ties", "metagpt"])
def test_in_a_backbone_that_was_trained(base: Path, tmp_path: Path, method: str) -> None:
    one, two = pair(base, tmp_path, preset="alter")
    name = spoil(two / "backbone.safetensors", "intermediate.dense.weight")
    with pytest.raises(CheckpointError, match=rf"b: '{name}' holds numbers that are not finite"):
        alter.merge([one, two], method=method, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "part"),
    [("gates.safetensors", "gate"), ("heads.safetensors", "weight"), ("adapters/task-b/adapter_model.safetensors", "lora_A")],
)
@pytest.mark.parametrize("how", [{}, {"adapters": "merge", "method": "average"}])
def test_in_what_tasks_keep_or_merge(base: Path, tmp_path: Path, file: str, part: str, how: dict[str, Any]) -> None:
    one, two = pair(base, tmp_path, router="gate")
    spoil(two / file, part)
    with pytest.raises(CheckpointError, match=r"b: '.*' holds numbers that are not finite.*leave this model out"):
        alter.merge([one, two], **how, output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_only_the_method_made_endless_is_told_as_such(base: Path, tmp_path: Path) -> None:
    lite, full = pair(base, tmp_path / "lite"), pair(base, tmp_path / "full", preset="alter")
    for seed, name in enumerate(("base", "one", "two")):
        save_stock(tmp_path / "stock" / name, seed=seed)
    says = (
        r"the merged '.*' holds numbers that are not finite in float.*, though those of the models are; lower the method's scale"
    )
    told: dict[str, Any] = {"method": "task_arithmetic", "settings": HUGE, "output_dir": tmp_path / "out"}
    with pytest.raises(ConfigError, match=says):
        alter.merge(full, **told)
    with pytest.raises(ConfigError, match=says):
        alter.merge(lite, adapters="merge", **told)
    with pytest.raises(ConfigError, match=says):
        alter.merge([tmp_path / "stock" / "one", tmp_path / "stock" / "two"], base=tmp_path / "stock" / "base", **told)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("method", ["fisher", "regmean"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_in_statistics(tmp_path: Path, method: str, value: float) -> None:
    name = "encoder.layer.0.attention.self.query.weight"
    for model, number in (("one", 1.0), ("two", value)):
        save_stock(tmp_path / model, seed=1)
        save_file({name: torch.eye(32) * number}, tmp_path / f"{model}.safetensors")
    files = [tmp_path / f"{model}.safetensors" for model in ("one", "two")]
    if method == "fisher":
        for file in files:
            others = load_file(tmp_path / "one" / "model.safetensors")
            save_file({**{key: torch.ones_like(tensor) for key, tensor in others.items()}, **load_file(file)}, file)
    models = [tmp_path / "one", tmp_path / "two"]
    with pytest.raises(
        CheckpointError, match=rf"two.safetensors: '{name}' holds numbers that are not finite.*; compute them again"
    ):
        alter.merge(models, method=method, statistics=files, output_dir=tmp_path / "out")
    with pytest.raises(CheckpointError, match=rf"statistics 2: '{name}' holds numbers that are not finite"):
        alter.merge(models, method=method, statistics=[load_file(file) for file in files], output_dir=tmp_path / "out")
