"""Tiny equipped models and a batch of mixed tasks, for the batteries of the module."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from tests.tiny import tiny_model
from transformers import PreTrainedModel

from alter.config import merge, parse
from alter.model import MTAModel
from alter.mta_settings import MTASettings
from alter.presets import PRESETS
from alter.recipe import HeadSettings, Trained

NAMES = ("intent", "urgency", "mood", "score")
# B 5 rows, S 7 tokens, three lengths, every task
IDS_BS = torch.tensor(
    [
        [2, 10, 11, 12, 13, 14, 3],
        [2, 20, 21, 22, 3, 0, 0],
        [2, 30, 31, 32, 33, 34, 3],
        [2, 40, 3, 0, 0, 0, 0],
        [2, 50, 51, 52, 53, 54, 3],
    ]
)
MASK_BS = (IDS_BS != 0).long()
TASKS_B = torch.tensor([0, 1, 2, 3, 1])


@functools.cache
def _base(family: str, num_layers: int) -> PreTrainedModel:
    return tiny_model(family, num_layers=num_layers)


def base_model(family: str = "bert", *, dtype: torch.dtype = torch.float64, num_layers: int = 2) -> PreTrainedModel:
    """Return a fresh tiny model, the same each time."""
    return copy.deepcopy(_base(family, num_layers)).to(dtype)


def equipped(
    mta: Mapping[str, Any] | None = None,
    *,
    family: str = "bert",
    tasks: Sequence[str] | Mapping[str, int] = NAMES,
    preset: Literal["alter", "alter-lite"] = "alter-lite",
    router: Literal["selector", "gate"] = "selector",
    heads: Mapping[str, Any] | None = None,
    dtype: torch.dtype = torch.float64,
    num_layers: int = 2,
) -> MTAModel:
    """Return a tiny model with an MTA, in evaluation mode, all of it trainable; also of settings that `equip` refuses."""
    base = base_model(family, dtype=dtype, num_layers=num_layers)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MTAModel(
            base,
            task_names=list(tasks),
            settings=parse(MTASettings, merge(PRESETS[preset]["mta"], mta or {}), where="test"),
            num_outputs=list(tasks.values()) if isinstance(tasks, Mapping) else None,
            heads=parse(HeadSettings, dict(heads or {}), where="test"),
        )
    model.to(dtype).eval()
    model.router = router
    return model


def randomise(model: MTAModel, *groups: Trained, seed: int = 0, scale: float = 0.3) -> MTAModel:
    """Give the parameters of `groups` random changes, as training would."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for group in groups:
            for parameter in model.parameter_groups()[group].values():
                noise = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
                parameter.add_((scale * noise).to(parameter.dtype))
    return model


def hidden(model: MTAModel, ids_BS: torch.Tensor = IDS_BS, mask_BS: torch.Tensor | None = MASK_BS, **inputs: Any) -> torch.Tensor:
    """Return the hidden states of a batch, (B, S, D)."""
    with torch.no_grad():
        state: torch.Tensor = model(ids_BS, mask_BS, **{"task_ids": TASKS_B, **inputs}).last_hidden_state
    return state


def weights_of(model: MTAModel, **inputs: Any) -> dict[int, torch.Tensor]:
    """Return the dense gate weights of every site."""
    with model.record_weights() as recorded:
        hidden(model, **inputs)
    return dict(recorded)


@contextmanager
def site_inputs(model: MTAModel) -> Iterator[list[torch.Tensor]]:
    """Within this context, collect what the FFN of each site reads, first site first."""
    seen: list[torch.Tensor] = []
    handles = [ffn.inputs[0].register_forward_hook(lambda _, args, out: seen.append(args[0].detach())) for ffn in model.ffns]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
