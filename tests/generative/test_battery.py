"""What every model that writes text must do once it is equipped: start as the stock model, learn, be saved, copied and unequipped."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.generative.lm import (
    CHOSEN,
    GATES,
    OVERFLOWS,
    SELECTORS,
    base_lm,
    both_presets,
    equipped_lm,
    every_pair,
    every_variant,
    logits,
    near,
    rows_for,
    run,
    stock_logits,
    tokens,
    trained_lm,
    write,
)
from tests.nn.equipped import randomise
from tests.tiny import GENERATIVE, save_tiny_lm

from alter import __version__
from alter.backbones._find import sites_of
from alter.backbones._load import base_fingerprint, load_base
from alter.checkpoint import load_model, save_model
from alter.model import MTAModel
from alter.model_config import AlterConfig, BaseInfo
from alter.mta_settings import ADAPTERS
from alter.nn.mta import MTA
from alter.nn.routing import Router
from alter.presets import PRESETS
from alter.recipe import Trained
from alter.tasks.spec import TaskSpec

ROUTERS: tuple[Router, ...] = ("selector", "gate")
SPECS = [
    TaskSpec(name="mood", labels=["good", "bad"]),
    TaskSpec(name="say", kind="generation"),
    TaskSpec(name="topic", labels=["bank", "card"], decoding="generate"),
]


# ---- where MTAs sit, and what they leave alone -----------------------------------------------------------------------


def positions(sites: Any, *, of_two: bool) -> list[int]:
    """Return the sites that are meant, of stacks of three layers."""
    meant = {"all": [0, 1, 2], "last": [2], "every-2": [0, 2]}
    if isinstance(sites, list):
        return sorted(site % (6 if of_two else 3) for site in sites)
    return [*meant[sites], *(3 + site for site in meant[sites])] if of_two else meant[sites]


@every_variant
def test_mtas_sit_where_they_should(name: str) -> None:
    for sites in ("all", "last", "every-2", [1, -1]):
        stock = base_lm(name, num_layers=3)
        before = stock.state_dict()
        owners = [site.owner for site in sites_of(stock)]
        wanted = positions(sites, of_two=GENERATIVE[name].kind == "encoder-decoder")
        model = equipped_lm(name, {"sites": sites, "adapter": {"r": 2}}, num_layers=3)
        assert [path for path, module in model.backbone.named_modules() if isinstance(module, MTA)] == [
            f"{owners[position]}.mta" for position in wanted
        ]
        with model.record_weights() as recorded:
            logits(model)
        assert sorted(recorded) == wanted  # each of them works, and no other
        after = model.backbone.state_dict()
        assert all(torch.equal(after[key], value) for key, value in before.items())
        assert all(".mta." in key for key in after.keys() - before.keys())
        assert after.keys() > before.keys()


@every_variant
@both_presets
def test_an_equipped_model_starts_as_the_stock_model(name: str, preset: str) -> None:
    counts = tokens(GENERATIVE[name].kind)
    expected = stock_logits(base_lm(name))[counts]
    model = equipped_lm(name, preset=preset)
    for router in ROUTERS:
        model.router = router
        found = logits(model)[counts]
        if preset == "alter-lite":
            assert torch.equal(found, expected)
        else:
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    randomise(model, "task_adapters", "shared_adapters", "selector", "gate")
    for router in ROUTERS:
        model.router = router
        assert (logits(model)[counts] - expected).abs().max() > 1e-3
    with model.disable_adapter():
        assert torch.equal(logits(model)[counts], expected)


# ---- learning --------------------------------------------------------------------------------------------------------


def learn(model: MTAModel, trains: list[Trained]) -> tuple[float, dict[str, torch.Tensor | None]]:
    """Return the loss, and the gradient of every parameter that trains."""
    trained = model.set_trainable(trains)
    model.zero_grad()
    loss = run(model).loss
    assert loss is not None
    loss.backward()
    return loss.item(), {path: parameter.grad for path, parameter in trained.items()}


@every_variant
@both_presets
def test_each_stage_of_a_preset_learns(name: str, preset: str) -> None:
    model = equipped_lm(name, preset=preset, dtype=torch.float32).train()
    for stage in ("stage1", "stage2"):
        settings = PRESETS[preset]["stages"][stage]
        model.router = settings["router"]
        if stage == "stage2":
            model.start_gates()
        optimizer = torch.optim.AdamW(model.set_trainable(settings["trains"]).values(), lr=1e-3)
        before, _ = learn(model, settings["trains"])
        optimizer.step()
        # Only now does every part get a gradient: LoRA's A begins before a B of zero, and equal copies leave a gate without one.
        after, gradients = learn(model, settings["trains"])
        assert after < before
        for path, gradient in gradients.items():
            if path in unread(name):
                assert gradient is None, path
                continue
            assert gradient is not None, path
            assert gradient.isfinite().all(), path
            assert ".mta." not in path or gradient.any(), path


def unread(name: str) -> set[str]:
    """Return the stock model's parameters that no logit depends on."""
    # BERT's pooler reads the encoder's first state for a classification head, which a decoder does not have.
    if name == "encoder_decoder":
        return {f"backbone.encoder.pooler.dense.{kind}" for kind in ("weight", "bias")}
    # Sines and cosines by formula, never learned.
    if name in ("marian", "pegasus"):
        return {f"backbone.model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")}
    return set()


