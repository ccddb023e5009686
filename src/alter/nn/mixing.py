"""Weighted sums of small two-layer maps, for any mix of tasks in a batch, without a loop over tasks or rows.

Every adapter kind is the same shape of map, A_i(x) = write_i(combine(read_i(x))), so one engine serves all of them:

    sum_k w_k A_{i_k}(x)

in four forms, chosen by the weights that a gate hands over:

    dense   weights over the first K adapters, a row or a token each: two GEMMs of width K * H, weights applied in the middle
    rows    a few adapters per row: gather their matrices, two batched GEMMs (small adapters), or
    grouped a few adapters per row or token: sort by adapter, two grouped GEMMs (large adapters, token gates)

Launches do not grow with the number of adapters in any form; for rows and grouped, arithmetic does not either.

Shapes: B batch, S tokens, D input width, H inner width after combine, R width of a read, O output width, E adapters, K weighed adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch.nn import functional

Combine = Callable[[list[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How adapters are weighed.

    Attributes:
        values: (B, K), or (B, S, K) for weights that differ by token.
        index: None: column k is adapter k; (B, K) or (B, S, K): column k is adapter index[..., k].
    """

    values: torch.Tensor
    index: torch.Tensor | None = None

    def dense(self, num_adapters: int) -> torch.Tensor:
        """Return the weights over all adapters, (B, E) or (B, S, E)."""
        shape = (*self.values.shape[:-1], num_adapters)
        index = self.index
        if index is None:
            return functional.pad(self.values, (0, num_adapters - self.values.shape[-1]))
        if index.dim() < self.values.dim():
            index = index.unsqueeze(1).expand_as(self.values)
        return self.values.new_zeros(shape).scatter_add(-1, index, self.values)

    def rows(self, num_rows: int) -> Weights:
        """Repeat each row so that there are `num_rows` (beams widen a batch).

        Raises:
            ValueError: `num_rows` is no multiple of the rows at hand.
        """
        have = self.values.shape[0]
        if have == num_rows:
            return self
        index = None if self.index is None else widen(self.index, num_rows)
        return Weights(values=widen(self.values, num_rows), index=index)


def widen(tensor: torch.Tensor, num_rows: int) -> torch.Tensor:
    """Repeat each row of `tensor` (B, ...) to (num_rows, ...), as beam search repeats the rows of a batch."""
    times, rest = divmod(num_rows, tensor.shape[0])
    if rest:
        raise ValueError(f"{num_rows} rows of input, but {tensor.shape[0]} task ids; give one task id per row")
    return tensor if times == 1 else tensor.repeat_interleave(times, dim=0)


@dataclass(frozen=True, kw_only=True)
class Bank:
    """E adapters, stacked.

    Attributes:
        reads_ERD: what reads the input: one matrix per adapter (R = H, or 2 H for a fused gate).
        read_biases_ER: their biases, or None.
        gates_EHD: a second reading matrix (gated FFNs), or None.
        gate_biases_EH: their biases, or None.
        writes_EOH: what writes the output.
        write_biases_EO: their biases, or None.
        combine: readings [..., R] (and gate readings) -> inner state [..., H].
    """

    reads_ERD: torch.Tensor
    writes_EOH: torch.Tensor
    combine: Combine
    read_biases_ER: torch.Tensor | None = None
    gates_EHD: torch.Tensor | None = None
    gate_biases_EH: torch.Tensor | None = None
    write_biases_EO: torch.Tensor | None = None

    def first(self, num_adapters: int) -> Bank:
        """Return the bank of the first adapters only."""
        if num_adapters == self.reads_ERD.shape[0]:
            return self
        return self._map(lambda tensor: tensor[:num_adapters])

    def select(self, index: torch.Tensor) -> Bank:
        """Return the bank of the adapters `index` (K,)."""
        return self._map(lambda tensor: tensor.index_select(0, index))

    def _map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Bank:
        return replace(
            self,
            reads_ERD=change(self.reads_ERD),
            writes_EOH=change(self.writes_EOH),
            read_biases_ER=_optional(change, self.read_biases_ER),
            gates_EHD=_optional(change, self.gates_EHD),
            gate_biases_EH=_optional(change, self.gate_biases_EH),
            write_biases_EO=_optional(change, self.write_biases_EO),
        )

    def readings(self) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
        """Return the reading matrices with their biases."""
        pairs = [(self.reads_ERD, self.read_biases_ER)]
        if self.gates_EHD is not None:
            pairs.append((self.gates_EHD, self.gate_biases_EH))
        return pairs


