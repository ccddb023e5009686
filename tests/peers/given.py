"""Tiny models with a method of peft in them, encoders and models that write, and LoRAs on disk for those that weigh some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tests.generative.lm import NAMES as LM_NAMES
from tests.generative.lm import base_lm, dtype_of, logits, rows_for
from tests.nn.equipped import NAMES, base_model, hidden, randomise
from tests.tiny import TINY
from transformers import PreTrainedModel

from alter.config import parse
from alter.model import MTAModel
from alter.mta_settings import MTASettings
from alter.nn.routing import RoutingState
from alter.peers.injected import inject, write_config
from alter.tensors import save_tensors

PLAIN: dict[str, Any] = {"sites": "none", "num_shared": 0, "selector": {"kind": "one_hot"}, "gate": {"kind": "one_hot"}}
METHODS: dict[str, dict[str, Any]] = {
    "lora": {"peft_type": "LORA", "r": 4, "lora_alpha": 6},
    "dora": {"peft_type": "LORA", "r": 4, "use_dora": True},
    "poly": {"peft_type": "POLY", "r": 4, "n_skills": 3},
    "mhr": {"peft_type": "POLY", "r": 4, "n_skills": 3, "n_splits": 2},
    "loha": {"peft_type": "LOHA", "r": 4},
    "lokr": {"peft_type": "LOKR", "r": 4},
    "hra": {"peft_type": "HRA", "r": 4},
    "oft": {"peft_type": "OFT", "oft_block_size": 4},
}
POLYS = ("poly", "mhr")


def is_encoder(name: str) -> bool:
    return name in TINY


def base(name: str, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Return a fresh tiny base model, in the type in which it is tried."""
    return base_model(name, dtype=dtype or torch.float64) if is_encoder(name) else base_lm(name, dtype=dtype)


def borrowed(
    name: str, block: Mapping[str, Any], *, tasks: Sequence[str] | None = None, dtype: torch.dtype | None = None
) -> MTAModel:
    """Return a tiny model with a method of peft at its start, in evaluation mode, without heads."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MTAModel(
            base(name, dtype=dtype),
            task_names=list(tasks or (NAMES if is_encoder(name) else LM_NAMES)),
            settings=parse(MTASettings, PLAIN, where="test"),
            peft=block,
        )
    return model.to(dtype or (torch.float64 if is_encoder(name) else dtype_of(name))).eval()


def changed(name: str, block: Mapping[str, Any], **more: Any) -> MTAModel:
    """Return such a model whose parameters of the method all changed, as after training."""
    return randomise(borrowed(name, block, **more), "task_adapters", "selector", "gate", scale=0.2)


def outputs(model: MTAModel) -> torch.Tensor:
    """Return what a model makes of the batch of mixed tasks: an encoder's states, the logits of one that writes."""
    return hidden(model) if model.kind == "encoder" else logits(model)


def write_loras(folder: Path, name: str, *, number: int = 3, r: int = 4, alpha: float = 6) -> dict[str, str]:
    """Write LoRAs of a tiny base, as different as trained ones, in peft's layout; return name -> folder."""
    found = {}
    for position in range(number):
        model = base(name, dtype=torch.float32)
        family = borrowed(name, METHODS["lora"], dtype=torch.float32)  # only to learn where FFNs are
        assert family.injected is not None
        paths = sorted(family.injected.config.target_modules)
        torch.manual_seed(position)
        block = {"peft_type": "LORA", "r": r, "lora_alpha": alpha, "target_modules": paths}
        lora = inject(model, block, paths=paths, num_tasks=1, state=RoutingState())
        [(config, tensors)] = lora.folders(model).values()
        with torch.no_grad():
            for tensor in tensors.values():
                tensor.copy_(torch.randn(tensor.shape) * 0.3)
        place = folder / f"lora-{position}"
        place.mkdir(parents=True)
        write_config(config, place, base="tiny", revision=None, kind=family.kind)
        save_tensors(tensors, place / "adapter_model.safetensors")
        found[f"t{position}.x"] = str(place)  # a task's name may hold a dot, a module's may not
    return found


__all__ = [
    "LM_NAMES",
    "METHODS",
    "NAMES",
    "PLAIN",
    "base",
    "borrowed",
    "changed",
    "is_encoder",
    "outputs",
    "rows_for",
    "write_loras",
]
