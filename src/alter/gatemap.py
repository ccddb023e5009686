"""Which adapters a task borrows from: gate weights per task, site and adapter, averaged over rows.

Shapes: B rows, S tokens, L sites, T tasks, E adapters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from alter.data.batch import batches_by_length, collate
from alter.data.codec import Codec
from alter.data.encode import Features
from alter.model import MTAModel
from alter.writing import Writer


def gate_map(model: MTAModel, rows: Mapping[str, Sequence[Features]], *, codec: Codec, batch_size: int = 64) -> torch.Tensor:
    """Return the mean gate weight of each task on each adapter at each site, (T, L, E), on the CPU.

    Args:
        model: the model, with the router to look at.
        rows: task -> encoded rows to average over; gates that see no input give the same for any rows.
        codec: the base model's way with text.
        batch_size: rows per forward pass.
    """
    if not model.mtas:
        return torch.zeros(len(model.task_names), 0, model.num_adapters + model.settings.num_shared)
    return torch.stack([task_map(model, rows[task], codec=codec, batch_size=batch_size) for task in model.task_names])


def task_map(model: MTAModel, rows: Sequence[Features], *, codec: Codec, batch_size: int = 64) -> torch.Tensor:
    """Return the mean gate weight on each adapter at each site over rows of one task, (L, E), on the CPU; see `gate_map`."""
    model.eval()
    total = torch.zeros(())
    for positions in batches_by_length(rows, batch_size):
        weights = _weights(model, [rows[position] for position in positions], codec)
        total = total + torch.stack([weights[position] for position in model.site_positions], dim=1).sum(0)
    return total / len(rows)


def _weights(model: MTAModel, rows: Sequence[Features], codec: Codec) -> dict[int, torch.Tensor]:
    """Return the gate weights of rows by site, (B, E), on the CPU; of models that write, those for the rows' own targets."""
    if model.kind != "encoder":
        return Writer(model=model, codec=codec, specs={}, details=True).weights(rows)
    batch = collate(rows, codec).to(model.device)
    with torch.inference_mode(), model.record_weights() as recorded:
        model(**batch.inputs, task_ids=batch.task_ids_B)
    return {position: over_tokens(weights, batch.inputs["attention_mask"]).cpu() for position, weights in recorded.items()}


def over_tokens(weights: torch.Tensor, mask_BS: torch.Tensor) -> torch.Tensor:
    """Return weights by row, (B, E); weights by token are averaged over real tokens."""
    if weights.dim() == 2:
        return weights
    mask_BS1 = mask_BS.unsqueeze(-1).to(weights.dtype)
    return (weights * mask_BS1).sum(1) / mask_BS1.sum(1)


def specific_sites(weights_TLE: Sequence[Sequence[Sequence[float]]], *, num_adapters: int) -> list[float]:
    """Return for each task the share of sites at which any task adapter has weight: under taps those it has for itself.

    Args:
        weights_TLE: gate weights by task, site and adapter, as in gates.json.
        num_adapters: task adapters, which come first.
    """
    used = [[any(weights_E[:num_adapters]) for weights_E in weights_LE] for weights_LE in weights_TLE]
    return [sum(sites) / len(sites) if sites else 0.0 for sites in used]
