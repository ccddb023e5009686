"""Poly: each row is computed with its own task's weights, whatever stands beside it, and as peft's own model computes it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import peft
import pytest
import torch
from tests.generative.lm import PACKABLE, batch_for, dtype_of, logits, near, rows_for, run, teacher_forced, tokens, write
from tests.nn.equipped import IDS_BS, MASK_BS, TASKS_B
from tests.peers.given import METHODS, base, borrowed, changed, outputs

from alter.errors import ConfigError, ModelError
from alter.model import MTAModel
from alter.peers.settings import method_of

# peft 0.21 still asks transformers 5.23 for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

BASES = ("bert", "distilbert", "t5", "encoder_decoder", "llama", "opt", "bloom")
every_poly = pytest.mark.parametrize("method", ["poly", "mhr"])


@every_poly
@pytest.mark.parametrize("name", BASES)
def test_tasks_mixed_in_a_batch_give_what_each_gives_alone(method: str, name: str) -> None:
    model = changed(name, METHODS[method])
    mixed = outputs(model)
    for row, alone in enumerate(lone(model)):
        how = near(name) if model.kind != "encoder" else {"rtol": 0, "atol": 1e-9}
        torch.testing.assert_close(mixed[row, tokens_of(model)[row]], alone, **how)
    assert not torch.allclose(outputs_as(model, 0), outputs_as(model, 1)), "the task's name decides"


def tokens_of(model: MTAModel) -> torch.Tensor:
    return MASK_BS.bool() if model.kind == "encoder" else tokens(model.kind)


def lone(model: MTAModel) -> list[torch.Tensor]:
    """Return what a model makes of each row in a batch of its own."""
    found = []
    for row in range(len(TASKS_B)):
        if model.kind == "encoder":
            num = int(MASK_BS[row].sum())
            with torch.no_grad():
                states = model(IDS_BS[row : row + 1, :num], MASK_BS[row : row + 1, :num], task_ids=TASKS_B[row : row + 1])
            found.append(states.last_hidden_state[0])
        else:
            batch = batch_for(model.kind, rows_for(model.kind)[row : row + 1])
            found.append(logits(model, batch)[0])
    return found


def outputs_as(model: MTAModel, task: int) -> torch.Tensor:
    """Return what a model makes of all rows under one task's name."""
    if model.kind == "encoder":
        with torch.no_grad():
            states: torch.Tensor = model(IDS_BS, MASK_BS, task_ids=torch.full_like(TASKS_B, task)).last_hidden_state
        return states
    return logits(model, batch_for(model.kind, [replace(row, task_id=task) for row in rows_for(model.kind)]))


@every_poly
@pytest.mark.parametrize("name", ["bert", "t5", "llama"])
def test_pefts_own_model_computes_the_same(method: str, name: str) -> None:
    mine = changed(name, METHODS[method], dtype=torch.float32)
    assert mine.injected is not None
    stock = base(name, dtype=torch.float32)
    paths = sorted(mine.injected.config.target_modules)
    config = method_of(METHODS[method], backbone=stock, paths=paths, num_tasks=len(mine.task_names))
    theirs = peft.get_peft_model(stock, config).eval()
    [(_, tensors)] = mine.injected.folders(mine.backbone).values()
    peft.set_peft_model_state_dict(theirs, tensors)
    poly: Any = theirs.base_model
    with torch.no_grad():
        if mine.kind == "encoder":
            found = poly(input_ids=IDS_BS, attention_mask=MASK_BS, task_ids=TASKS_B).last_hidden_state
        else:
            batch = batch_for(mine.kind)
            given: dict[str, Any] = {**batch.inputs, "use_cache": False}
            if mine.kind == "encoder-decoder":
                given["labels"] = batch.labels_BT
            else:
                given["position_ids"] = (batch.inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
            found = poly(**given, task_ids=batch.task_ids_B).logits
    where = tokens_of(mine)
    torch.testing.assert_close(outputs(mine)[where], found[where], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["t5", "llama", "opt"])
@pytest.mark.parametrize("beams", [1, 3])
def test_what_is_written_token_by_token_is_what_training_sees(name: str, beams: int) -> None:
    model = changed(name, METHODS["poly"])
    rows = rows_for(model.kind)
    out = write(model, rows, num_beams=beams)
    begin = max(len(row.inputs["input_ids"]) for row in rows) if model.kind == "decoder" else 1
    answers = out.sequences[:, begin : begin + 4].tolist()
    forced = teacher_forced(model, rows, answers)
    if beams == 1:
        torch.testing.assert_close(torch.stack(out.logits, dim=1), forced.float(), rtol=0, atol=1e-5)
    alone = [write(model, [row], num_beams=beams).sequences[0, -4:].tolist() for row in rows]
    assert [answer[-4:] for answer in answers] == alone


@pytest.mark.parametrize("name", [name for name in PACKABLE if name != "gpt2"])
def test_packed_rows_keep_their_tasks(name: str) -> None:
    model = changed(name, METHODS["poly"])
    plain, packed = run(model, batch_for("decoder")), run(model, batch_for("decoder", pack_to=20))
    assert plain.losses is not None
    assert packed.losses is not None
    torch.testing.assert_close(packed.losses, plain.losses, **near(name))


def test_gradient_checkpointing_knows_the_tasks() -> None:
    found = []
    for checkpointing in (False, True):
        model = changed("bert", METHODS["poly"])
        trained = model.set_trainable(["task_adapters", "selector"])
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        torch.manual_seed(0)  # Poly draws its weights in training
        model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state.square().sum().backward()
        found.append({key: p.grad for key, p in trained.items()})
    assert dtype_of("llama") == torch.float64
    for key, gradient in found[0].items():
        torch.testing.assert_close(found[1][key], gradient, rtol=1e-9, atol=1e-9)


def test_weights_by_task_are_those_of_the_paper() -> None:
    """Sigmoid of the task's logits, scaled to sum to one; skills' matrices are mixed, then applied, over the rank."""
    model = changed("bert", METHODS["poly"])
    module: Any = model.backbone.get_submodule("encoder.layer.0.intermediate.dense")
    seen: dict[str, torch.Tensor] = {}

    def keep(_: object, args: tuple[torch.Tensor], out: torch.Tensor) -> None:
        seen.update(x=args[0], y=out)

    handle = module.register_forward_hook(keep)
    outputs(model)
    handle.remove()
    logits_TS = module.poly_router["default"].module_logits
    weights_TS = logits_TS.sigmoid() / logits_TS.sigmoid().sum(-1, keepdim=True)
    for row, task in enumerate(TASKS_B.tolist()):
        a_DR = torch.einsum("s,sdr->dr", weights_TS[task], module.poly_lora_A["default"][0])
        b_RO = torch.einsum("s,sro->ro", weights_TS[task], module.poly_lora_B["default"][0])
        x_SD = seen["x"][row]
        wanted = module.base_layer(x_SD) + x_SD @ a_DR @ b_RO / 4
        torch.testing.assert_close(seen["y"][row], wanted, rtol=0, atol=1e-9)


def test_without_task_ids_the_model_says_so() -> None:
    model = borrowed("bert", METHODS["poly"])
    with pytest.raises(ModelError, match="the model was called without task ids"):
        model.backbone(IDS_BS, MASK_BS)


def test_splits_must_divide_what_the_modules_read_and_write() -> None:
    with pytest.raises(
        ConfigError, match=r"peft\.n_splits is 3, but encoder\.layer\.0\.intermediate\.dense reads 32 and writes 64"
    ):
        borrowed("bert", {"peft_type": "POLY", "n_splits": 3})
