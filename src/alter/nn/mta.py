"""The Mixture-of-Task-Adapters at one site, and how it is attached to a stock model.

The module is added to the model as a child of the site's block, and each of the FFN's projections gets one forward hook. The hook is
a plain module-level function that finds its site through an attribute of the projection: a closure would survive `deepcopy`
unchanged, and the copy would go on using the original's adapters. Base parameters keep their names and values.

Shapes: B rows, S tokens, D site width, T tasks, N task adapters, M shared adapters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from alter.errors import ModelError
from alter.nn.ffn import FFN
from alter.nn.gate_shape import GateInputs, GateShape
from alter.nn.mixing import Weights, widen
from alter.nn.routing import RoutingState
from alter.recipe import ADAPTERS, GATES, GateSettings, MTASettings

CHILD = "mta"
_LINK = "_alter_link"


class MTA(nn.Module):
    """Adapters, selector and gate of one site.

    Args:
        ffn: the FFN that the site is.
        settings: adapter kind, selector, gate, numbers.
        num_tasks: T.
        state: what all sites of the model share.
        position: the site's number, for records and messages.
    """

    def __init__(self, ffn: FFN, settings: MTASettings, *, num_tasks: int, state: RoutingState, position: int) -> None:
        super().__init__()
        self.state = state
        self.position = position
        self.num_adapters = settings.num_adapters or num_tasks
        self.num_shared = settings.num_shared
        self.num_tasks = num_tasks
        self._dim = ffn.dim
        self.last = len(ffn.projections) - 1
        self.bank = ADAPTERS.get(settings.adapter.kind)(ffn, settings.adapter, num_adapters=self.num_adapters + self.num_shared)
        self.selector = self._build("selector", settings.selector, ffn, num_shared=0)
        self.gate = self._build("gate", settings.gate, ffn, num_shared=self.num_shared)
        self._site_x: torch.Tensor | None = None
        self._weights: Weights | None = None

    def _build(self, role: Any, settings: GateSettings, ffn: FFN, *, num_shared: int) -> nn.Module:
        shape = GateShape(
            role=role,
            num_tasks=self.num_tasks,
            num_adapters=self.num_adapters,
            num_shared=num_shared,
            dim=ffn.dim,
            output_dim=self.bank.output_dim,
            equal_start=getattr(self.bank, "equal_start", False),
        )
        module = GATES.get(settings.kind)(shape, settings)
        assert isinstance(module, nn.Module)
        return module

    def change(self, position: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the output `y` of projection `position`, which read `x`, with the adapters' part in it."""
        if position == 0:
            self._site_x, self._weights = x, self.weigh(x)
        if self._site_x is None or self._weights is None:
            raise ModelError(f"site {self.position}: the FFN's projections ran out of order; this model is not supported")
        try:
            changed = self.bank.change(position, x=x, site_x=self._site_x, y=y, weights=self._weights)
        finally:
            if position == self.last:  # keep nothing of the pass: it would hold the graph and be copied by deepcopy
                self._site_x = self._weights = None
        assert isinstance(changed, torch.Tensor)
        return changed

    def weigh(self, x_BSD: torch.Tensor) -> Weights:
        """Return the weights that the router at work gives for these rows."""
        route = self.state.route
        if route is None:
            raise ModelError("the model was called without task ids; call it through the MTAModel, with task_ids=...")
        task_ids_B = widen(route.task_ids_B, x_BSD.shape[0])
        mask_BS = None if route.mask_BS is None else widen(route.mask_BS, x_BSD.shape[0])
        inputs = GateInputs(x_BSD=x_BSD, task_ids_B=task_ids_B, mask_BS=mask_BS, selected=None, outputs=self.bank.outputs)
        weights: Weights = self.selector(inputs)
        if self.state.router == "gate":
            weights = self.gate(
                GateInputs(x_BSD=x_BSD, task_ids_B=task_ids_B, mask_BS=mask_BS, selected=weights, outputs=self.bank.outputs)
            )
        if self.state.recording:
            self.state.recorded[self.position] = weights.dense(self.num_adapters + self.num_shared).detach()
        return weights

    def selector_weights(self) -> torch.Tensor:
        """Return the selector's weights of every task over task adapters, (T, N); token gates: for a zero input."""
        device = next(self.bank.parameters()).device
        dtype = next(self.bank.parameters()).dtype
        x_T1D = torch.zeros(self.num_tasks, 1, self._dim, device=device, dtype=dtype)
        inputs = GateInputs(
            x_BSD=x_T1D,
            task_ids_B=torch.arange(self.num_tasks, device=device),
            mask_BS=None,
            selected=None,
            outputs=self.bank.outputs,
        )
        with torch.no_grad():
            weights: Weights = self.selector(inputs)
            dense = weights.dense(self.num_adapters)
        return dense if dense.dim() == 2 else dense[:, 0]

    def start_gate(self) -> None:
        """Let the gate begin at the selector's weights."""
        start = self.gate.start_from
        assert callable(start)
        start(self.selector_weights())


@dataclass(frozen=True)
class _Link:
    """What a hooked projection knows: its site and its position in it. No nn.Module, so it adds no parameter names."""

    mta: MTA
    position: int


def attach(model: nn.Module, ffn: FFN, mta: MTA) -> None:
    """Add `mta` to the site's block and hook its projections.

    Raises:
        ModelError: the block already carries an MTA.
    """
    owner = model.get_submodule(ffn.site.owner)
    if hasattr(owner, CHILD):
        raise ModelError(f"{ffn.site.owner} already carries an MTA; load the base model afresh, or call unequip() first")
    owner.add_module(CHILD, mta)
    for position, projection in enumerate(ffn.projections):
        projection.__dict__[_LINK] = _Link(mta, position)
        projection.register_forward_hook(_hook)


def detach(model: nn.Module) -> None:
    """Take every MTA out of `model`, which then is the stock model again."""
    for module in list(model.modules()):
        if _LINK in module.__dict__:
            del module.__dict__[_LINK]
            for key in [key for key, hook in module._forward_hooks.items() if hook is _hook]:
                del module._forward_hooks[key]
        if isinstance(module._modules.get(CHILD), MTA):
            del module._modules[CHILD]


def _hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    link: _Link = module.__dict__[_LINK]
    return link.mta.change(link.position, args[0], output) if link.mta.state.enabled else output
