"""X-LoRA inside a base model: a gate that weighs frozen LoRAs for each token (arXiv 2402.07148).

Two passes a batch: one with all LoRAs weighed 0, whose last states the gate reads; one with the weights that it gives. The gate and the
LoRA modules are peft's own. peft's model around them loads LoRAs of a few decoders only, so the passes are made here, with hooks; a test
holds the result against peft's own model where that works.

Shapes: B rows, S tokens, L modules with LoRAs, N LoRAs.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alter.errors import ConfigError, ModelError
from alter.peers.experts import inner, load_loras

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHILD = "peft_gate"
PREFIX = "base_model.internal_xlora_classifier."
"""What peft's files call the gate."""
_LINK = "_alter_xlora"


@dataclass(kw_only=True)
class Passes:
    """What the modules with LoRAs share. `disabled` is what peft's modules ask of their model.

    Attributes:
        scalings_BSLN: the weights of the pass at hand; None outside of one.
        disabled: True gives the base model's own function.
    """

    scalings_BSLN: torch.Tensor | None = None
    disabled: bool = False


def attach(backbone: PreTrainedModel, config: Any) -> dict[str, Any]:
    """Put LoRAs and the gate into a base model and return the LoRAs' configs by name.

    Raises:
        ConfigError: the base has two stacks, or a LoRA is one that X-LoRA does not take.
        CheckpointError: a LoRA cannot be read, or is of another base.
    """
    from peft.tuners.lora import Linear
    from peft.tuners.xlora.classifier import XLoraClassifier
    from peft.tuners.xlora.layer import XLoraLinearLayer

    if backbone.config.is_encoder_decoder:
        raise ConfigError(
            "peft.peft_type is XLORA, whose gate reads the last states of the one stack that it weighs, and this base model has two "
            "stacks; choose an encoder or a decoder-only base model, or another peft_type"
        )
    experts = load_loras(backbone, {name: Path(folder) for name, folder in config.adapters.items()})
    if any(one.use_dora for one in experts.values()):
        raise ConfigError("peft.adapters names a LoRA with use_dora, which X-LoRA does not take; train it without")
    passes: Any = Passes()
    layers = [module for module in backbone.modules() if isinstance(module, Linear)]
    for number, module in enumerate(layers):
        module.set_adapter([inner(position) for position in range(len(experts))])
        layer = XLoraLinearLayer(
            model=passes, target=module, target_forward=module.forward, layer_number=number, config=config
        )  # fmt: skip
        module.__dict__["forward"] = layer.forward
        module.__dict__[_LINK] = passes
        module.register_forward_pre_hook(_give_weights, with_kwargs=True)
        module.register_forward_hook(_as_given)
    weight = next(backbone.parameters())
    gate = XLoraClassifier(backbone, config, len(experts), len(layers), weight.device)
    backbone.add_module(CHILD, gate)
    backbone.__dict__[_LINK] = passes
    backbone.register_forward_pre_hook(_weigh, with_kwargs=True)
    backbone.register_forward_hook(_forget)
    return experts


def _weigh(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Find the weights of a batch, before the pass that uses them."""
    passes: Passes = module.__dict__[_LINK]
    gate: Any = module.get_submodule(CHILD)
    asked = {**kwargs, "output_hidden_states": True, "return_dict": True}
    ids = {name: kwargs.get(name) for name in ("input_ids", "inputs_embeds")}
    if ids["input_ids"] is None and ids["inputs_embeds"] is None:
        ids["input_ids"] = args[0]
    passes.scalings_BSLN = gate.make_dummy_scalings(**ids)
    if passes.disabled:
        passes.scalings_BSLN = torch.zeros_like(passes.scalings_BSLN)
        return
    with torch.no_grad():
        read = module.forward(*args, **asked)  # not the module itself, which would come here again
    passes.scalings_BSLN = gate(result=read, **ids)


def _forget(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    module.__dict__[_LINK].scalings_BSLN = None  # it would hold the graph, and be copied by deepcopy


def _give_weights(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    scalings_BSLN = module.__dict__[_LINK].scalings_BSLN
    if scalings_BSLN is None:
        raise ModelError("X-LoRA's weights of this pass are gone; set train.gradient_checkpointing: false")
    x = args[0] if args[0].dim() == 3 else args[0].unflatten(0, scalings_BSLN.shape[:2])
    module.__dict__[f"{_LINK}_dim"] = args[0].dim()
    return (x, *args[1:]), {**kwargs, "scalings": scalings_BSLN}


def _as_given(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    return output if output.dim() == module.__dict__[f"{_LINK}_dim"] else output.flatten(0, 1)


def named_tensors(backbone: nn.Module) -> dict[str, torch.Tensor]:
    """Return the gate's tensors by the names that they have in peft's files."""
    return {f"{PREFIX}{name}": tensor for name, tensor in backbone.get_submodule(CHILD).state_dict(keep_vars=True).items()}


def without_cache(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of transformers' `generate` under which every step sees the whole text so far."""
    config = copy.copy(settings.get("generation_config"))
    if config is None:
        return {**settings, "use_cache": False}
    config.use_cache = False
    return {**settings, "generation_config": config}


@contextlib.contextmanager
def disabled(backbone: nn.Module) -> Iterator[None]:
    """Within this context the base model computes its own function."""
    passes: Passes = backbone.__dict__[_LINK]
    before, passes.disabled = passes.disabled, True
    try:
        yield
    finally:
        passes.disabled = before


def detach(backbone: nn.Module) -> None:
    """Take the gate and its hooks out; modules with LoRAs are another's to take out."""
    if backbone.__dict__.pop(_LINK, None) is None:
        return
    delattr(backbone, CHILD)
    for hooks in (backbone._forward_pre_hooks, backbone._forward_hooks):
        for key in [key for key, hook in hooks.items() if hook in (_weigh, _forget)]:
            hooks.pop(key)
            backbone._forward_pre_hooks_with_kwargs.pop(key, None)
