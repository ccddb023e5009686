"""The paper's gate network: softmax(W2 relu(W1 [o_t ; o_1 ; .. ; o_M])) over the task's output o_t and M shared adapters' outputs.

o_t is the task's own mixture (its adapters weighed by the selector), o_j shared adapter j; all are read at the row's FIRST token;
hidden width D, no bias, one network per site for all tasks. ALTER (arXiv 2309.11042) and its authors' reference code.

The first token of a decoder-only model has seen nothing of the row, so there the gate reads the prompt's LAST token instead: the one
that the answer begins from, as the decoder's first token does in the reference's encoder-decoder.

Because one token is all the gate reads, adapters run on that one token for it. The weights sum to one and start near
1 / (M + 1), so stage 2 does not start at stage 1's function here (docs/concepts.md lists the gates that do).
"""

from __future__ import annotations

import torch
from torch import nn

from alter.errors import ConfigError
from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateInputs, GateShape, with_shared
from alter.nn.mixing import Weights


class OutputsGate(nn.Module):
    """W1 (D, (M + 1) O) and W2 (M + 1, D)."""

    def __init__(self, shape: GateShape, settings: GateSettings) -> None:
        super().__init__()
        if shape.role == "selector":
            raise ConfigError(
                "mta.selector.kind is outputs, but this gate weighs what a selector has mixed; use it as mta.gate.kind, "
                "and one_hot, selector, taps, task, linear or uniform as the selector"
            )
        self.num_adapters = shape.num_adapters
        self.num_shared = shape.num_shared
        self.hidden = nn.Linear((shape.num_shared + 1) * shape.output_dim, shape.dim, bias=False)
        self.out = nn.Linear(shape.dim, shape.num_shared + 1, bias=False)

    def start_from(self, weights_TN: torch.Tensor) -> None:
        """Do nothing: the task's part is the selector's mixture already, and the network starts at random."""

    def forward(self, inputs: GateInputs) -> Weights:
        """Return g_0 w_t over task adapters and g_1..g_M over shared ones, by row."""
        selected = inputs.selected
        assert selected is not None
        num_rows, num_options = inputs.x_BSD.shape[0], self.num_shared + 1
        first_B1D = inputs.key_token(inputs.x_BSD, of="x")
        options = self._options(_at_key_token(selected, inputs))
        outputs = inputs.outputs(first_B1D.repeat_interleave(num_options, dim=0), options)
        gates_BG = torch.softmax(self.out(torch.relu(self.hidden(outputs.reshape(num_rows, -1)))), dim=-1)
        of_task = gates_BG[:, :1] if selected.values.dim() == 2 else gates_BG[:, None, :1]
        task = Weights(values=selected.values * of_task, index=selected.index)
        return with_shared(task, gates_BG[:, 1:], num_adapters=self.num_adapters)

    def _options(self, selected: Weights) -> Weights:
        """Return per row the M + 1 things to look at, B (M + 1) rows: dense where the selector is, else K adapters each."""
        values_BK, index_BK = selected.values, selected.index
        num_rows, num_shared, device = values_BK.shape[0], self.num_shared, values_BK.device
        if index_BK is None:
            num_all = self.num_adapters + num_shared
            task_B1E = selected.dense(num_all).unsqueeze(1)
            shared_ME = torch.eye(num_all, dtype=values_BK.dtype, device=device)[self.num_adapters :]
            return Weights(values=torch.cat([task_B1E, shared_ME.expand(num_rows, -1, -1)], dim=1).flatten(0, 1))
        alone_K = torch.arange(values_BK.shape[1], device=device) == 0
        alone_BMK = alone_K.to(values_BK.dtype).expand(num_rows, num_shared, -1)
        shared_M1 = torch.arange(self.num_adapters, self.num_adapters + num_shared, device=device).unsqueeze(-1)
        shared_BMK = shared_M1.expand(num_rows, -1, values_BK.shape[1])
        return Weights(
            values=torch.cat([values_BK.unsqueeze(1), alone_BMK], dim=1).flatten(0, 1),
            index=torch.cat([index_BK.unsqueeze(1), shared_BMK], dim=1).flatten(0, 1),
        )


def _at_key_token(selected: Weights, inputs: GateInputs) -> Weights:
    """Return the selector's weights at the token that the gate reads, (B, K), where they differ by token."""
    values, index = selected.values, selected.index
    values = values if values.dim() == 2 else inputs.key_token(values, of="values")[:, 0]
    index = index if index is None or index.dim() == 2 else inputs.key_token(index, of="index")[:, 0]
    return Weights(values=values, index=index)


GATE = OutputsGate
