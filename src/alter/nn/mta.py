"""The Mixture-of-Task-Adapters at one site, and how it is attached to a stock model.

The module is added to the model as a child of the site's block, and each of the FFN's projections gets one forward hook. The hook is
a plain module-level function that finds its site through an attribute of the projection: a closure would survive `deepcopy`
unchanged, and the copy would go on using the original's adapters. Base parameters keep their names and values.

Shapes: B rows, S tokens, D site width, T tasks, N task adapters, M shared adapters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from alter.errors import ModelError
from alter.mta_settings import ADAPTERS, GATES, GateSettings, MTASettings, PartSettings
from alter.nn.ffn import FFN
from alter.nn.gate_shape import GateInputs, GateShape
from alter.nn.mixing import Weights, widen
from alter.nn.packing import Packing
from alter.nn.parts import Parts
from alter.nn.routing import RoutingState
from alter.nn.tokens import mean_over_tokens

CHILD = "mta"
_LINK = "_alter_link"
_STATE = "_alter_state"


class MTA(nn.Module):
    """Adapters, selector and gate of one site.

    Args:
        ffn: the FFN that the site is.
        settings: adapter kind, selector, gate, numbers.
        num_tasks: T.
        state: what all sites of the model share.
        position: the site's number, for records and messages.
        encoder_dim: width of the encoder's output, where the site is in a decoder that has an encoder beside it.
        parts: the models that a merged one is made of; none: `settings` say how its adapters are weighed.
    """

    def __init__(
        self,
        ffn: FFN,
        settings: MTASettings,
        *,
        num_tasks: int,
        state: RoutingState,
        position: int,
        encoder_dim: int | None = None,
        parts: Sequence[PartSettings] = (),
    ) -> None:
        super().__init__()
        self.state = state
        self.parts = list(parts)
        self.position = position
        self.encoder_dim = encoder_dim
        self.is_decoder = ffn.site.stack == "decoder"
        self.num_adapters = settings.num_adapters or num_tasks
        self.num_shared = settings.num_shared
        self.num_tasks = num_tasks
        self._dim = ffn.dim
        self.last = len(ffn.projections) - 1
        self.bank = ADAPTERS.get(settings.adapter.kind)(ffn, settings.adapter, num_adapters=self.num_adapters + self.num_shared)
        if hasattr(self.bank, "start_shared"):  # a kind whose new adapters must know their place to change nothing
            self.bank.start_shared(self.num_adapters)
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
            encoder_dim=self.encoder_dim,
        )
        module = Parts(self.parts, shape) if self.parts else GATES.get(settings.kind)(shape, settings)
        assert isinstance(module, nn.Module)
        return module

    def change(self, position: int, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return the output `y` of projection `position`, which read `x`, with the adapters' part in it."""
        x_BSD, y_BSO = self._rows(x), self._rows(y)
        if position == 0:
            self._site_x, self._weights = x_BSD, self._thinned(self.weigh(x_BSD))
        if self._site_x is None or self._weights is None:
            raise ModelError(f"site {self.position}: the FFN's projections ran out of order; this model is not supported")
        try:
            changed = self.bank.change(position, x=x_BSD, site_x=self._site_x, y=y_BSO, weights=self._weights)
        finally:
            if position == self.last:  # keep nothing of the pass: it would hold the graph and be copied by deepcopy
                self._site_x = self._weights = None
        assert isinstance(changed, torch.Tensor)
        packing = self._packing
        return (changed if packing is None else packing.pack(changed)).reshape(y.shape)

    @property
    def _packing(self) -> Packing | None:
        return None if self.state.route is None else self.state.route.packing

    def _rows(self, x: torch.Tensor) -> torch.Tensor:
        """Return tokens as rows (B, S, ...): some models hand over a plain list of tokens, and packed rows share sequences."""
        packing = self._packing
        if packing is not None:
            return packing.unpack(x if x.dim() == 3 else x.unflatten(0, packing.place_RP.shape))
        return x if x.dim() == 3 else x.unflatten(0, (self.state.num_rows, -1))

    def weigh(self, x_BSD: torch.Tensor) -> Weights:
        """Return the weights that the router at work gives for these rows."""
        kept = self.state.kept if self.is_decoder else None
        if kept is not None and self.position in kept:
            return kept[self.position]
        inputs = self._gate_inputs(x_BSD)
        weights: Weights = self.selector(inputs)
        if self.state.router == "gate":
            weights = self.gate(replace(inputs, selected=weights, kept=self._kept_reads("gate")))
        if kept is not None and weights.values.dim() == 2:
            # Training saw the whole prompt at once; what it saw there must hold while the answer is written token by token.
            kept[self.position] = weights
        if self.state.traced is not None:  # as they are: an operation more would be missed in a recomputation
            self.state.traced[self.position] = weights
        if self.state.recording:
            self.state.recorded[self.position] = weights.dense(self.num_adapters + self.num_shared).detach()
        return weights

    def _thinned(self, weights: Weights) -> Weights:
        """Let each row in training do without an adapter now and then; the others' weights grow, so that their mean stays."""
        share = self.state.adapter_dropout
        if not self.training or share == 0:
            return weights
        values = weights.values  # (B, K) or (B, S, K): a row does without an adapter at all of its tokens
        drawn = torch.rand(values.shape[0], *[1] * (values.dim() - 2), values.shape[-1], device=values.device)
        return replace(weights, values=values * (drawn >= share) / (1 - share))

    def _gate_inputs(self, x_BSD: torch.Tensor) -> GateInputs:
        route = self.state.route
        if route is None:
            raise ModelError("the model was called without task ids; call it through the MTAModel, with task_ids=...")
        num_rows = x_BSD.shape[0]
        has_encoder = self.encoder_dim is not None
        mask_BS = None if route.mask_BS is None or has_encoder else widen(route.mask_BS, num_rows)
        if mask_BS is not None and mask_BS.shape[1] != x_BSD.shape[1]:
            mask_BS = None  # a step of generation: the one token at hand, and only gates by token look at it
        encoder_BD = self.state.encoder_BD if has_encoder else None
        return GateInputs(
            x_BSD=x_BSD,
            task_ids_B=widen(route.task_ids_B, num_rows),
            mask_BS=mask_BS,
            selected=None,
            outputs=self.bank.outputs,
            encoder_BD=None if encoder_BD is None else widen(encoder_BD, num_rows),
            reads_last=self.is_decoder and not has_encoder,
            kept=self._kept_reads("selector"),
        )

    def _kept_reads(self, role: str) -> dict[str, torch.Tensor] | None:
        if self.state.kept is None or not self.is_decoder:
            return None
        return self.state.kept_reads.setdefault((self.position, role), {})

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
            encoder_BD=None if self.encoder_dim is None else x_T1D.new_zeros(self.num_tasks, self.encoder_dim),
        )
        was_training = self.selector.training  # what it answers with, whatever a kind does while training (adamix)
        self.selector.eval()
        try:
            with torch.no_grad():
                weights: Weights = self.selector(inputs)
                dense = weights.dense(self.num_adapters)
        finally:
            self.selector.train(was_training)
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


