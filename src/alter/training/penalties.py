"""The penalties of a stage: gate weights gathered from each pass, and what they add to the loss.

A step's rows may be cut into micro-batches and processes, and a penalty on weights is no mean over rows. So each pass is given the sums
over all rows of the step, of which its own part carries the graph: the gradients of the parts then add up to that of the whole. Processes
exchange sums; what later micro-batches will add is found by passing all of them once beforehand, without gradients and with the same
random numbers. Nothing of this happens in a stage without penalties.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from accelerate import Accelerator

from alter.data.batch import Batch
from alter.model import MTAModel
from alter.nn.losses import NOT_A_CLASS
from alter.nn.mixing import Weights
from alter.nn.mta import MTA
from alter.nn.penalty_shape import Penalty, SiteWeights
from alter.recipe import PENALTIES, StageSettings
from alter.training.meter import Meter

Traced = dict[int, Weights]


class Penalties:
    """What a stage's penalties add to the loss.

    Args:
        model: the equipped model.
        stage: the stage; penalties of factor 0 are left out.
        accelerator: tells the processes apart.
        micro_batches: passes of one step.
    """

    def __init__(self, model: MTAModel, stage: StageSettings, *, accelerator: Accelerator, micro_batches: int) -> None:
        self.model = model
        self.accelerator = accelerator
        self.micro_batches = micro_batches
        self.factors = {name: factor for name, factor in stage.penalties.items() if factor > 0}
        self.members: dict[str, Penalty] = {name: PENALTIES.get(name)() for name in self.factors}
        self.mtas: list[MTA] = model.mtas if self.factors else []
        self.of_rows = [name for name, penalty in self.members.items() if penalty.reads_rows]
        self._whole: dict[str, torch.Tensor] = {}

    @property
    def names(self) -> list[str]:
        """The penalties at work."""
        return list(self.members)

    def look_ahead(self, batches: Iterable[tuple[Batch, bool]]) -> None:
        """Find the sums over all of a step's rows before its first pass, where there is more than one pass.

        Args:
            batches: the step's micro-batches, and whether their rows count.
        """
        if not self.of_rows or self.micro_batches == 1:
            return
        whole: dict[str, torch.Tensor] = {}
        with self._same_random_numbers(), torch.no_grad():
            for batch, counted in batches:
                with self.model.trace_weights() as traced:
                    self.model(**batch.inputs, task_ids=batch.task_ids_B, **batch.supervised)
                for name, sums in self._sums(traced, batch, counted=counted).items():
                    whole[name] = whole[name] + sums if name in whole else sums
        self._whole = self._over_processes(whole)

    def traced(self) -> AbstractContextManager[Traced]:
        """Return the context of a pass, which gathers its gate weights where a penalty reads them."""
        return self.model.trace_weights() if self.of_rows else nullcontext({})

    def on_top(self, loss: torch.Tensor, traced: Traced, batch: Batch, *, counted: bool, meter: Meter) -> torch.Tensor:
        """Return the loss of one pass with its part of the penalties; as it is where there are none.

        Args:
            loss: the rows' loss.
            traced: the pass's gate weights.
            batch: its rows.
            counted: whether they count.
            meter: is told each penalty of the whole step.
        """
        if not self.members:
            return loss
        own = self._sums(traced, batch, counted=counted) if self.of_rows else {}
        whole = self._whole
        if self.of_rows and self.micro_batches == 1:
            whole = self._over_processes({name: sums.detach() for name, sums in own.items()})
        cuts = self.micro_batches * self.accelerator.num_processes
        values = []
        for name, penalty in self.members.items():
            of_rows = name in own
            # All rows' sums in value, this pass's own in gradient.
            sums_L = whole[name] + (own[name] - own[name].detach()) if of_rows else torch.zeros(len(self.mtas), 0)
            value = torch.stack(
                [penalty.value(sums, self._gate(mta)) for mta, sums in zip(self.mtas, sums_L, strict=True)]
            ).mean()
            loss = loss + self.factors[name] * (value if of_rows else value / cuts)
            values.append(value.detach().float())
        meter.add_penalties(torch.stack(values))
        return loss

    def _gate(self, mta: MTA) -> torch.nn.Module:
        return mta.gate if self.model.router == "gate" else mta.selector

    def _sums(self, traced: Traced, batch: Batch, *, counted: bool) -> dict[str, torch.Tensor]:
        """Return each penalty's sums over the rows of one pass, site by site, (L, ...)."""
        counts_B = torch.full_like(batch.task_ids_B, int(counted))
        sites = [
            SiteWeights(
                weights=_precise(traced[mta.position].dense(mta.num_adapters + mta.num_shared)),
                task_ids_B=batch.task_ids_B,
                mask_BS=self._mask(mta, batch),
                counts_B=counts_B,
                num_tasks=mta.num_tasks,
                num_adapters=mta.num_adapters,
                gate=self._gate(mta),
            )
            for mta in self.mtas
        ]
        return {name: torch.stack([self.members[name].sums(site) for site in sites]) for name in self.of_rows}

    def _mask(self, mta: MTA, batch: Batch) -> torch.Tensor:
        """Return which tokens of a site's rows are none of padding: a second stack reads the texts to write."""
        if mta.is_decoder and self.model.kind == "encoder-decoder":
            assert batch.labels_BT is not None
            return batch.labels_BT != NOT_A_CLASS
        return batch.inputs["attention_mask"]

    def _over_processes(self, sums: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        if self.accelerator.num_processes == 1:
            return sums
        reduced = {name: self.accelerator.reduce(value, "sum") for name, value in sums.items()}
        return {name: value for name, value in reduced.items() if isinstance(value, torch.Tensor)}

    @contextmanager
    def _same_random_numbers(self) -> Iterator[None]:
        """Within this context random numbers are drawn that are drawn again after it."""
        device = self.model.device
        others = [] if device.type == "cpu" else [device]
        with torch.random.fork_rng(devices=others, device_type=device.type if others else "cuda"):
            yield


def _precise(weights: torch.Tensor) -> torch.Tensor:
    """Return weights in at least float32: under autocast they may come in half as many digits."""
    return weights.float() if weights.dtype in (torch.float16, torch.bfloat16) else weights
