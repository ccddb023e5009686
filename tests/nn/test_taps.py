"""TAPS: scores that switch a task's own adapters on and off, and a table of weights by task."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from tests.nn.equipped import IDS_BS, MASK_BS, NAMES, TASKS_B, base_model, equipped, hidden, randomise, weights_of

from alter.errors import ConfigError
from alter.gatemap import specific_sites
from alter.model import MTAModel, equip
from alter.mta_settings import ADAPTERS

N = len(NAMES)
LORA = {"kind": "lora", "r": 4, "lora_alpha": 12.0}
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.names())


def taps(adapter: str = "lora", *, router: Any = "selector", **settings: Any) -> MTAModel:
    """Return a model whose adapters have trained, all of them switched on."""
    mta = {
        "adapter": {"kind": adapter, "r": 4},
        "selector": {"kind": "taps", **settings},
        "gate": {"kind": "task", "over": "shared"},
    }
    return randomise(equipped(mta, router=router), "task_adapters", "shared_adapters")


def put(model: MTAModel, scores_LT: list[list[float]]) -> None:
    """Set the scores of every site."""
    with torch.no_grad():
        for mta, scores_T in zip(model.mtas, scores_LT, strict=True):
            selector: Any = mta.selector
            for score, value in zip(selector.scores, scores_T, strict=True):
                score.fill_(value)


@every_adapter
def test_all_switched_on_is_one_hot(adapter: str) -> None:
    one_hot = equipped({"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "one_hot"}})
    randomise(one_hot, "task_adapters", "shared_adapters")
    assert torch.equal(hidden(taps(adapter)), hidden(one_hot))


@every_adapter
def test_all_switched_off_is_the_base(adapter: str) -> None:
    model = taps(adapter)
    put(model, [[0.0] * N] * 2)
    with torch.no_grad():
        base = base_model()(IDS_BS, MASK_BS).last_hidden_state
    torch.testing.assert_close(hidden(model), base, rtol=0, atol=1e-12)


@pytest.mark.parametrize("num_owned", [1, 2])
def test_a_weight_is_one_from_the_threshold_on(num_owned: int) -> None:
    model = taps(threshold=0.3, start=0.3, num_owned=num_owned)
    put(model, [[0.3, 0.29, 0.0, 1.0], [0.1, 0.5, 0.31, 0.2]])
    for site, used in ((0, [True, False, False, True]), (1, [False, True, True, False])):
        weights_TN = model.mtas[site].selector_weights()
        assert (weights_TN > 0).sum(-1).tolist() == [num_owned if on else 0 for on in used]
        assert weights_TN.sum(-1).tolist() == [float(on) for on in used]
        assert [weights_TN[task, task].item() > 0 for task in range(N)] == used


@every_adapter
@pytest.mark.parametrize("score", [0.05, 0.4])
def test_a_score_has_the_gradient_of_its_weight_on_and_off(adapter: str, score: float) -> None:
    model = taps(adapter)
    put(model, [[score] * N] * 2)
    model.set_trainable(["task_adapters", "selector"])
    probe = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state * probe).sum().backward()
    found = [[float(s.grad) for s in mta.selector.scores] for mta in model.mtas]  # type: ignore[union-attr, arg-type]

    # The same weights as plain numbers: a table.
    table = taps(adapter)
    other = equipped({"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "table"}})
    other.load_state_dict(table.state_dict(), strict=False)
    with torch.no_grad():
        for mta in other.mtas:
            mta.selector.weights_TE.mul_(float(score >= 0.1))  # type: ignore[union-attr, operator]
    other.set_trainable(["selector"])
    (other(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state * probe).sum().backward()
    expected = [mta.selector.weights_TE.grad.diagonal().tolist() for mta in other.mtas]  # type: ignore[union-attr]
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-10)
        assert all(abs(value) > 1e-6 for value in mine)
    moving = [p.grad is not None and bool(p.grad.any()) for p in model.parameter_groups()["task_adapters"].values()]
    assert all(moving) if score >= 0.1 else not any(moving)  # an adapter that is off stands still; its score does not


def test_after_a_step_scores_are_clipped_to_0_and_1() -> None:
    model = taps()
    put(model, [[-0.2, 0.4, 1.5, 1.0], [0.0, 0.1, 2.0, -1.0]])
    model.after_step()
    scores: list[Any] = [mta.selector for mta in model.mtas]
    assert [selector.scores_T.tolist() for selector in scores] == [[0.0, 0.4, 1.0, 1.0], [0.0, 0.1, 1.0, 0.0]]
    equipped({"selector": {"kind": "selector"}}).after_step()  # other kinds have nothing to put in order


def test_a_gate_of_taps_switches_on_what_stage_one_uses() -> None:
    mta = {"selector": {"kind": "taps"}, "gate": {"kind": "taps", "threshold": 0.5, "start": 0.9}, "num_shared": 0}
    model = equipped(mta)
    put(model, [[0.0, 0.2, 0.05, 0.9], [0.2] * N])
    model.start_gates()
    gates: list[Any] = [mta.gate for mta in model.mtas]
    found = [gate.scores_T.tolist() for gate in gates]
    assert found == [pytest.approx([0.0, 0.9, 0.0, 0.9]), pytest.approx([0.9] * N)]


def test_the_share_of_sites_that_a_task_has_for_itself() -> None:
    model = taps(router="gate")
    put(model, [[0.0, 0.2, 0.05, 0.9], [0.2, 0.2, 0.0, 0.2]])
    weights = [torch.stack([weights[row] for weights in weights_of(model).values()]).tolist() for row in (0, 1, 2, 3)]
    assert specific_sites(weights, num_adapters=N) == [0.5, 1.0, 0.0, 1.0]
    assert specific_sites([[], []], num_adapters=2) == [0.0, 0.0]


@pytest.mark.parametrize("off", [False, True])
def test_a_task_folds_into_one_lora_where_it_is_on(off: bool) -> None:
    model = taps()
    put(model, [[0.0 if off else 0.5] * N, [0.5] * N])
    merged = copy.deepcopy(base_model())
    for ffn, mta in zip(model.ffns, model.mtas, strict=True):
        bank: Any = mta.bank
        weight = mta.selector_weights()[2, 2]
        for position, path in enumerate(ffn.paths):
            change = weight * bank.scale * bank.adapters[2].lora_B[position] @ bank.adapters[2].lora_A[position]
            with torch.no_grad():
                merged.get_submodule(path).weight.add_(change)  # type: ignore[operator, union-attr]
    with torch.no_grad():
        states = merged(IDS_BS, MASK_BS).last_hidden_state
    torch.testing.assert_close(states, hidden(model, task_ids=torch.full((len(IDS_BS),), 2)), rtol=0, atol=1e-10)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"selector": {"kind": "one_hot", "threshold": 0.2}},
            r"mta.selector.threshold is 0.2, but kind one_hot does not read it.*taps",
        ),
        ({"gate": {"kind": "linear", "start": 0.2}}, r"mta.gate.start is 0.2, but kind linear does not read it"),
        ({"selector": {"kind": "taps", "start": 0.05}}, r"start is 0.05, below its threshold 0.1.*raise start to at least 0.1"),
        ({"selector": {"kind": "taps", "top_k": 1}}, r"top_k is 1, but kind taps does not read it"),
        ({"selector": {"kind": "taps", "temperature": 0.5}}, r"temperature is 0.5, but kind taps does not read it"),
        ({"gate": {"kind": "taps"}}, r"mta.gate.kind taps gives shared adapters no weight, but mta.num_shared is 2"),
        ({"selector": {"kind": "taps", "num_owned": 4}}, r"num_owned is 4, but there are 4 task adapters; lower it to at most 3"),
    ],
)
def test_settings_that_taps_or_others_do_not_read_are_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        equip(base_model(), tasks=NAMES, mta=settings)


def test_a_table_is_its_numbers() -> None:
    model = equipped({"selector": {"kind": "selector"}, "gate": {"kind": "table"}}, router="gate")
    model.start_gates()
    gate: Any = model.mtas[0].gate
    torch.testing.assert_close(gate.weights_TE[:, :N], model.mtas[0].selector_weights(), rtol=0, atol=0)
    assert torch.equal(gate.weights_TE[:, N:], torch.full((N, 2), 0.5, dtype=torch.float64))
    randomise(model, "gate")
    assert torch.equal(weights_of(model)[0], gate.weights_TE[TASKS_B])