def _optional(change: Callable[[torch.Tensor], torch.Tensor], tensor: torch.Tensor | None) -> torch.Tensor | None:
    return None if tensor is None else change(tensor)


def mix(x_BSD: torch.Tensor, bank: Bank, weights: Weights) -> torch.Tensor:
    """Return sum_k w_k A_{i_k}(x), (B, S, O)."""
    weights = weights.rows(x_BSD.shape[0])
    if weights.index is None:
        return _mix_dense(x_BSD, bank.first(weights.values.shape[-1]), weights.values)
    if weights.index.dim() == 2 and _gather_is_cheaper(x_BSD, bank, weights.index.shape[1]):
        return _mix_rows(x_BSD, bank, weights.values, weights.index)
    if not _can_group(x_BSD, bank):
        return _mix_dense(x_BSD, bank, weights.dense(bank.reads_ERD.shape[0]))
    return _mix_grouped(x_BSD, bank, weights.values, weights.index)


def _gather_is_cheaper(x_BSD: torch.Tensor, bank: Bank, num_per_row: int) -> bool:
    """Gathering copies K * H * (D + O) numbers a row, grouping S * K * (D + O): compare the two widths."""
    return bank.writes_EOH.shape[2] <= x_BSD.shape[1] or num_per_row * bank.writes_EOH.shape[2] <= 64


def _can_group(x_BSD: torch.Tensor, bank: Bank) -> bool:
    """Tell whether torch has a grouped GEMM for this: 2.10 or newer, rows of whole 16 bytes, 32 bits or less (GPUs: bfloat16).

    Elsewhere the same sum is computed dense, at a cost that grows with the number of adapters.
    """
    dtype = _compute_dtype(x_BSD)
    allowed = (torch.float32, torch.bfloat16, torch.float16) if x_BSD.device.type == "cpu" else (torch.bfloat16,)
    if not hasattr(functional, "grouped_mm") or dtype not in allowed:
        return False
    widths = (*bank.reads_ERD.shape[1:], *bank.writes_EOH.shape[1:])
    return all(width * dtype.itemsize % 16 == 0 for width in widths)


def _compute_dtype(x_BSD: torch.Tensor) -> torch.dtype:
    """Return the type that matrix products use here: autocast's where it is on."""
    device = x_BSD.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x_BSD.dtype


def _per_token(values: torch.Tensor) -> torch.Tensor:
    """Return weights as (B, S or 1, K)."""
    return values.unsqueeze(1) if values.dim() == 2 else values


def _mix_dense(x_BSD: torch.Tensor, bank: Bank, values: torch.Tensor) -> torch.Tensor:
    num_adapters = bank.reads_ERD.shape[0]
    weights_BSE = _per_token(values)
    readings = []
    for matrix_ERD, bias_ER in bank.readings():
        bias = None if bias_ER is None else bias_ER.flatten()
        readings.append(functional.linear(x_BSD, matrix_ERD.flatten(0, 1), bias).unflatten(-1, (num_adapters, -1)))
    inner_BSEH = bank.combine(readings) * weights_BSE.unsqueeze(-1)
    y_BSO = inner_BSEH.flatten(-2) @ bank.writes_EOH.transpose(1, 2).flatten(0, 1)
    return y_BSO if bank.write_biases_EO is None else y_BSO + weights_BSE @ bank.write_biases_EO


