"""What an ablation leaves of a model is what the same change by hand leaves of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from tests.generative.lm import logits, tokens, trained_lm, write
from tests.generative.lm import rows_for as text_rows
from tests.nn.equipped import IDS_BS, MASK_BS, NAMES, TASKS_B, equipped, hidden, randomise, weights_of

from alter.comparing.ablate import ABLATIONS, no_task, random_weights, uniform_weights, wrong_task, zeroed_shared
from alter.model import MTAModel

OUTPUTS = {"intent": 3, "urgency": 2, "mood": 4, "score": 1}
KINDS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"kind": "lora", "r": 4}},
    "bottleneck": {"adapter": {"kind": "bottleneck", "r": 4}},
    "ffn_clone": {"adapter": {"kind": "ffn_clone"}},
}
GATES: dict[str, dict[str, Any]] = {
    "task": {"kind": "task", "over": "all"},
    "task-shared": {"kind": "task", "over": "shared"},
    "linear-sequence": {"kind": "linear", "over": "all"},
    "linear-token": {"kind": "linear", "over": "shared", "granularity": "token"},
    "outputs": {"kind": "outputs"},
    "uniform": {"kind": "uniform"},
}
every_kind = pytest.mark.parametrize("kind", KINDS)
every_gate = pytest.mark.parametrize("gate", GATES)
NOTHING = {"atol": 1e-11, "rtol": 0.0}


def trained(mta: Mapping[str, Any], *, router: Any = "gate", tasks: Any = NAMES) -> MTAModel:
    """Return a model in float64 whose every part has changed, as training would change it."""
    model = equipped({"selector": {"kind": "selector", "temperature": 0.5}, **mta}, router=router, tasks=tasks)
    return randomise(model, "task_adapters", "shared_adapters", "selector", "gate", "heads")


def of(kind: str, gate: str, **more: Any) -> MTAModel:
    return trained({**KINDS[kind], "gate": GATES[gate], "num_shared": 2}, **more)


def table(weights_BE: torch.Tensor) -> Callable[[Any], Any]:
    """Return a router that gives each row these weights, whatever it reads."""

    class Given(torch.nn.Module):
        def forward(self, inputs: Any) -> Any:
            from alter.nn.mixing import Weights

            return Weights(values=weights_BE)

    return Given()


# ---- shared adapters switched off ----------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize("gate", [gate for gate in GATES if gate != "outputs"])
def test_zeroed_shared_adapters_are_as_good_as_none(kind: str, gate: str) -> None:
    """By hand: put back what a shared adapter is before training, which changes nothing, whatever its weight."""
    model = of(kind, gate)
    before = hidden(model)
    by_hand = copy.deepcopy(model)
    fresh = equipped({**KINDS[kind], "gate": GATES[gate], "num_shared": 2, "selector": {"kind": "selector", "temperature": 0.5}})
    start = fresh.parameter_groups()["shared_adapters"]
    with torch.no_grad():
        for name, parameter in by_hand.parameter_groups()["shared_adapters"].items():
            parameter.copy_(start[name])
    zeroed_shared(model, seed=0)
    torch.testing.assert_close(hidden(model), hidden(by_hand), **NOTHING)
    assert not torch.allclose(hidden(model), before)


@every_kind
def test_the_paper_s_gate_keeps_the_weight_that_it_gave_the_task_s_own_part(kind: str) -> None:
    """Its weights depend on what shared adapters say, so by hand they are taken down first and put in place without them."""
    model = trained({**KINDS[kind], "gate": GATES["outputs"], "sites": "last"})
    [weights_BE] = weights_of(model).values()
    assert torch.allclose(weights_BE.sum(-1), torch.ones(len(TASKS_B), dtype=torch.float64))
    kept_BE = weights_BE.clone()
    kept_BE[:, len(NAMES) :] = 0
    by_hand = copy.deepcopy(model)
    by_hand.mtas[0].gate = table(kept_BE)
    zeroed_shared(model, seed=0)
    torch.testing.assert_close(hidden(model), hidden(by_hand), **NOTHING)
    [found_BE] = weights_of(model).values()
    assert torch.equal(found_BE, kept_BE)


@every_gate
def test_task_adapters_keep_their_weights(gate: str) -> None:
    model = trained({**KINDS["lora"], "gate": GATES[gate], "sites": "last"})
    [before] = weights_of(model).values()
    zeroed_shared(model, seed=0)
    [after] = weights_of(model).values()
    assert torch.equal(after[..., : len(NAMES)], before[..., : len(NAMES)])
    assert not after[..., len(NAMES) :].any()


# ---- other weights -------------------------------------------------------------------------------------------------


@every_kind
@every_gate
@pytest.mark.parametrize("ablation", [uniform_weights, random_weights])
def test_given_weights_sum_to_one_and_are_what_each_site_uses(kind: str, gate: str, ablation: Callable[..., None]) -> None:
    model = of(kind, gate)
    ablation(model, seed=0)
    found = weights_of(model)
    assert list(found) == model.site_positions
    for weights_BE in found.values():
        assert weights_BE.shape == (len(TASKS_B), len(NAMES) + 2)
        torch.testing.assert_close(weights_BE.sum(-1), torch.ones(len(TASKS_B), dtype=torch.float64), atol=1e-6, rtol=0)
        assert (weights_BE > 0).all()
        if ablation is uniform_weights:
            assert torch.allclose(weights_BE, torch.full_like(weights_BE, 1 / (len(NAMES) + 2)))
    by_hand = copy.deepcopy(model)
    for mta, weights_BE in zip(by_hand.mtas, found.values(), strict=True):
        mta.gate = table(weights_BE)
    torch.testing.assert_close(hidden(model), hidden(by_hand), **NOTHING)


@pytest.mark.parametrize("ablation", [uniform_weights, random_weights])
def test_where_the_selector_is_at_work_its_weights_are_the_ones_to_change(ablation: Callable[..., None]) -> None:
    model = of("lora", "task", router="selector")
    ablation(model, seed=0)
    for weights_BE in weights_of(model).values():
        torch.testing.assert_close(weights_BE[:, : len(NAMES)].sum(-1), torch.ones(5, dtype=torch.float64), atol=1e-6, rtol=0)
        assert not weights_BE[:, len(NAMES) :].any()


def test_random_weights_are_a_task_s_own_at_each_site_and_follow_from_the_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        model = of("lora", "task")
        random_weights(model, seed=seed)
        found.append(weights_of(model))
    first, again, other = found
    assert all(torch.equal(first[site], again[site]) for site in first)
    assert not torch.allclose(first[0], other[0])
    assert not torch.allclose(first[0], first[1]), "sites are drawn apart"
    rows = first[0]
    assert torch.equal(rows[1], rows[4]), "rows 1 and 4 are of one task"
    assert not torch.allclose(rows[0], rows[1])


def test_random_weights_are_even_over_all_that_sum_to_one() -> None:
    model = trained({**KINDS["lora"], "num_shared": 0, "gate": {"kind": "task", "over": "all"}, "sites": "last"})
    draws = []
    for seed in range(300):
        random_weights(model, seed=seed)
        draws.append(model.mtas[0].gate.weights_TE)
    drawn = torch.stack(draws).flatten(0, 1)
    assert torch.allclose(drawn.mean(0), torch.full((4,), 0.25), atol=0.02)
    # Of Dirichlet(1, 1, 1, 1) each weight has the variance 3 / (16 * 5).
    assert torch.allclose(drawn.var(0), torch.full((4,), 3 / 80), atol=0.006)


# ---- another task's name -------------------------------------------------------------------------------------------


@every_kind
@every_gate
@pytest.mark.parametrize("router", ["selector", "gate"])
def test_the_wrong_task_is_the_next_one_for_everything_but_the_heads(kind: str, gate: str, router: Any) -> None:
    model = of(kind, gate, router=router, tasks=OUTPUTS)
    before = hidden(model)
    shifted_B = (TASKS_B + 1) % len(NAMES)
    with torch.no_grad():
        expected = hidden(model, task_ids=shifted_B)
        assert model.heads is not None
        logits_BC = model.heads(expected, TASKS_B, MASK_BS)
        wrong_task(model, seed=0)
        found = model(IDS_BS, MASK_BS, task_ids=TASKS_B)
    assert torch.equal(found.last_hidden_state, expected)
    assert torch.equal(found.logits, logits_BC)
    if gate != "uniform" or router == "selector":
        assert not torch.allclose(expected, before)


# ---- no task's name ------------------------------------------------------------------------------------------------


@every_kind
@every_gate
@pytest.mark.parametrize("router", ["selector", "gate"])
def test_without_a_name_the_weights_are_the_mean_of_what_each_name_would_give(kind: str, gate: str, router: Any) -> None:
    # Of the last site alone: what it reads does not depend on any weights.
    settings = {**KINDS[kind], "gate": GATES[gate], "num_shared": 2, "sites": "last"}
    model = trained(settings, router=router, tasks=OUTPUTS)
    [site] = weights_of(model)
    each = torch.stack([weights_of(model, task_ids=torch.full_like(TASKS_B, task))[site] for task in range(len(NAMES))])
    no_task(model, seed=0)
    torch.testing.assert_close(weights_of(model)[site], each.mean(0), **NOTHING)
    assert gate == "uniform" or not torch.equal(each[0], each[1])


# ---- any ablation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ABLATIONS)
@every_gate
def test_an_ablated_model_is_copied_and_evaluated_as_any_other(name: str, gate: str) -> None:
    model = of("lora", gate, tasks=OUTPUTS)
    intact = copy.deepcopy(model)
    before = hidden(intact)
    ABLATIONS[name](model, seed=3)
    found = hidden(model)
    again = copy.deepcopy(model)
    model.train()
    model.eval()
    assert torch.equal(hidden(model), found)
    with torch.no_grad():
        for mta in model.mtas:
            for parameter in mta.parameters():
                parameter.zero_()
    assert torch.equal(hidden(again), found), "a copy has parameters of its own"
    assert torch.equal(hidden(intact), before), "and what it was copied from is as it was"
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("name", ABLATIONS)
@pytest.mark.parametrize("base", ["t5", "gpt2"])
@pytest.mark.parametrize("gate", ["task", "linear-sequence", "outputs"])
def test_models_that_write_are_ablated_too_and_write_as_they_read(name: str, base: str, gate: str) -> None:
    model = trained_lm(base, {"adapter": {"r": 4}, "gate": GATES[gate], "selector": {"kind": "selector"}})
    before = logits(model)
    ABLATIONS[name](model, seed=0)
    real = tokens(model.kind)
    after = logits(model)
    assert not torch.allclose(after[real], before[real])
    out = write(model, text_rows(model.kind))
    assert torch.isfinite(torch.stack(out.logits)).all()
