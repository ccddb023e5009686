"""Methods of peft inside base models of every kind: the base's function at the start, groups, copies, and out again."""

from __future__ import annotations

import copy

import pytest
import torch
from tests.generative.lm import DECODERS, ENCODER_DECODERS, run
from tests.nn.equipped import IDS_BS, MASK_BS, TASKS_B, randomise
from tests.peers.given import METHODS, NAMES, base, borrowed, changed, outputs
from tests.tiny import FAMILY_NAMES

from alter.checkpoint import _adapter_tensors
from alter.config import parse
from alter.model import MTAModel
from alter.mta_settings import AdapterSettings, MTASettings
from alter.nn.gate_shape import owned_adapters
from alter.recipe import LearningRates
from alter.training.optim import build_optimizer

BASES = ("bert", "t5", "llama")
CONV1D = ("gpt2",)
"""Bases whose projections are transformers' Conv1D, which few methods take."""
every_method = pytest.mark.parametrize("method", METHODS)
every_kind = pytest.mark.parametrize("name", BASES)


@every_method
@every_kind
def test_a_method_starts_as_the_base_and_changes_it_when_it_is_trained(method: str, name: str) -> None:
    start, stock = borrowed(name, METHODS[method]), borrowed(name, METHODS[method])
    stock.unequip()
    torch.testing.assert_close(outputs(start), outputs(stock), rtol=0, atol=1e-9)
    after = changed(name, METHODS[method])
    assert (outputs(after) - outputs(stock)).abs().max() > 1e-3


@pytest.mark.parametrize("name", [*FAMILY_NAMES, *ENCODER_DECODERS, *DECODERS])
def test_lora_and_poly_go_into_every_family(name: str) -> None:
    for method in ("lora", "poly") if name not in CONV1D else ("lora",):
        model = changed(name, METHODS[method])
        found = outputs(model)
        with model.disable_adapter():
            assert (outputs(model) - found).abs().max() > 1e-4


@every_method
@every_kind
def test_a_method_can_be_switched_off_and_taken_out(method: str, name: str) -> None:
    model, stock = changed(name, METHODS[method]), borrowed(name, METHODS[method])
    own = base(name)
    before = outputs(model)
    plain = outputs(stock)
    with model.disable_adapter():
        torch.testing.assert_close(outputs(model), plain, rtol=0, atol=1e-9)
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=0)
    out = model.unequip()
    assert [name for name, _ in out.named_parameters()] == [name for name, _ in own.named_parameters()]
    assert all(
        torch.equal(mine, theirs) for mine, theirs in zip(out.state_dict().values(), own.state_dict().values(), strict=True)
    )
    assert not hasattr(out, "peft_config")
    again = MTAModel(out, task_names=list(NAMES), settings=model.settings, peft=METHODS["lora"])  # nothing is left in its way
    assert again.injected is not None


@every_method
@every_kind
def test_groups_hold_every_parameter_once_and_the_methods_apart_from_the_bases(method: str, name: str) -> None:
    model = borrowed(name, METHODS[method])
    groups = model.parameter_groups()
    everything = [id(parameter) for members in groups.values() for parameter in members.values()]
    assert sorted(everything) == sorted(id(parameter) for parameter in model.parameters())
    assert sum(p.numel() for p in groups["backbone"].values()) == sum(p.numel() for p in base(name).parameters())
    assert all(dict(model.named_parameters())[key] is p for members in groups.values() for key, p in members.items())
    assert bool(groups["selector"]) == (method in ("poly", "mhr")), "Poly's weights by task are what a selector is"
    trainable = model.set_trainable(["task_adapters", "selector", "heads"])
    assert {key for key, p in model.named_parameters() if p.requires_grad} == set(trainable)
    assert not trainable.keys() & groups["backbone"].keys()


@every_method
@every_kind
def test_a_copy_has_parameters_and_routing_of_its_own(method: str, name: str) -> None:
    model = changed(name, METHODS[method])
    before = outputs(model)
    other = copy.deepcopy(model)
    torch.testing.assert_close(outputs(other), before, rtol=0, atol=0)
    randomise(other, "task_adapters", "selector", seed=5)
    assert (outputs(other) - before).abs().max() > 1e-4
    torch.testing.assert_close(outputs(model), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["bert", "modernbert", "t5", "t5_v1_1", "bart", "llama", "gpt2", "opt"])
def test_pefts_lora_computes_and_learns_what_our_one_adapter_does(name: str) -> None:
    """The same starting matrices: the same function, and the same losses and matrices after steps of the same optimizer."""
    theirs = borrowed(name, {"peft_type": "LORA", "r": 4, "lora_alpha": 6})
    ours = one_adapter(theirs, name)
    same = tensors_of(theirs)
    with torch.no_grad():
        for key, parameter in _adapter_tensors(ours, 0).items():
            parameter.copy_(same[key])
    torch.testing.assert_close(outputs(theirs), outputs(ours), rtol=0, atol=1e-9)
    losses = [descend(model) for model in (theirs, ours)]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-8)
    assert losses[0][-1] < losses[0][0]
    after = tensors_of(theirs)
    for key, parameter in _adapter_tensors(ours, 0).items():
        torch.testing.assert_close(after[key], parameter, rtol=0, atol=1e-8)


def tensors_of(model: MTAModel) -> dict[str, torch.Tensor]:
    """Return the method's tensors by the names of peft's files."""
    assert model.injected is not None
    [(_, tensors)] = model.injected.folders(model.backbone).values()
    return tensors


def one_adapter(like: MTAModel, name: str) -> MTAModel:
    """Return our own model of one LoRA for all tasks."""
    mta = {"adapter": {"kind": "lora", "r": 4, "lora_alpha": 6.0}, "num_adapters": 1, "num_shared": 0}
    hot = {"kind": "one_hot"}
    settings = parse(MTASettings, {**mta, "selector": hot, "gate": hot}, where="test")
    assert isinstance(settings.adapter, AdapterSettings)
    assert owned_adapters(len(like.task_names), 1, 1).tolist() == [[0]] * len(like.task_names)
    return MTAModel(base(name), task_names=like.task_names, settings=settings).to(next(like.parameters()).dtype).eval()


def descend(model: MTAModel) -> torch.Tensor:
    """Take some optimizer steps towards other outputs; return the losses."""
    model.set_trainable(["task_adapters"])
    optimizer = build_optimizer(model.parameter_groups(), LearningRates(adapters=0.05), weight_decay=0.01)
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses)


def loss_of(model: MTAModel) -> torch.Tensor:
    if model.kind != "encoder":
        loss = run(model).loss
    else:
        states = model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state
        wanted = torch.linspace(-1, 1, states.numel(), dtype=states.dtype).view_as(states)
        loss = ((states - wanted.sin()) ** 2).mean()
    assert loss is not None
    return loss
