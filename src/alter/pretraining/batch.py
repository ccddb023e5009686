"""Examples side by side in tensors.

Shapes: B examples, S tokens read, T tokens written.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from alter.pretraining.corrupt import Example

IGNORED = -100


@dataclass(frozen=True)
class Batch:
    """Tensors for the model, and how many tokens it is scored on."""

    tensors: dict[str, torch.Tensor]
    num_targets: int
    num_tokens: int
    """Tokens read and written, without padding."""

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        moved = {name: tensor.to(device) for name, tensor in self.tensors.items()}
        return Batch(moved, self.num_targets, self.num_tokens)


def collate(examples: Sequence[Example], *, pad: int, causal: bool) -> Batch:
    """Pad examples to the longest."""
    width_S = max(len(example.input_ids) for example in examples)
    width_T = max(len(example.labels) for example in examples)
    input_ids_BS = torch.full((len(examples), width_S), pad)
    mask_BS = torch.zeros((len(examples), width_S), dtype=torch.long)
    labels_BT = torch.full((len(examples), width_T), IGNORED)
    for row, example in enumerate(examples):
        input_ids_BS[row, : len(example.input_ids)] = torch.tensor(example.input_ids)
        mask_BS[row, : len(example.input_ids)] = 1
        labels_BT[row, : len(example.labels)] = torch.tensor(example.labels)
    # A decoder-only model predicts nothing at a block's first place.
    scored_BT = labels_BT[:, 1:] if causal else labels_BT
    written = 0 if causal else sum(len(example.labels) for example in examples)
    return Batch(
        {"input_ids": input_ids_BS, "attention_mask": mask_BS, "labels": labels_BT},
        num_targets=int((scored_BT != IGNORED).sum()),
        num_tokens=int(mask_BS.sum()) + written,
    )


class SummedLoss(nn.Module):
    """A model that returns nothing but its loss, summed over target tokens.

    Processes share this small number instead of all predictions, and the mean is taken over a whole step, not over its micro-batches.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, num_targets: int, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return the sum of the cross entropies in nats."""
        with warnings.catch_warnings():
            # EncoderDecoderModel warns users of 2021 with every loss it computes.
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            loss: torch.Tensor = self.model(**tensors, use_cache=False).loss
        return loss.float() * num_targets
