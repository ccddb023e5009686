"""What every site must know of the batch at hand, in one small object: task ids, padding, which router is on.

Task ids travel as a tensor. The object is shared by all sites of a model, copied with it (deepcopy keeps the sharing), and
reinstated while activations are recomputed under gradient checkpointing.

Shapes: B rows, S tokens, L sites, E adapters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

Router = Literal["selector", "gate"]


@dataclass(frozen=True, kw_only=True)
class Route:
    """The batch at hand.

    Attributes:
        task_ids_B: task of each row.
        mask_BS: 1 for tokens, 0 for padding; None: no padding.
    """

    task_ids_B: torch.Tensor
    mask_BS: torch.Tensor | None = None


@dataclass(kw_only=True)
class RoutingState:
    """What the sites share.

    Attributes:
        route: the batch at hand; None outside a forward pass.
        router: which module weighs the adapters now.
        enabled: False gives the base model's own function.
        recorded: site position -> dense gate weights of the last pass, (B, E) or (B, S, E), while `recording`.
    """

    route: Route | None = None
    router: Router = "selector"
    enabled: bool = True
    recording: bool = False
    recorded: dict[int, torch.Tensor] = field(default_factory=dict)

    def checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the two contexts that `torch.utils.checkpoint` enters for the pass and for its recomputation."""
        return contextlib.nullcontext(), self._reinstated(replace(self, recording=False))

    @contextlib.contextmanager
    def _reinstated(self, then: RoutingState) -> Iterator[None]:
        now = (self.route, self.router, self.enabled, self.recording)
        self.route, self.router, self.enabled, self.recording = then.route, then.router, then.enabled, False
        try:
            yield
        finally:
            self.route, self.router, self.enabled, self.recording = now
