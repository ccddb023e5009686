"""LoRAs in peft's layout, put into a base model side by side: what X-LoRA and Arrow weigh."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alter.errors import CheckpointError
from alter.peers.modules import named_tensors, put_in
from alter.peers.settings import need_peft
from alter.tensors import load_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_loras(backbone: PreTrainedModel, folders: Mapping[str, Path]) -> dict[str, Any]:
    """Put LoRAs into a base model, which changes nothing but its modules, and return peft's config of each.

    Args:
        backbone: the base model.
        folders: name -> folder with adapter_config.json and adapter_model.safetensors.

    Raises:
        ConfigError: peft is not installed.
        CheckpointError: a folder is no LoRA in peft's layout, or one of another base.
    """
    configs = {}
    for position, (name, folder) in enumerate(folders.items()):
        configs[name] = _config_in(folder)
        put_in(backbone, configs[name], inner(position))
        _fill(named_tensors(backbone, inner(position)), folder / "adapter_model.safetensors")
    return configs


def inner(position: int) -> str:
    """Return what peft calls a LoRA inside the model: a module's name, which a task's need not be."""
    return f"expert_{position}"


def _config_in(folder: Path) -> Any:
    path = folder / "adapter_config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); give the folder of a LoRA in peft's layout") from None
    if not isinstance(content, dict) or content.get("peft_type") != "LORA":
        raise CheckpointError(
            f"{path}: no LoRA of peft; give the folder of one, e.g. adapters/<task>/ of a model directory of kind lora"
        )
    return need_peft("reading a LoRA").LoraConfig.from_pretrained(str(folder))


def _fill(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    found = load_tensors(path)
    wrong = sorted(tensors.keys() ^ found.keys()) or [name for name, one in tensors.items() if one.shape != found[name].shape]
    if wrong:
        raise CheckpointError(
            f"{path}: does not fit this base model and its adapter_config.json ({len(wrong)} tensors, first {wrong[0]}); name LoRAs that "
            f"were trained on this base"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(found[name])
