"""Poly inside a base model: each of its modules is told the task of every row (arXiv 2202.13914; peft's PolyModel passes them on itself).

The hooks are plain module-level functions that find the model's state through an attribute, as those of the MTA (`alter.nn.mta`).

Shapes: B rows, S tokens, D width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from alter.errors import ConfigError, ModelError
from alter.nn.mixing import widen
from alter.nn.routing import RoutingState

_STATE = "_alter_peft_state"
_DIM = "_alter_peft_dim"


def tell_tasks(backbone: nn.Module, state: RoutingState) -> None:
    """Let every module of Poly know the tasks of the rows at hand; without any of them nothing changes.

    Raises:
        ConfigError: a module cannot be split as `n_splits` says.
    """
    from peft.tuners.poly import PolyLayer

    found: list[tuple[str, Any]] = [(name, module) for name, module in backbone.named_modules() if isinstance(module, PolyLayer)]
    for name, module in found:
        splits = max(module.n_splits.values())
        if module.in_features % splits or module.out_features % splits:
            raise ConfigError(
                f"peft.n_splits is {splits}, but {name} reads {module.in_features} and writes {module.out_features} values; take a "
                f"number that divides both"
            )
        module.__dict__[_STATE] = state
        module.register_forward_pre_hook(_before, with_kwargs=True)
        module.register_forward_hook(_after)


def _before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    state: RoutingState = module.__dict__[_STATE]
    x = args[0]
    module.__dict__[_DIM] = x.dim()
    if state.route is None:
        if module.disable_adapters:
            return args, kwargs
        raise ModelError("the model was called without task ids; call it through the MTAModel, with task_ids=...")
    x_BSD = _rows(x, state)
    return (x_BSD, *args[1:]), {**kwargs, "task_ids": widen(state.route.task_ids_B, x_BSD.shape[0])}


def _rows(x: torch.Tensor, state: RoutingState) -> torch.Tensor:
    """Return tokens as rows, (B, S, D): some models hand over a plain list of tokens, and packed rows share sequences."""
    packing = None if state.route is None else state.route.packing
    if packing is not None:
        return packing.unpack(x if x.dim() == 3 else x.unflatten(0, packing.place_RP.shape))
    return x if x.dim() == 3 else x.unflatten(0, (state.num_rows, -1))


def _after(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    """Return the output in the shape in which the base's own projection would have given it."""
    state: RoutingState = module.__dict__[_STATE]
    packing = None if state.route is None else state.route.packing
    if packing is not None:
        output = packing.pack(output)
    return output if output.dim() == module.__dict__[_DIM] else output.flatten(0, 1)