def assert_all_learn(model: MTAModel, trains: list[Trained]) -> None:
    for path, gradient in learn(model, trains)[1].items():
        assert gradient is not None, path
        assert gradient.isfinite().all(), path
        assert gradient.any(), path


@pytest.mark.parametrize(
    ("adapter", "name"),
    [
        *(("lora", name) for name in CHOSEN),
        *((adapter, name) for adapter in ADAPTERS.names() if adapter != "lora" for name in ("t5_v1_1", "gpt2")),
    ],
)
@pytest.mark.parametrize("gate", ["task", "linear_sequence", "linear_token", "outputs", "uniform", "one_hot"])
def test_every_gate_learns_with_every_adapter(adapter: str, name: str, gate: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "sites": "last", **GATES[gate]}
    assert_all_learn(trained_lm(name, mta, dtype=torch.float32), ["task_adapters", "shared_adapters", "gate"])


@pytest.mark.parametrize("name", CHOSEN)
@pytest.mark.parametrize("selector", SELECTORS)
def test_every_selector_learns(name: str, selector: str) -> None:
    mta = {"adapter": {"r": 4}, "selector": SELECTORS[selector]}
    model = trained_lm(name, mta, router="selector", dtype=torch.float32)
    if selector == "taps":  # an adapter that is switched off does not learn
        with torch.no_grad():
            for score in model.parameter_groups()["selector"].values():
                score.fill_(0.5)
    assert_all_learn(model, ["task_adapters", "selector"])
    model.router = "gate"  # the preset's gate keeps the selector's weights: they can go on learning
    assert_all_learn(model, ["task_adapters", "shared_adapters", "selector", "gate"])


# ---- saving ----------------------------------------------------------------------------------------------------------


@every_pair
def test_a_model_directory_comes_back(preset: str, name: str, tmp_path: Path) -> None:
    base_folder = save_tiny_lm(tmp_path / "base", name)
    base, _ = load_base(str(base_folder))
    info = BaseInfo(
        name=str(base_folder), model_type=base.config.model_type, fingerprint=base_fingerprint(base), trained=preset == "alter"
    )
    model = trained_lm(name, preset=preset, dtype=torch.float32)
    if preset == "alter":
        randomise(model, "backbone", scale=0.01)
    config = AlterConfig(
        alter_version=__version__,
        name="demo",
        base=info,
        preset=preset,
        router=model.router,
        max_length=32,
        mta=model.settings,
        heads=model.head_settings,
        tasks=SPECS,
    )
    save_model(model, config, tmp_path / "model", card="# a card\n")
    loaded = load_model(tmp_path / "model")
    assert loaded.codec.kind == GENERATIVE[name].kind
    assert torch.equal(logits(loaded.model), logits(model))
    rows = rows_for(model.kind)
    assert torch.equal(write(loaded.model, rows).sequences, write(model, rows).sequences)


# ---- checkpointing, copies, unequipping ------------------------------------------------------------------------------


@every_pair
def test_gradient_checkpointing_gives_the_same_loss_and_gradients(preset: str, name: str) -> None:
    trains: list[Trained] = ["task_adapters", "shared_adapters", "gate", "backbone"]
    mta = GATES["linear_sequence"] if preset == "alter-lite" else None  # in a decoder it reads what another stack computed
    model = trained_lm(name, mta, preset=preset).train()
    loss, expected = learn(model, trains)
    model.gradient_checkpointing_enable()
    calls: list[int] = []
    for ffn in model.ffns:
        ffn.inputs[0].register_forward_hook(lambda *_: calls.append(1))
    again, found = learn(model, trains)
    assert len(calls) == 2 * len(model.mtas)  # so it did recompute
    assert again == pytest.approx(loss, abs=1e-12 if name not in OVERFLOWS else 1e-5)
    for path, gradient in expected.items():
        torch.testing.assert_close(found[path], gradient, **near(name), msg=path)
    assert model.state.route is None
    assert model.state.encoder_BD is None


@every_pair
def test_a_deep_copy_has_its_own_adapters(preset: str, name: str) -> None:
    model = trained_lm(name, preset=preset)
    before = logits(model)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin), before)
    randomise(twin, "task_adapters", "shared_adapters", "gate", seed=9)
    assert torch.equal(logits(model), before)
    assert (logits(twin) - before).abs().max() > 1e-3
    assert all(mta.state is twin.state for mta in twin.mtas)
    assert twin.state is not model.state


def leftovers(model: torch.nn.Module) -> dict[str, Any]:
    """Return what an MTA could leave behind: hooks, attributes and children, by module."""
    return {
        path: (
            len(module._forward_hooks),
            len(module._forward_pre_hooks),
            len(module._forward_pre_hooks_with_kwargs),
            len(module._forward_hooks_with_kwargs),
            sorted(module.__dict__),
            sorted(module._modules),
        )
        for path, module in model.named_modules()
    }


@every_pair
def test_unequip_gives_back_the_stock_model_bit_for_bit(preset: str, name: str) -> None:
    stock = base_lm(name)
    expected, traces = stock_logits(stock), leftovers(stock)
    model = trained_lm(name, preset=preset)
    logits(model)
    model.generate(torch.tensor([[131, 20, 3]]), task_ids=torch.tensor([1]), max_new_tokens=2, pad_token_id=0)
    given_back = model.unequip()
    assert type(given_back) is type(stock)
    assert torch.equal(stock_logits(given_back), expected)
    assert leftovers(given_back) == traces
    before, after = stock.state_dict(), given_back.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
