"""Arrow: trained LoRAs weighed for each token without any training (arXiv 2405.11157), by peft's own module.

A LoRA's direction at a module is the right singular vector of B A with the largest singular value, v. A token x weighs a LoRA by |x . v|,
softmax over the `top_k` largest.

peft's `create_arrow_model` puts its router on every module whose last name is that of a LoRA's module, e.g. on all called `dense`, and then
fails at those without a LoRA; here it gets the LoRAs' modules by their whole names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from alter.peers.experts import inner, load_loras
from alter.peers.modules import layers, put_in
from alter.peers.settings import need_peft

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROUTER = "arrow_router"
"""What peft calls it."""


def route_by_arrow(
    backbone: PreTrainedModel, folders: Mapping[str, Path], *, top_k: int, temperature: float = 1.0, seed: int = 0
) -> None:
    """Put LoRAs and Arrow's router into a base model.

    Args:
        backbone: the base model; it is changed in place.
        folders: name -> folder of a LoRA in peft's layout; all of one rank, on the same modules.
        top_k: LoRAs that a token weighs.
        temperature: of the softmax.
        seed: from where the search for the directions begins.

    Raises:
        ConfigError: peft is not installed.
        CheckpointError: a folder is no LoRA in peft's layout, or one of another base.
    """
    peft = need_peft("Arrow")
    configs = load_loras(backbone, folders)
    first = next(iter(configs.values()))
    arrow = peft.ArrowConfig(top_k=top_k, router_temperature=temperature, rng_seed=seed)
    arrow.task_adapter_names = [inner(position) for position in range(len(configs))]
    arrow.gks_adapter_names = []
    modules = [name for name, module in layers(backbone) if inner(0) in module.lora_A]
    router = peft.LoraConfig(r=first.r, target_modules=modules, arrow_config=arrow, fan_in_fan_out=first.fan_in_fan_out)
    put_in(backbone, router, ROUTER)
    for _, module in layers(backbone):
        module.set_adapter(ROUTER)
    backbone.requires_grad_(False)
