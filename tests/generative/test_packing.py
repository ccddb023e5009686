"""Several rows in one sequence: the same losses and gradients as rows padded one by one, and nothing leaks between them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.generative.lm import GATES, NAMES, PACKABLE, batch_for, dtype_of, equipped_lm, near, rows_for, run, trained_lm
from tests.tiny import PAD, seeded
from transformers import AutoModelForCausalLM, MistralConfig

from alter.data.batch import Batch
from alter.errors import ModelError
from alter.model import MTAModel, equip
from alter.nn.packing import pack_rows

LENGTH = 20
# Some families compute their norms in float32 whatever the model's type: gradients come through them rounded.
GRADIENTS = {torch.float64: {"rtol": 1e-6, "atol": 1e-7}, torch.float32: {"rtol": 1e-3, "atol": 1e-3}}
every_packable = pytest.mark.parametrize("name", PACKABLE)


def packed() -> Batch:
    return batch_for("decoder", pack_to=LENGTH)


def losses_and_gradients(model: MTAModel, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    trained = model.set_trainable(["task_adapters", "shared_adapters", "selector", "gate", "backbone"])
    model.zero_grad()
    output = run(model, batch)
    assert output.losses is not None
    assert output.token_losses is not None
    (output.losses * torch.arange(1, len(output.losses) + 1)).sum().backward()  # each row's gradient counts differently
    gradients = {path: parameter.grad for path, parameter in trained.items() if parameter.grad is not None}
    return output.losses.detach(), output.token_losses.detach(), gradients


def assert_packing_changes_nothing(model: MTAModel, name: str) -> None:
    losses_B, losses_BT, gradients = losses_and_gradients(model, batch_for("decoder"))
    found_B, found_BT, found = losses_and_gradients(model, packed())
    torch.testing.assert_close(found_B, losses_B, **near(name))
    torch.testing.assert_close(found_BT, losses_BT, **near(name))
    assert found.keys() == gradients.keys()
    for path, gradient in gradients.items():
        how = GRADIENTS[dtype_of(name)]
        torch.testing.assert_close(found[path], gradient, **how, msg=lambda text, path=path: f"{path}: {text}")


# ---- the batch -------------------------------------------------------------------------------------------------------


def test_rows_of_different_tasks_share_a_sequence() -> None:
    batch = packed()
    assert batch.packing is not None
    rows = [set(row.tolist()) - {-1} for row in batch.packing.row_RP]
    assert len(rows) < len(batch.task_ids_B)
    assert any(len({int(batch.task_ids_B[row]) for row in row_set}) > 1 for row_set in rows)


@pytest.mark.parametrize("lengths", [[5], [3, 3, 3], [1, 9, 2, 8, 3, 7, 4, 6, 5], [4, 12, 4], [2] * 17])
@pytest.mark.parametrize("longest", [9, 10, 16])
def test_every_token_lies_in_one_place(lengths: list[int], longest: int) -> None:
    packing = pack_rows(lengths, longest)
    num_sequences, num_tokens = packing.row_RP.shape
    assert num_tokens <= max(longest, *lengths, 0)  # a row that is too long has a sequence of its own
    for sequence in packing.row_RP.tolist():
        used = [row for row in sequence if row >= 0]
        assert len(used) <= longest or len(set(used)) == 1
        assert sequence == used + [-1] * (num_tokens - len(used))
    places = [int(packing.index_BS[row, token]) for row, length in enumerate(lengths) for token in range(length)]
    assert len(set(places)) == len(places) == sum(lengths) == int((packing.row_RP >= 0).sum())
    assert num_sequences <= len(lengths)
    # There and back again; positions count within each row.
    rows_BS = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    for row, length in enumerate(lengths):
        rows_BS[row, :length] = 100 * row + torch.arange(length)
    there_RP = packing.pack(rows_BS)
    real_RP = packing.row_RP >= 0
    assert torch.equal(there_RP[real_RP], (100 * packing.row_RP + packing.position_ids())[real_RP])
    back_BS = packing.unpack(there_RP)
    for row, length in enumerate(lengths):
        assert torch.equal(back_BS[row, :length], rows_BS[row, :length])


@pytest.mark.parametrize("window", [None, 1, 2, 9])
def test_the_mask_lets_a_token_see_what_stands_before_it_in_its_row(window: int | None) -> None:
    packing = pack_rows([2, 5, 3, 1], 8)
    mask_RPP = packing.attention_mask(torch.float64, window=window)[:, 0]
    for sequence, rows in enumerate(packing.row_RP.tolist()):
        for at, row in enumerate(rows):
            for other, other_row in enumerate(rows):
                seen = row == other_row and other <= at and (window is None or at - other < window)
                assert (mask_RPP[sequence, at, other] == 0) == seen


# ---- the same numbers ------------------------------------------------------------------------------------------------


@every_packable
@pytest.mark.parametrize("preset", ["alter", "alter-lite"])
def test_packing_changes_no_loss_and_no_gradient(name: str, preset: str) -> None:
    assert_packing_changes_nothing(trained_lm(name, preset=preset), name)


def test_a_sliding_window_of_all_layers_slides_over_packed_rows() -> None:
    sizes = {"vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    stock = seeded(AutoModelForCausalLM, MistralConfig(**sizes, num_key_value_heads=2, sliding_window=3, pad_token_id=PAD))
    assert_packing_changes_nothing(equip(stock.double(), tasks=NAMES), "llama")


def test_layers_that_would_mix_packed_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = equipped_lm("llama")
    monkeypatch.setattr(model.backbone.config, "layer_types", ["full_attention", "linear_attention"], raising=False)
    with pytest.raises(
        ModelError, match=r"'llama' model: its layers of the kind linear_attention would mix them; set train.packing"
    ):
        run(model, packed())


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
@pytest.mark.parametrize("gate", GATES)
def test_every_gate_means_the_same_packed(name: str, gate: str) -> None:
    assert_packing_changes_nothing(trained_lm(name, GATES[gate]), name)


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt"])
def test_packing_and_gradient_checkpointing_go_together(name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"]).train()
    model.gradient_checkpointing_enable()
    assert_packing_changes_nothing(model, name)


@every_packable
def test_nothing_leaks_between_rows(name: str) -> None:
    model = trained_lm(name, GATES["linear_sequence"])
    rows = rows_for("decoder")
    before = run(model, packed()).losses
    assert before is not None
    for changed in range(len(rows)):
        ids = [199 - token for token in rows[changed].inputs["input_ids"]]
        other = [replace(row, inputs={"input_ids": ids}) if at == changed else row for at, row in enumerate(rows)]
        after = run(model, batch_for("decoder", other, pack_to=LENGTH)).losses
        assert after is not None
        same = torch.arange(len(rows)) != changed
        torch.testing.assert_close(after[same], before[same], **near(name))
        assert (after[changed] - before[changed]).abs() > 1e-6


def test_packed_rows_work_under_autocast() -> None:
    model = equipped_lm("llama", dtype=torch.float32)
    expected = run(model, batch_for("decoder")).losses
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(model, packed()).losses
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)


def test_a_model_without_positions_cannot_pack() -> None:
    model = equipped_lm("bloom")
    with pytest.raises(ModelError, match=r"rows cannot be packed for a BloomForCausalLM: .*set train.packing: false"):
        run(model, packed())
