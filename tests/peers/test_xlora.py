"""X-LoRA: as peft's own model computes it where that works, on bases that it does not load, and trained by its gate alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from tests.generative.lm import batch_for, rows_for, run, teacher_forced, write
from tests.nn.equipped import IDS_BS, MASK_BS, TASKS_B, hidden, randomise
from tests.peers.given import base, borrowed, changed, outputs, write_loras

from alter.errors import CheckpointError, ConfigError
from alter.model import MTAModel
from alter.peers import xlora

# peft 0.21 still asks transformers 5.23 for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def block(folder: Path, name: str, **settings: Any) -> dict[str, Any]:
    return {"peft_type": "XLORA", "adapters": write_loras(folder / name, name), **settings}


@pytest.mark.parametrize("settings", [{}, {"layerwise_scalings": True, "top_k_lora": 2}, {"xlora_depth": 2, "xlora_size": 8}])
def test_pefts_own_model_computes_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    given = block(tmp_path, "llama", **settings)
    mine = randomise(borrowed("llama", given, dtype=torch.float32), "gate", scale=0.2)
    assert mine.injected is not None
    stock = base("llama", dtype=torch.float32)
    stock.config.use_cache = False
    names = {str(position): folder for position, folder in enumerate(given["adapters"].values())}  # peft's model wants these
    config = peft.XLoraConfig(task_type="CAUSAL_LM", hidden_size=32, **{**settings, "adapters": names})
    theirs = peft.get_peft_model(stock, config).eval()
    gate: Any = theirs.base_model.internal_xlora_classifier
    gate.load_state_dict(mine.backbone.get_submodule(xlora.CHILD).state_dict())
    batch = batch_for("decoder")
    positions = (batch.inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        found = theirs(**batch.inputs, position_ids=positions, use_cache=False).logits
    where = batch.inputs["attention_mask"].bool()
    torch.testing.assert_close(outputs(mine)[where], found[where], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "deberta_v2", "modernbert", "gpt2", "opt", "llama", "gemma3"])
def test_the_gates_weights_are_those_of_the_papers_two_passes(name: str, tmp_path: Path) -> None:
    """A first pass of the base alone, whose last states the gate reads; then sum_n s_n B_n A_n x at every module."""
    model = changed(name, block(tmp_path, name))
    gate: Any = model.backbone.get_submodule(xlora.CHILD)
    seen: list[torch.Tensor] = []
    gate.register_forward_hook(lambda _, args, out: seen.append(out))
    module: Any = next(one for one in model.backbone.modules() if isinstance(one, peft.tuners.lora.Linear))
    reads: list[tuple[torch.Tensor, torch.Tensor]] = []
    module.register_forward_hook(lambda _, args, out: reads.append((args[0], out)))
    outputs(model)
    [scalings_BSLN] = seen
    x, y = reads[-1]  # the first is the pass that the gate reads
    assert len(reads) == 2
    torch.testing.assert_close(scalings_BSLN.sum(-1), torch.ones_like(scalings_BSLN[..., 0]))
    weights = scalings_BSLN[:, :, 0]
    wanted = module.base_layer(x) + sum(
        module.lora_B[one](module.lora_A[one](x * weights[..., [position]])) * module.scaling[one]
        for position, one in enumerate(module.lora_A)
    )
    torch.testing.assert_close(y.reshape(wanted.shape), wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        reads[0][1].reshape(wanted.shape), module.base_layer(reads[0][0]).reshape(wanted.shape), rtol=0, atol=1e-5
    )


def test_the_gate_alone_is_trained_and_no_task_is_asked_for(tmp_path: Path) -> None:
    model = changed("bert", block(tmp_path, "bert"))
    torch.testing.assert_close(hidden(model), hidden(model, task_ids=TASKS_B.flip(0)), rtol=0, atol=0)
    groups = model.parameter_groups()
    assert {key.split(".")[1] for key in groups["gate"]} == {xlora.CHILD}
    assert all("lora_" in key for key in groups["task_adapters"])
    trained = model.set_trainable(["gate", "heads"])
    model.train()
    for _ in range(2):  # peft's own model would thaw its LoRAs in the first pass
        model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state.square().sum().backward()
    assert {key for key, p in model.named_parameters() if p.grad is not None} == set(trained)


def test_a_copy_has_a_gate_and_weights_of_its_own(tmp_path: Path) -> None:
    model = changed("bert", block(tmp_path, "bert"))
    model.set_trainable(["gate"])
    before = outputs(model)
    model(IDS_BS, MASK_BS, task_ids=TASKS_B)  # with a graph, of which nothing may be left
    other = copy.deepcopy(model)
    torch.testing.assert_close(outputs(other), before, rtol=0, atol=0)
    randomise(other, "gate", seed=7, scale=3.0)
    assert (outputs(other) - before).abs().max() > 1e-4
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_it_can_be_switched_off_and_taken_out(name: str, tmp_path: Path) -> None:
    model, stock = changed(name, block(tmp_path / "a", name)), borrowed(name, block(tmp_path / "b", name))
    own = stock.unequip()
    plain = outputs(stock)
    with model.disable_adapter():
        torch.testing.assert_close(outputs(model), plain, rtol=0, atol=1e-9)
    assert (outputs(model) - plain).abs().max() > 1e-4
    assert [key for key, _ in own.named_parameters()] == [key for key, _ in base(name).named_parameters()]
    assert not [hook for hook in own._forward_pre_hooks.values() if hook is xlora._weigh]


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("beams", [1, 2])
def test_what_is_written_token_by_token_is_what_training_sees(name: str, beams: int, tmp_path: Path) -> None:
    model = changed(name, block(tmp_path, name))
    rows = rows_for(model.kind)
    out = write(model, rows, num_beams=beams)
    begin = max(len(row.inputs["input_ids"]) for row in rows)
    answers = out.sequences[:, begin:].tolist()
    if beams == 1:
        torch.testing.assert_close(
            torch.stack(out.logits, dim=1), teacher_forced(model, rows, answers).float(), rtol=0, atol=1e-5
        )
    alone = [write(model, [row], num_beams=beams).sequences[0, -4:].tolist() for row in rows]
    assert [answer[-4:] for answer in answers] == alone


def test_packed_rows_have_the_same_losses(tmp_path: Path) -> None:
    model = changed("llama", block(tmp_path, "llama"))
    plain, packed = run(model, batch_for("decoder")), run(model, batch_for("decoder", pack_to=20))
    assert plain.losses is not None
    assert packed.losses is not None
    torch.testing.assert_close(packed.losses, plain.losses, rtol=0, atol=1e-9)


def test_what_it_cannot_do_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two stacks; choose an encoder or a decoder-only base model"):
        borrowed("t5", block(tmp_path, "t5"))
    model: MTAModel = borrowed("bert", block(tmp_path, "bert"))
    with pytest.raises(ConfigError, match=r"set train\.gradient_checkpointing: false"):
        model.gradient_checkpointing_enable()


def test_loras_of_another_base_or_layout_are_refused(tmp_path: Path) -> None:
    given = block(tmp_path, "bert")
    with pytest.raises(ConfigError, match=r"peft cannot put LORA into a LlamaForCausalLM"):
        borrowed("llama", given)
    one = Path(next(iter(given["adapters"].values())))
    (one / "adapter_model.safetensors").write_bytes((tmp_path / "bert/lora-1/adapter_model.safetensors").read_bytes()[:100])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        borrowed("bert", given)
    (one / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(CheckpointError, match="no LoRA of peft; give the folder of one"):
        borrowed("bert", given)
