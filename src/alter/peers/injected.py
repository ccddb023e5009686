"""A method of peft inside a base model: put in, told apart from the base's own parameters, written in peft's layout, taken out.

peft replaces the modules that it changes by modules of its own, which hold the base's (`base_layer`). What it cannot know without its own
model class around the base, the tasks of the rows, reaches its modules through hooks (`poly`, `xlora`).
"""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alter.errors import CheckpointError, ConfigError
from alter.nn.routing import RoutingState
from alter.nn.site import Kind
from alter.peers import poly, xlora
from alter.peers.experts import inner
from alter.peers.modules import layers, named_tensors, put_in
from alter.peers.settings import OURS, method_of
from alter.recipe import Trained
from alter.tensors import save_tensors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"
"""What peft calls the one adapter that it puts in."""
FOLDER = "adapters/peft"
TASK_TYPES: dict[Kind, str] = {"encoder": "FEATURE_EXTRACTION", "encoder-decoder": "SEQ_2_SEQ_LM", "decoder": "CAUSAL_LM"}
_VALUES = 64


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A method that is in a base model: plain data, so that a copy of the model copies it too.

    Attributes:
        config: peft's config of it.
        groups: name of each parameter that it added -> its group; names begin at the base model.
        experts: X-LoRA's LoRAs: name -> peft's config; other methods have none.
    """

    config: Any
    groups: Mapping[str, Trained]
    experts: Mapping[str, Any]

    @property
    def reads_whole_texts(self) -> bool:
        """Whether each step of generation must see the whole text so far."""
        return bool(self.experts)

    def folders(self, backbone: nn.Module) -> dict[str, tuple[Any, dict[str, torch.Tensor]]]:
        """Return what a model directory holds of the method: folder -> (peft's config, tensors by peft's names).

        The tensors are the model's own: a file may be read into them.
        """
        if not self.experts:
            return {FOLDER: (self.config, named_tensors(backbone, ADAPTER))}
        config = copy.copy(self.config)
        config.adapters = {name: f"experts/{name}" for name in self.experts}  # beside it, and not where they were trained
        found = {FOLDER: (config, xlora.named_tensors(backbone))}
        for position, (name, config) in enumerate(self.experts.items()):
            found[f"experts/{name}"] = (config, named_tensors(backbone, inner(position)))
        return found

    @contextlib.contextmanager
    def disabled(self, backbone: nn.Module) -> Iterator[None]:
        """Within this context the base model computes its own function."""
        modules = [module for _, module in layers(backbone)]
        before = [module._disable_adapters for module in modules]
        for module in modules:  # not enable_adapters(), which would also say anew what is trained
            module._disable_adapters = True
        try:
            with xlora.disabled(backbone) if self.experts else contextlib.nullcontext():
                yield
        finally:
            for module, was in zip(modules, before, strict=True):
                module._disable_adapters = was

    def remove(self, backbone: Any) -> None:
        """Take the method out: the base model is the stock model again, its parameters under their own names."""
        xlora.detach(backbone)
        for name, module in list(layers(backbone)):
            parent, _, child = name.rpartition(".")
            setattr(backbone.get_submodule(parent), child, module.get_base_layer())
        del backbone.peft_config


def inject(
    backbone: PreTrainedModel, settings: Mapping[str, Any], *, paths: Sequence[str], num_tasks: int, state: RoutingState
) -> Injected:
    """Put the method that a recipe's block `peft` describes into a base model.

    Args:
        backbone: the base model, as transformers made it; it is changed in place.
        settings: the block.
        paths: dotted paths of all FFN projections.
        num_tasks: number of tasks.
        state: tells the method's modules of the batch at hand.

    Raises:
        ConfigError: peft is not installed, or does not take the settings, or the base model.
        CheckpointError: a LoRA that X-LoRA is to weigh cannot be read, or is of another base.
    """
    config = method_of(settings, backbone=backbone, paths=paths, num_tasks=num_tasks)
    own = {id(parameter) for parameter in backbone.parameters()}
    before = _sample(backbone)
    experts = {}
    if config.peft_type == "XLORA":
        experts = xlora.attach(backbone, config)
    else:
        put_in(backbone, config, ADAPTER)
    if any(
        not value.is_meta and not torch.equal(value, before[key]) for key, value in _sample(backbone).items() if key in before
    ):
        raise ConfigError(
            "the block peft changes the base's own weights, which alter keeps as they are; drop peft.init_lora_weights"
        )
    poly.tell_tasks(backbone, state)
    added = [name for name, parameter in backbone.named_parameters() if id(parameter) not in own]
    return Injected(config=config, groups={name: _group_of(name) for name in added}, experts=experts)


def write_config(config: Any, folder: Path, *, base: str, revision: str | None, kind: Kind) -> None:
    """Write peft's adapter_config.json."""
    written = copy.copy(config)
    written.base_model_name_or_path, written.revision, written.task_type = base, revision, TASK_TYPES[kind]
    written.inference_mode = True
    written.save_pretrained(str(folder))


def write_folders(injected: Injected, backbone: nn.Module, draft: Path, *, base: str, revision: str | None, kind: Kind) -> None:
    """Write what a model directory holds of a method, in peft's layout."""
    for name, (config, tensors) in injected.folders(backbone).items():
        (draft / name).mkdir(parents=True)
        write_config(config, draft / name, base=base, revision=revision, kind=kind)
        save_tensors(tensors, draft / name / "adapter_model.safetensors")


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the block `peft` that a model directory was made with, every setting in it; X-LoRA's LoRAs are those of the directory.

    Raises:
        CheckpointError: its adapter_config.json cannot be read.
    """
    path = folder / FOLDER / "adapter_config.json"
    try:
        content = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the model directory is damaged, copy it again") from None
    settings = {name: value for name, value in content.items() if name not in OURS}
    if isinstance(settings.get("adapters"), dict):
        settings["adapters"] = {name: str(folder / "experts" / name) for name in settings["adapters"]}
    return settings


def _group_of(name: str) -> Trained:
    """Return the group of a parameter: Poly's weights by task do what a selector does, X-LoRA's what a gate does."""
    if ".poly_router." in name:
        return "selector"
    return "gate" if name.startswith(f"{xlora.CHILD}.") else "task_adapters"


def _sample(backbone: nn.Module) -> dict[int, torch.Tensor]:
    """Return some values of each parameter, which tell whether it was changed."""
    found = {}
    for parameter in backbone.parameters():
        flat = parameter.detach().reshape(-1)
        found[id(parameter)] = flat[:: max(1, flat.numel() // _VALUES)].clone()
    return found