def watch(model: nn.Module, encoder: nn.Module | None, state: RoutingState) -> None:
    """Let `state` know of each pass of `model` how many rows it has, and of its encoder's output, where it has one."""
    model.__dict__[_STATE] = state
    model.register_forward_pre_hook(_count_rows, with_kwargs=True)
    if encoder is not None:
        encoder.__dict__[_STATE] = state
        encoder.register_forward_hook(_read_encoder)


def _count_rows(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = next((x for x in (*args[:1], kwargs.get("input_ids"), kwargs.get("inputs_embeds")) if x is not None), None)
    if given is not None:
        module.__dict__[_STATE].num_rows = given.shape[0]


def _read_encoder(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
    state: RoutingState = module.__dict__[_STATE]
    if state.route is not None:
        state.encoder_BD = mean_over_tokens(output[0], state.route.mask_BS)


def detach(model: nn.Module) -> None:
    """Take every MTA out of `model`, which then is the stock model again."""
    for module in list(model.modules()):
        if module.__dict__.pop(_STATE, None) is not None:
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key in [key for key, hook in hooks.items() if hook in (_count_rows, _read_encoder)]:
                    hooks.pop(key)
                    module._forward_pre_hooks_with_kwargs.pop(key, None)
        if _LINK in module.__dict__:
            del module.__dict__[_LINK]
            for key in [key for key, hook in module._forward_hooks.items() if hook is _hook]:
                del module._forward_hooks[key]
        if isinstance(module._modules.get(CHILD), MTA):
            del module._modules[CHILD]


def _hook(module: nn.Module, args: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor:
    link: _Link = module.__dict__[_LINK]
    return link.mta.change(link.position, args[0], output) if link.mta.state.enabled else output
