"""What gates by row read where text is written: the prompt or the encoder's output, never the answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from tests.generative.lm import (
    ANSWERS,
    BY_ROW,
    GATES,
    SELECTORS,
    base_lm,
    batch_for,
    equipped_lm,
    every_decoder,
    every_encoder_decoder,
    every_variant,
    logits,
    near,
    rows_for,
    trained_lm,
    write,
)
from tests.nn.formula import one_adapter
from tests.tiny import EOS, GENERATIVE
from transformers.modeling_outputs import BaseModelOutput

from alter.data.batch import Batch
from alter.model import MTAModel
from alter.nn.mixing import Bank
from alter.nn.mta import MTA

OTHER_ANSWERS = [[99, 98, 97, 96, 95, 94, 93, EOS], [101, EOS], [102, 103, EOS], [104, EOS], [105, 106, 107, EOS]]


def weights_of(model: MTAModel, batch: Batch | None = None) -> dict[int, torch.Tensor]:
    """Return the gate weights of every site."""
    with model.record_weights() as recorded:
        logits(model, batch)
    return dict(recorded)


@contextmanager
def site_inputs(model: MTAModel) -> Iterator[list[torch.Tensor]]:
    """Within this context, collect what the FFN of each site reads, as rows."""
    seen: list[torch.Tensor] = []

    def note(_: object, args: tuple[torch.Tensor, ...], __: object) -> None:
        x = args[0].detach()
        seen.append(x if x.dim() == 3 else x.unflatten(0, (len(ANSWERS), -1)))

    handles = [ffn.inputs[0].register_forward_hook(note) for ffn in model.ffns]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def assert_same(found: dict[int, torch.Tensor], expected: dict[int, torch.Tensor], name: str) -> None:
    assert found.keys() == expected.keys()
    for site, weights in expected.items():
        torch.testing.assert_close(found[site], weights, **near(name))


# ---- the answer is not read ------------------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("gate", BY_ROW)
def test_weights_by_row_do_not_depend_on_the_answer(name: str, gate: str) -> None:
    model = trained_lm(name, GATES[gate])
    rows = rows_for(model.kind)
    expected = weights_of(model, batch_for(model.kind, rows))
    assert all(weights.shape == (len(rows), 5) for weights in expected.values())
    other = batch_for(model.kind, rows_for(model.kind, answers=OTHER_ANSWERS))
    assert_same(weights_of(model, other), expected, name)
    # What is read while an answer is written is what was read in training.
    with model.record_weights() as recorded:
        write(model, rows, num_tokens=2)
    assert_same(dict(recorded), expected, name)
    # The prompt, however, is read: these two rows are of one task. (A softmax may be near its end for both.)
    assert all(not torch.equal(weights[0], weights[4]) for weights in expected.values())


@every_decoder
def test_a_selector_by_row_does_not_depend_on_the_answer(name: str) -> None:
    model = trained_lm(name, {"selector": SELECTORS["linear_sequence"]}, router="selector")
    expected = weights_of(model)
    other = batch_for(model.kind, rows_for(model.kind, answers=OTHER_ANSWERS))
    assert_same(weights_of(model, other), expected, name)


@every_decoder
def test_gates_by_token_do_read_the_answer(name: str) -> None:
    model = trained_lm(name, GATES["linear_token"])
    batch = batch_for(model.kind)
    for weights in weights_of(model, batch).values():
        assert weights.shape == (*batch.inputs["input_ids"].shape, 5)
        at_answer = weights[0, len(rows_for(model.kind)[0].inputs["input_ids"])]
        assert (at_answer - weights[0, 0]).abs().max() > 1e-4


# ---- plain formulas --------------------------------------------------------------------------------------------------


def plain_mean(states_SD: torch.Tensor, length: int) -> torch.Tensor:
    return torch.stack([states_SD[token] for token in range(length)]).sum(0) / length


def plain_linear_gate(gate: Any, z_D: torch.Tensor, task: int) -> torch.Tensor:
    """Return [softmax(W_a z + log w_t) ; sigmoid(W_s z + v_t)] for one row."""
    scores = torch.exp(gate.weight_ND @ z_D + gate.logits_TN[task])
    shared = 1 / (1 + torch.exp(-(gate.shared_weight_MD @ z_D + gate.shared_logits_TM[task])))
    return torch.cat([scores / scores.sum(), shared]).detach()


@every_encoder_decoder
def test_a_decoders_gate_by_row_reads_the_encoders_mean_output(name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"])
    rows, batch = rows_for(model.kind), batch_for(model.kind)
    with torch.no_grad():
        read_BSD = model.encode(batch.inputs["input_ids"], batch.inputs["attention_mask"], task_ids=batch.task_ids_B)
    with site_inputs(model) as seen:
        recorded = weights_of(model)
    for mta, x_BSD in zip(model.mtas, seen, strict=True):
        states_BSD = read_BSD if mta.is_decoder else x_BSD  # the encoder's own gates read what their FFN reads
        for position, row in enumerate(rows):
            z_D = plain_mean(states_BSD[position], len(row.inputs["input_ids"]))
            expected = plain_linear_gate(mta.gate, z_D, row.task_id)
            torch.testing.assert_close(recorded[mta.position][position], expected, **near(name))


@every_encoder_decoder
@pytest.mark.parametrize("gate", BY_ROW)
def test_rows_that_were_read_before_get_the_same_answers(name: str, gate: str) -> None:
    model = trained_lm(name, GATES[gate])
    batch = batch_for(model.kind)
    expected = weights_of(model)
    with torch.no_grad(), model.record_weights() as recorded:
        read_BSD = model.encode(batch.inputs["input_ids"], batch.inputs["attention_mask"], task_ids=batch.task_ids_B)
        found = model(
            attention_mask=batch.inputs["attention_mask"],
            encoder_outputs=BaseModelOutput(last_hidden_state=read_BSD),
            task_ids=batch.task_ids_B,
            labels=batch.labels_BT,
        )
    assert_same(dict(recorded), expected, name)
    torch.testing.assert_close(found.logits, logits(model), rtol=0, atol=1e-10)


@every_decoder
def test_a_gate_by_row_reads_the_prompts_mean(name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"])
    rows = rows_for(model.kind)
    with site_inputs(model) as seen:
        recorded = weights_of(model)
    for mta, x_BSD in zip(model.mtas, seen, strict=True):
        for position, row in enumerate(rows):
            z_D = plain_mean(x_BSD[position], len(row.inputs["input_ids"]))
            expected = plain_linear_gate(mta.gate, z_D, row.task_id)
            torch.testing.assert_close(recorded[mta.position][position], expected, **near(name))


def plain_outputs_gate(mta: MTA, x_D: torch.Tensor, task: int) -> torch.Tensor:
    """Return g_0 w_t and g_1..g_M of softmax(W2 relu(W1 [o_t ; o_1 ; .. ; o_M])) for one row, one adapter at a time."""
    bank_of: Any = mta.bank._bank
    bank: Bank = bank_of(0) if mta.num_adapters and type(mta.bank).__name__ == "LoRABank" else bank_of()
    selected_N = mta.selector_weights()[task]
    of_task = torch.stack([weight * one_adapter(x_D, bank, adapter) for adapter, weight in enumerate(selected_N)]).sum(0)
    of_shared = [one_adapter(x_D, bank, mta.num_adapters + shared) for shared in range(mta.num_shared)]
    gate: Any = mta.gate
    scores = torch.exp(gate.out.weight @ torch.relu(gate.hidden.weight @ torch.cat([of_task, *of_shared])))
    weights = scores / scores.sum()
    return torch.cat([weights[0] * selected_N, weights[1:]]).detach()


@every_variant
@pytest.mark.parametrize("adapter", ["lora", "ffn_clone"])
def test_the_outputs_gate_reads_the_decoders_first_or_the_prompts_last_token(name: str, adapter: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "sites": "last", "selector": SELECTORS["selector"], **GATES["outputs"]}
    model = trained_lm(name, mta)
    rows = rows_for(model.kind)
    with site_inputs(model) as seen:
        recorded = weights_of(model)
    for site, x_BSD in zip(model.mtas, seen, strict=True):
        for position, row in enumerate(rows):
            token = 0 if GENERATIVE[name].kind == "encoder-decoder" else len(row.inputs["input_ids"]) - 1
            expected = plain_outputs_gate(site, x_BSD[position, token], row.task_id)
            torch.testing.assert_close(recorded[site.position][position], expected, **near(name))


def test_the_width_of_a_decoders_gate_is_the_encoders() -> None:
    model = equipped_lm("encoder_decoder", GATES["linear_sequence"])
    config = base_lm("encoder_decoder").config
    assert config.encoder.hidden_size != config.decoder.hidden_size
    gates: list[Any] = [mta.gate for mta in model.mtas]
    assert {gate.weight_ND.shape[1] for gate in gates} == {config.encoder.hidden_size}
    by_token: list[Any] = [mta.gate for mta in equipped_lm("encoder_decoder", GATES["linear_token"]).mtas]
    assert [gate.weight_ND.shape[1] for gate in by_token] == [config.encoder.hidden_size] * 2 + [config.decoder.hidden_size] * 2
