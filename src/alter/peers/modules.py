"""Adapters of peft in a base model: put in by peft, and their tensors by the names that peft's files have."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alter.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def put_in(backbone: PreTrainedModel, config: Any, name: str) -> None:
    """Let peft put one adapter into a base model.

    Raises:
        ConfigError: peft finds no module for it, or not of a kind that it takes.
    """
    from peft import inject_adapter_in_model

    with warnings.catch_warnings():
        # Said of each further adapter, and of each projection that stores its weight transposed; both are meant so.
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        try:
            inject_adapter_in_model(config, backbone, adapter_name=name)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RuntimeError, NotImplementedError) as error:
            targets = _short(getattr(config, "target_modules", None))
            raise ConfigError(
                f"peft cannot put {config.peft_type.value} into a {type(backbone).__name__} with these settings ({error}); "
                f"peft.target_modules is {targets}. Change the block peft"
            ) from None


def named_tensors(backbone: nn.Module, adapter: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one adapter in a base model, by the names that they have in peft's files."""
    from peft import get_peft_model_state_dict

    state = backbone.state_dict(keep_vars=True)
    tensors = get_peft_model_state_dict(backbone, state_dict=state, adapter_name=adapter, save_embedding_layers=False)
    return {f"base_model.model.{name}": tensor for name, tensor in tensors.items()}


def layers(backbone: nn.Module) -> Iterator[tuple[str, Any]]:
    """Return peft's modules in a base model, with their names."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return ((name, module) for name, module in backbone.named_modules() if isinstance(module, BaseTunerLayer))


def _short(targets: Any) -> str:
    names = sorted(targets) if isinstance(targets, set | list) else targets
    return f"{', '.join(names[:3])}, ... ({len(names)})" if isinstance(names, list) and len(names) > 3 else f"{names}"
