"""Several rows in one sequence: where each row's tokens lie, so that adapters and gates still see whole rows.

Attention runs on packed sequences; an MTA takes the rows apart, works on them as on any batch, and puts them back. So every gate
means the same packed or not, and rows of different tasks may share a sequence.

Shapes: R sequences, P tokens of a sequence, B rows, S tokens of the longest row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where rows lie in packed sequences.

    Attributes:
        index_BS: place of each row's tokens among all tokens of the sequences (R * P); padding points at the row's first.
        place_RP: place of each packed token among the padded rows' (B * S); padding points at 0.
        row_RP: row of each packed token, -1 for padding.
    """

    index_BS: torch.Tensor
    place_RP: torch.Tensor
    row_RP: torch.Tensor

    def unpack(self, x: torch.Tensor) -> torch.Tensor:
        """Return packed tokens (R, P, ...) as padded rows (B, S, ...)."""
        return _reorder(x, self.index_BS)

    def pack(self, x: torch.Tensor) -> torch.Tensor:
        """Return padded rows (B, S, ...) as packed tokens (R, P, ...)."""
        return _reorder(x, self.place_RP)

    def position_ids(self) -> torch.Tensor:
        """Return each packed token's position within its own row, (R, P)."""
        return self.place_RP % self.index_BS.shape[1]

    def attention_mask(self, dtype: torch.dtype, *, window: int | None = None) -> torch.Tensor:
        """Return what to add to attention scores, (R, 1, P, P): 0 from a token to itself and what stands before it in its row.

        Args:
            dtype: of the scores.
            window: tokens that a token sees, itself included (sliding attention); None: all before it.
        """
        num_tokens = self.row_RP.shape[1]
        same = self.row_RP.unsqueeze(2) == self.row_RP.unsqueeze(1)
        seen = torch.ones(num_tokens, num_tokens, dtype=torch.bool, device=same.device).tril()
        if window is not None:
            seen = seen.triu(1 - window)
        mask = torch.zeros(same.shape, dtype=dtype, device=same.device)
        return mask.masked_fill(~(same & seen), torch.finfo(dtype).min).unsqueeze(1)

    def to(self, device: torch.device) -> Packing:
        """Return the packing on another device."""
        return Packing(index_BS=self.index_BS.to(device), place_RP=self.place_RP.to(device), row_RP=self.row_RP.to(device))


def _reorder(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Return the tokens of `x` (.., .., rest) at flat `places`, in the shape of `places`."""
    return x.flatten(0, 1).index_select(0, places.flatten()).view(*places.shape, *x.shape[2:])


def pack_rows(lengths: Sequence[int], max_length: int) -> Packing:
    """Lay rows one after the other into as few sequences as first-fit finds.

    Args:
        lengths: tokens of each row; one longer than `max_length` gets a sequence of its own.
        max_length: tokens of a sequence, at most.
    """
    sequences: list[list[int]] = []
    used: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: -lengths[row]):
        fits = next((place for place, length in enumerate(used) if length + lengths[row] <= max_length), None)
        if fits is None:
            sequences.append([])
            used.append(0)
            fits = len(used) - 1
        sequences[fits].append(row)
        used[fits] += lengths[row]
    num_tokens, longest = max(used), max(lengths)
    index_BS = torch.zeros(len(lengths), longest, dtype=torch.int64)
    place_RP = torch.zeros(len(sequences), num_tokens, dtype=torch.int64)
    row_RP = torch.full((len(sequences), num_tokens), -1)
    for sequence, rows in enumerate(sequences):
        start = 0
        for row in rows:
            end = start + lengths[row]
            index_BS[row] = sequence * num_tokens + start
            index_BS[row, : lengths[row]] += torch.arange(lengths[row])
            place_RP[sequence, start:end] = row * longest + torch.arange(lengths[row])
            row_RP[sequence, start:end] = row
            start = end
    return Packing(index_BS=index_BS, place_RP=place_RP, row_RP=row_RP)
