"""Stage 2 starts where stage 1 ended, wherever the gate can say what the selector said.

over: shared (task, linear)      exactly, after any selector
task, linear, selector over all  exactly, after selectors that read no input and give every adapter more than 1e-3
                                 after one_hot up to the floor of 1e-3 per adapter
                                 not after a trained linear selector: one start cannot follow an input
                                 not after a selector whose weights do not sum to one: taps that are off, a table
table                            exactly, after selectors that read no input
one_hot                          exactly after one_hot, and never else
taps                             exactly after one_hot and taps, and never else
uniform, adamix, outputs         never: they give shared adapters a part from the first step
"""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from tests.nn.equipped import NAMES, equipped, hidden, randomise, weights_of

from alter.mta_settings import ADAPTERS, GATES

SELECTORS: dict[str, dict[str, Any]] = {
    "one_hot": {"kind": "one_hot"},
    "uniform": {"kind": "uniform"},
    "adamix": {"kind": "adamix"},
    "selector": {"kind": "selector", "temperature": 0.5},
    "task": {"kind": "task"},
    "linear": {"kind": "linear"},
    "linear by token": {"kind": "linear", "granularity": "token"},
    "taps": {"kind": "taps"},
    "table": {"kind": "table"},
}
GATE_SETTINGS: dict[str, dict[str, Any]] = {
    "task over shared": {"kind": "task", "over": "shared"},
    "task over all": {"kind": "task", "over": "all"},
    "linear over shared": {"kind": "linear", "over": "shared"},
    "linear by token over shared": {"kind": "linear", "over": "shared", "granularity": "token"},
    "linear over all": {"kind": "linear", "over": "all"},
    "linear by token over all": {"kind": "linear", "over": "all", "granularity": "token"},
    "selector": {"kind": "selector", "over": "all"},
    "one_hot": {"kind": "one_hot", "over": "all"},
    "uniform": {"kind": "uniform", "over": "all"},
    "adamix": {"kind": "adamix", "over": "all"},
    "outputs": {"kind": "outputs", "over": "all"},
    "taps": {"kind": "taps", "over": "all"},
    "table": {"kind": "table", "over": "all"},
}
N = len(NAMES)
FLOOR = 1e-3

Start = Literal["exact", "floored", "differs"]


def start_of(selector: str, gate: str) -> Start:
    """Return how stage 2 starts: the table at the head of this file."""
    if gate.endswith("over shared"):
        return "exact"
    if gate in ("uniform", "adamix", "outputs"):
        return "differs"
    if gate in ("one_hot", "taps"):
        return "exact" if selector in ("one_hot", gate) else "differs"
    if selector.startswith("linear"):
        return "differs"
    if gate == "table":
        return "exact"
    if selector == "one_hot":
        return "floored"
    return "differs" if selector in ("taps", "table") else "exact"


COMBINATIONS = [(selector, gate) for selector in SELECTORS for gate in GATE_SETTINGS]


def both_stages(mta: dict[str, Any], dtype: torch.dtype = torch.float64, **more: Any) -> tuple[torch.Tensor, torch.Tensor, Any]:
    model = equipped({**mta, "num_shared": 2}, dtype=dtype, **more)
    randomise(model, "task_adapters", "selector")
    stage1 = hidden(model)
    model.start_gates()
    model.router = "gate"
    return stage1, hidden(model), model


def test_every_kind_is_in_the_table() -> None:
    assert {settings["kind"] for settings in GATE_SETTINGS.values()} == set(GATES.names())
    assert {settings["kind"] for settings in SELECTORS.values()} == set(GATES.names()) - {"outputs"}


@pytest.mark.parametrize("adapter", ADAPTERS.names())
@pytest.mark.parametrize(("selector", "gate"), COMBINATIONS)
def test_stage_two_starts_at_stage_one_where_the_gate_allows_it(adapter: str, selector: str, gate: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": SELECTORS[selector], "gate": GATE_SETTINGS[gate]}
    stage1, stage2, model = both_stages(mta, num_layers=1)
    start = start_of(selector, gate)
    if start == "exact":
        torch.testing.assert_close(stage2, stage1, rtol=0, atol=1e-10)
        return
    assert (stage2 - stage1).abs().max() > 1e-6
    if start == "floored":
        of_gate = weights_of(model)[0][..., :N]
        model.router = "selector"
        apart = (of_gate - (weights_of(model)[0][..., :N] if of_gate.dim() == 2 else weights_of(model)[0][:, None, :N])).abs()
        # own: 1 -> 1 / (1 + (N - 1) floor); others: 0 -> floor / (1 + (N - 1) floor)
        assert apart.max().item() == pytest.approx((N - 1) * FLOOR / (1 + (N - 1) * FLOOR), rel=1e-6)


@pytest.mark.parametrize("preset", ["alter", "alter-lite"])
@pytest.mark.parametrize("gate", ["task over shared", "linear over shared"])
def test_in_float32_stage_two_starts_at_stage_one_within_a_millionth(preset: Any, gate: str) -> None:
    stage1, stage2, _ = both_stages({"gate": GATE_SETTINGS[gate]}, torch.float32, preset=preset)
    torch.testing.assert_close(stage2, stage1, rtol=0, atol=2e-6)


def test_the_preset_alter_lite_starts_stage_two_at_stage_one() -> None:
    stage1, stage2, _ = both_stages({})
    torch.testing.assert_close(stage2, stage1, rtol=0, atol=1e-10)


def test_the_preset_alter_cannot_start_stage_two_at_stage_one() -> None:
    stage1, stage2, _ = both_stages({}, preset="alter")
    assert (stage2 - stage1).abs().max() > 1e-3


def test_the_papers_gate_without_shared_adapters_is_the_selector() -> None:
    model = equipped({"selector": {"kind": "selector"}, "gate": {"kind": "outputs"}, "num_shared": 0})
    randomise(model, "task_adapters", "selector", "gate")
    stage1 = hidden(model)
    model.router = "gate"
    torch.testing.assert_close(hidden(model), stage1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["task", "linear", "selector"])
def test_weights_above_the_floor_are_taken_over_as_they_are(kind: str) -> None:
    model = equipped({"selector": {"kind": "selector", "own_weight": 0.97}, "gate": {"kind": kind, "over": "all"}})
    model.start_gates()
    selected_TN = model.mtas[0].selector_weights()
    model.router = "gate"
    given = weights_of(model, task_ids=torch.tensor([0, 1, 2, 3, 0]))[0][:4, :N]
    torch.testing.assert_close(given, selected_TN, rtol=0, atol=1e-12)


@pytest.mark.parametrize("selector", ["selector", "linear"])
def test_a_gate_over_shared_adapters_follows_a_selector_that_keeps_a_few(selector: str) -> None:
    mta = {"selector": {"kind": selector, "top_k": 2}, "gate": {"kind": "task", "over": "shared"}}
    stage1, stage2, _ = both_stages(mta)
    torch.testing.assert_close(stage2, stage1, rtol=0, atol=1e-10)
