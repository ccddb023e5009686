"""What every site must know of the batch at hand, in one small object: task ids, padding, which router is on.

Task ids travel as a tensor. The object is shared by all sites of a model, copied with it (deepcopy keeps the sharing), and
reinstated while activations are recomputed under gradient checkpointing.

Shapes: B rows, S tokens, D width of the encoder's output, E adapters.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from alter.nn.mixing import Weights
from alter.nn.packing import Packing

Router = Literal["selector", "gate"]


@dataclass(frozen=True, kw_only=True)
class Route:
    """The batch at hand.

    Attributes:
        task_ids_B: task of each row.
        mask_BS: 1 for tokens that gates by row may look at (of a row that a decoder-only model reads and writes: the prompt's), 0 for
            the others and for padding; None: all.
        packing: where rows lie, where several share a sequence.
    """

    task_ids_B: torch.Tensor
    mask_BS: torch.Tensor | None = None
    packing: Packing | None = None


@dataclass(kw_only=True)
class RoutingState:
    """What the sites share.

    Attributes:
        route: the batch at hand; None outside a forward pass.
        router: which module weighs the adapters now.
        enabled: False gives the base model's own function.
        recorded: site position -> dense gate weights of the last pass, (B, E) or (B, S, E), while `recording`.
        traced: site position -> gate weights of the last pass as the gate gave them, with their graph; None: nobody wants them.
        kept: site position -> the weights that a decoder's site found when it read the prompt, which hold for the whole answer (gates
            by row); None outside generation.
        kept_reads: (site position, selector or gate) -> what it read then, for mixtures that differ by token in part.
        encoder_BD: mean of the encoder's output, for the decoder's gates.
        num_rows: rows of the pass, for models that hand their FFNs all rows' tokens as one list.
        adapter_dropout: probability with which a row in training does without an adapter.
    """

    route: Route | None = None
    router: Router = "selector"
    enabled: bool = True
    recording: bool = False
    recorded: dict[int, torch.Tensor] = field(default_factory=dict)
    traced: dict[int, Weights] | None = None
    kept: dict[int, Weights] | None = None
    kept_reads: dict[tuple[int, str], dict[str, torch.Tensor]] = field(default_factory=dict)
    encoder_BD: torch.Tensor | None = None
    num_rows: int = 0
    adapter_dropout: float = 0.0

    def checkpoint_contexts(self) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        """Return the two contexts that `torch.utils.checkpoint` enters for the pass and for its recomputation.

        Weights are kept of the pass, which has the graph, and not once more of the recomputation.
        """
        return contextlib.nullcontext(), self._reinstated(replace(self, recording=False, traced=None))

    @contextlib.contextmanager
    def _reinstated(self, then: RoutingState) -> Iterator[None]:
        now = replace(self)
        self._take(then)
        try:
            yield
        finally:
            self._take(now)

    def _take(self, other: RoutingState) -> None:
        self.route, self.router, self.enabled, self.recording = other.route, other.router, other.enabled, other.recording
        self.encoder_BD, self.num_rows, self.traced = other.encoder_BD, other.num_rows, other.traced