def _mix_rows(x_BSD: torch.Tensor, bank: Bank, values: torch.Tensor, index_BK: torch.Tensor) -> torch.Tensor:
    num_rows, num_per_row = index_BK.shape
    weights_BSK = _per_token(values)
    chosen = bank.select(index_BK.flatten())
    readings = []
    for matrix_CRD, bias_CR in chosen.readings():
        matrix_BWD = matrix_CRD.unflatten(0, (num_rows, num_per_row)).flatten(1, 2)
        reading_BSW = torch.bmm(x_BSD, matrix_BWD.transpose(1, 2))
        if bias_CR is not None:
            reading_BSW = reading_BSW + bias_CR.reshape(num_rows, 1, -1)
        readings.append(reading_BSW.unflatten(-1, (num_per_row, -1)))
    inner_BSKH = bank.combine(readings) * weights_BSK.unsqueeze(-1)
    writes_BWO = chosen.writes_EOH.transpose(1, 2).unflatten(0, (num_rows, num_per_row)).flatten(1, 2)
    y_BSO = torch.bmm(inner_BSKH.flatten(-2), writes_BWO)
    if chosen.write_biases_EO is None:
        return y_BSO
    biases_BKO: torch.Tensor = chosen.write_biases_EO.unflatten(0, (num_rows, num_per_row))
    return y_BSO + weights_BSK @ biases_BKO


def _mix_grouped(x_BSD: torch.Tensor, bank: Bank, values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Sort (token, adapter) pairs by adapter, so that each adapter meets its tokens in one slice of a grouped GEMM."""
    num_rows, num_tokens, width = x_BSD.shape
    num_per_token = index.shape[-1]
    shape = (num_rows, num_tokens, num_per_token)
    index_P = (index if index.dim() == 3 else index.unsqueeze(1)).expand(shape).flatten()
    weight_P = _per_token(values).expand(shape).flatten()
    order_P = torch.argsort(index_P, stable=True)
    token_P = torch.div(order_P, num_per_token, rounding_mode="floor")
    sorted_P = index_P[order_P]
    num_adapters = bank.reads_ERD.shape[0]
    ends_E = torch.zeros(num_adapters, dtype=torch.int64, device=index.device).scatter_add(0, sorted_P, torch.ones_like(sorted_P))
    ends_E = ends_E.cumsum(0).to(torch.int32)
    dtype = _compute_dtype(x_BSD)
    x_PD = x_BSD.reshape(-1, width).index_select(0, token_P).to(dtype)
    readings = []
    for matrix_ERD, bias_ER in bank.readings():
        reading_PR = _grouped_matmul(x_PD, matrix_ERD.transpose(1, 2).to(dtype), ends_E)
        readings.append(reading_PR if bias_ER is None else reading_PR + bias_ER.index_select(0, sorted_P))
    weight_P1 = weight_P[order_P].unsqueeze(-1)
    inner_PH = (bank.combine(readings) * weight_P1).to(dtype)
    y_PO = _grouped_matmul(inner_PH, bank.writes_EOH.transpose(1, 2).to(dtype), ends_E)
    if bank.write_biases_EO is not None:
        y_PO = y_PO + weight_P1 * bank.write_biases_EO.index_select(0, sorted_P)
    y_TO = y_PO.new_zeros(num_rows * num_tokens, y_PO.shape[-1]).index_add(0, token_P, y_PO)
    return y_TO.reshape(num_rows, num_tokens, -1)


class _GroupedMatmul(torch.autograd.Function):
    """`grouped_mm` with gradients that do not mind how the incoming gradient is laid out in memory."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, *inputs: torch.Tensor) -> torch.Tensor:
        x_PI, matrix_EIO, ends_E = inputs
        ctx.save_for_backward(x_PI, matrix_EIO, ends_E)
        return functional.grouped_mm(x_PI.contiguous(), matrix_EIO, offs=ends_E)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x_PI, matrix_EIO, ends_E = ctx.saved_tensors  # type: ignore[attr-defined]
        gradient_PO = gradients[0].contiguous()
        gradient_PI = functional.grouped_mm(gradient_PO, matrix_EIO.transpose(1, 2), offs=ends_E)
        gradient_EIO = functional.grouped_mm(x_PI.contiguous().T, gradient_PO, offs=ends_E)
        return gradient_PI, gradient_EIO, None


def _grouped_matmul(x_PI: torch.Tensor, matrix_EIO: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    result = _GroupedMatmul.apply(x_PI, matrix_EIO, ends_E)  # type: ignore[no-untyped-call]
    assert isinstance(result, torch.Tensor)
    return result
