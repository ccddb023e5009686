"""The battery of adapters and gates: every kind builds, starts where it should, learns, and weighs as its formula says."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.nn.equipped import IDS_BS, MASK_BS, NAMES, TASKS_B, base_model, equipped, hidden, randomise, site_inputs, weights_of
from torch import nn

from alter.errors import ConfigError
from alter.mta_settings import ADAPTERS, GATES
from alter.nn.gate_shape import keep_top, owned_adapters
from alter.nn.mixing import Weights
from alter.nn.tokens import mean_over_tokens

N, M = len(NAMES), 2
NOT_SELECTORS = ("outputs",)
SELECTORS = [kind for kind in GATES.names() if kind not in NOT_SELECTORS]
ROLES = [("selector", kind) for kind in SELECTORS] + [("gate", kind) for kind in GATES.names()]
# token granularity makes a difference to the kinds that read their input by granularity
BY_TOKEN = ("linear",)
VARIANTS = [(*role, "sequence") for role in ROLES] + [(*role, "token") for role in ROLES if role[1] in BY_TOKEN]
# kinds that leave shared adapters out when they are gates
WITHOUT_SHARED = ("one_hot", "selector", "taps")
# kinds whose weights need not sum to one once they have trained
FREE = ("table", "taps")

every_adapter = pytest.mark.parametrize("adapter", ADAPTERS.names())
every_variant = pytest.mark.parametrize(("router", "kind", "granularity"), VARIANTS)
every_role = pytest.mark.parametrize(("router", "kind"), ROLES)
both_granularities = pytest.mark.parametrize("granularity", ["sequence", "token"])


def settings(adapter: str = "lora", *, router: Any = "selector", kind: str = "one_hot", **more: Any) -> dict[str, Any]:
    """Return an MTA in which `kind` is what weighs under `router`."""
    more = {"over": "all", **more}
    selector = {"kind": kind, **more} if router == "selector" else {"kind": "selector"}
    gate = {"kind": kind, **more} if router == "gate" else {"kind": "task"}
    return {"adapter": {"kind": adapter, "r": 4}, "num_shared": M, "selector": selector, "gate": gate}


def softmax(logits: list[float]) -> torch.Tensor:
    powers = [math.exp(logit) for logit in logits]
    return torch.tensor([power / sum(powers) for power in powers], dtype=torch.float64)


# ---- every adapter kind under every selector and gate kind ----------------------------------------------------------


@every_adapter
@every_variant
def test_an_equipped_model_starts_as_the_base_model(adapter: str, router: Any, kind: str, granularity: str) -> None:
    model = equipped(settings(adapter, router=router, kind=kind, granularity=granularity), router=router, dtype=torch.float32)
    with torch.no_grad():
        expected = base_model(dtype=torch.float32)(IDS_BS, MASK_BS).last_hidden_state
    if adapter == "ffn_clone":
        torch.testing.assert_close(hidden(model), expected, rtol=0, atol=1e-6)
    else:
        assert torch.equal(hidden(model), expected)


@every_adapter
@every_role
def test_trained_adapters_change_what_the_model_says(adapter: str, router: Any, kind: str) -> None:
    model = equipped(settings(adapter, router=router, kind=kind), router=router, num_layers=1)
    before = hidden(model)
    after = hidden(randomise(model, "task_adapters"))
    assert (after - before).abs().amax(dim=(1, 2)).min() > 1e-3  # in every row


@every_adapter
@every_role
def test_gradients_reach_all_that_weighs_and_is_weighed_and_nothing_else(adapter: str, router: Any, kind: str) -> None:
    model = randomise(equipped(settings(adapter, router=router, kind=kind), router=router), "task_adapters", "shared_adapters")
    groups = model.parameter_groups()
    model.set_trainable(["task_adapters", "shared_adapters", "selector", "gate"])
    # A loss that no layer norm makes constant
    probe = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    (model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state * probe).sum().backward()
    reached = {
        group: [name for name, p in groups[group].items() if p.grad is not None and p.grad.abs().max() > 0]
        for group in ("task_adapters", "shared_adapters", "selector", "gate")
    }
    uses_shared = router == "gate" and kind not in WITHOUT_SHARED
    # A gate that re-weighs all adapters has no use for the selector; `outputs` builds on it.
    expected = {
        "task_adapters": list(groups["task_adapters"]),
        "shared_adapters": list(groups["shared_adapters"]) if uses_shared else [],
        "selector": list(groups["selector"]) if router == "selector" or kind == "outputs" else [],
        "gate": list(groups["gate"]) if router == "gate" else [],
    }
    assert reached == expected


@every_adapter
@every_role
@pytest.mark.parametrize("num_shared", [0, 3])
def test_any_number_of_shared_adapters_works(adapter: str, router: Any, kind: str, num_shared: int) -> None:
    mta = {**settings(adapter, router=router, kind=kind), "num_shared": num_shared}
    model = randomise(equipped(mta, router=router, num_layers=1), "task_adapters", "shared_adapters", "gate")
    for weights_BE in weights_of(model).values():
        assert weights_BE.shape == (len(TASKS_B), N + num_shared)
        free = router == "gate" and kind in FREE
        if router == "selector" or kind in WITHOUT_SHARED:
            assert torch.equal(weights_BE[:, N:], torch.zeros(len(TASKS_B), num_shared, dtype=torch.float64))
        elif not free:
            assert (weights_BE[:, N:] > 0).all()
        if not free:
            used = weights_BE if kind in ("outputs", "uniform", "adamix") else weights_BE[:, :N]
            torch.testing.assert_close(used.sum(-1), torch.ones(len(TASKS_B), dtype=torch.float64), rtol=0, atol=1e-12)


@every_adapter
@every_role
@pytest.mark.parametrize("num_adapters", [1, 6])
def test_any_number_of_task_adapters_works(adapter: str, router: Any, kind: str, num_adapters: int) -> None:
    model = equipped({**settings(adapter, router=router, kind=kind), "num_adapters": num_adapters}, router=router, num_layers=1)
    randomise(model, "task_adapters", "shared_adapters", "gate")
    assert torch.isfinite(hidden(model)).all()
    assert model.mtas[0].selector_weights().shape == (N, num_adapters)


@pytest.mark.parametrize("adapter", ADAPTERS.names())
@every_variant
@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_changes_neither_weights_nor_outputs(adapter: str, router: Any, kind: str, granularity: str, side: str) -> None:
    model = equipped(settings(adapter, router=router, kind=kind, granularity=granularity), router=router)
    randomise(model, "task_adapters", "shared_adapters", "selector", "gate")
    alone_S, task_B = IDS_BS[1, :5], TASKS_B[1:2]
    widths = (0, 4) if side == "right" else (4, 0)
    padded_BS = torch.nn.functional.pad(alone_S, widths)[None]
    mask_BS = (padded_BS != 0).long()
    given = {"task_ids": task_B, "position_ids": (mask_BS.cumsum(1) - 1).clamp_min(0)}
    real = slice(0, 5) if side == "right" else slice(4, 9)
    with model.record_weights() as recorded:
        padded = hidden(model, padded_BS, mask_BS, **given)[:, real]
        of_padded = dict(recorded)
        for mask in (torch.ones(1, 5, dtype=torch.int64), None):
            torch.testing.assert_close(padded, hidden(model, alone_S[None], mask, task_ids=task_B), rtol=0, atol=1e-10)
            for position, weights in recorded.items():
                of_real = of_padded[position] if weights.dim() == 2 else of_padded[position][:, real]
                torch.testing.assert_close(of_real, weights, rtol=0, atol=1e-10)


@pytest.mark.parametrize("family", ["bert", "modernbert"])
@pytest.mark.parametrize("kind", GATES.names())
def test_copies_of_any_form_of_ffn_start_as_the_base(family: str, kind: str) -> None:
    model = equipped(settings("ffn_clone", router="gate", kind=kind), router="gate", family=family)
    with torch.no_grad():
        expected = base_model(family)(IDS_BS, MASK_BS).last_hidden_state
    torch.testing.assert_close(hidden(model), expected, rtol=0, atol=1e-10)


@every_adapter
@every_role
def test_autocast_runs_and_gives_nearly_the_same(adapter: str, router: Any, kind: str) -> None:
    model = equipped(settings(adapter, router=router, kind=kind), router=router, dtype=torch.float32)
    randomise(model, "task_adapters", "shared_adapters", scale=0.05)
    expected = hidden(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = hidden(model)
    torch.testing.assert_close(y.float(), expected, rtol=0, atol=0.15)


# ---- what each kind says ---------------------------------------------------------------------------------------------


def test_one_hot_gives_each_task_its_own_adapter() -> None:
    assert torch.equal(equipped(settings()).mtas[0].selector_weights(), torch.eye(N, dtype=torch.float64))


def test_one_hot_shares_the_weight_among_owned_adapters() -> None:
    weights_TN = equipped(settings(num_owned=2)).mtas[0].selector_weights()
    assert weights_TN.tolist() == [[0.5, 0.5, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0.5, 0.5], [0.5, 0, 0, 0.5]]


def test_with_fewer_adapters_than_tasks_owners_wrap_around() -> None:
    weights_TN = equipped({**settings(), "num_adapters": 3}).mtas[0].selector_weights()
    assert weights_TN.argmax(-1).tolist() == [0, 1, 2, 0]
    assert owned_adapters(4, 3, 2).tolist() == [[0, 1], [1, 2], [2, 0], [0, 1]]


def test_a_task_owns_at_most_all_adapters_but_one() -> None:
    assert owned_adapters(2, 2, 5).tolist() == [[0], [1]]
    assert owned_adapters(3, 3, 3).tolist() == [[0, 1], [1, 2], [2, 0]]
    assert owned_adapters(3, 1, 2).tolist() == [[0], [0], [0]]


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("num_owned", [1, 2])
def test_a_selector_gives_its_owned_adapters_the_weight_asked_for(temperature: float, num_owned: int) -> None:
    mta = settings(kind="selector", own_weight=0.9, temperature=temperature, num_owned=num_owned)
    weights_TN = equipped(mta).mtas[0].selector_weights()
    for task in range(N):
        owned = [(task + step) % N for step in range(num_owned)]
        others = [adapter for adapter in range(N) if adapter not in owned]
        assert weights_TN[task, owned].tolist() == pytest.approx([0.9 / num_owned] * num_owned, abs=1e-6)
        assert weights_TN[task, others].tolist() == pytest.approx([0.1 / len(others)] * len(others), abs=1e-6)


def test_a_selector_of_one_adapter_gives_it_all_the_weight() -> None:
    weights_TN = equipped({**settings(kind="selector"), "num_adapters": 1}).mtas[0].selector_weights()
    assert torch.equal(weights_TN, torch.ones(N, 1, dtype=torch.float64))


def test_the_preset_alter_starts_its_selector_as_the_reference_does() -> None:
    weights_TN = equipped(preset="alter").mtas[0].selector_weights()
    first = softmax([2.2, 2.2, 2.0, 2.0])
    for task in range(N):
        torch.testing.assert_close(weights_TN[task], first.roll(task), rtol=0, atol=1e-6)


def test_uniform_weighs_shared_adapters_like_task_adapters() -> None:
    model = equipped(settings(router="gate", kind="uniform"), router="gate")
    assert torch.equal(weights_of(model)[0], torch.full((len(TASKS_B), N + M), 1 / (N + M), dtype=torch.float64))
    selector = equipped(settings(kind="uniform")).mtas[0].selector_weights()
    assert torch.equal(selector, torch.full((N, N), 1 / N, dtype=torch.float64))


def test_top_k_keeps_the_largest_weights_and_their_sum() -> None:
    kept = keep_top(torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.7, 0.1, 0.15, 0.05]]), 2)
    torch.testing.assert_close(kept.dense(4), torch.tensor([[0, 4 / 7, 0, 3 / 7], [0.7 / 0.85, 0, 0.15 / 0.85, 0]]))
    assert keep_top(torch.rand(2, 3), 3).index is None
    assert keep_top(torch.rand(2, 3), 9).index is None
    assert keep_top(torch.rand(2, 3), None).index is None


@every_adapter
@pytest.mark.parametrize(("router", "kind"), [role for role in ROLES if role[1] in ("selector", "task", "linear")])
@both_granularities
@pytest.mark.parametrize("top_k", [1, 2])
def test_top_k_equals_all_adapters_with_the_other_weights_at_zero(
    adapter: str, router: Any, kind: str, granularity: str, top_k: int
) -> None:
    mta = settings(adapter, router=router, kind=kind, granularity=granularity)
    groups: Any = ("task_adapters", "shared_adapters", "selector", "gate")
    full = randomise(equipped(mta, router=router, num_layers=1), *groups)
    mta[router]["top_k"] = top_k
    few = randomise(equipped(mta, router=router, num_layers=1), *groups)
    with torch.no_grad():
        task, shared = weights_of(full)[0].split([N, M], dim=-1)
        expected = torch.cat([keep_top(task, top_k).dense(N), shared], dim=-1)
    torch.testing.assert_close(weights_of(few)[0], expected, rtol=0, atol=1e-12)
    assert ((expected[..., :N] > 0).sum(-1) == top_k).all()


@both_granularities
def test_a_linear_selector_is_a_softmax_of_what_the_ffn_reads(granularity: str) -> None:
    model = randomise(equipped(settings(kind="linear", granularity=granularity), num_layers=1), "selector")
    selector: Any = model.mtas[0].selector
    with site_inputs(model) as seen:
        weights = weights_of(model)[0]
    for row, task in enumerate(TASKS_B.tolist()):
        tokens = [token for token in range(IDS_BS.shape[1]) if MASK_BS[row, token]]
        mean = torch.stack([seen[0][row, token] for token in tokens]).sum(0) / len(tokens)
        for token in tokens:
            z = seen[0][row, token] if granularity == "token" else mean
            logits = [(selector.weight_ND[i] @ z + selector.logits_TN[task, i]).item() for i in range(N)]
            found = weights[row, token] if granularity == "token" else weights[row]
            torch.testing.assert_close(found[:N], softmax(logits), rtol=0, atol=1e-10)


@both_granularities
@pytest.mark.parametrize("over", ["all", "shared"])
def test_a_linear_gate_weighs_shared_adapters_by_a_sigmoid(granularity: str, over: str) -> None:
    mta = settings(router="gate", kind="linear", granularity=granularity, over=over)
    model = randomise(equipped(mta, router="gate", num_layers=1), "gate", "selector")
    gate: Any = model.mtas[0].gate
    with site_inputs(model) as seen:
        weights = weights_of(model)[0]
    selected_TN = model.mtas[0].selector_weights()
    for row, task in enumerate(TASKS_B.tolist()):
        tokens = [token for token in range(IDS_BS.shape[1]) if MASK_BS[row, token]]
        mean = torch.stack([seen[0][row, token] for token in tokens]).sum(0) / len(tokens)
        for token in tokens:
            z = seen[0][row, token] if granularity == "token" else mean
            found = weights[row, token] if granularity == "token" else weights[row]
            shared = [(gate.shared_weight_MD[j] @ z + gate.shared_logits_TM[task, j]).item() for j in range(M)]
            assert found[N:].tolist() == pytest.approx([1 / (1 + math.exp(-logit)) for logit in shared], abs=1e-10)
            if over == "shared":
                assert torch.equal(found[:N], selected_TN[task])
            else:
                logits = [(gate.weight_ND[i] @ z + gate.logits_TN[task, i]).item() for i in range(N)]
                torch.testing.assert_close(found[:N], softmax(logits), rtol=0, atol=1e-10)


@pytest.mark.parametrize("over", ["all", "shared"])
def test_a_task_gate_is_a_softmax_and_a_sigmoid_of_its_tasks_logits(over: str) -> None:
    model = randomise(equipped(settings(router="gate", kind="task", over=over), router="gate", num_layers=1), "gate", "selector")
    gate: Any = model.mtas[0].gate
    selected_TN = model.mtas[0].selector_weights()
    for row, task in enumerate(TASKS_B.tolist()):
        found = weights_of(model)[0][row]
        expected = selected_TN[task] if over == "shared" else softmax(gate.logits_TN[task].tolist())
        torch.testing.assert_close(found[:N], expected, rtol=0, atol=1e-10)
        shared = [1 / (1 + math.exp(-logit)) for logit in gate.shared_logits_TM[task].tolist()]
        assert found[N:].tolist() == pytest.approx(shared, abs=1e-10)


@every_adapter
@pytest.mark.parametrize("selector", [{"kind": "selector"}, {"kind": "one_hot"}, {"kind": "selector", "top_k": 2}])
def test_the_outputs_gate_is_the_papers_formula(adapter: str, selector: dict[str, Any]) -> None:
    mta = {**settings(adapter, router="gate", kind="outputs"), "selector": selector}
    model = equipped(mta, router="gate", num_layers=1)
    randomise(model, "task_adapters", "shared_adapters", "gate", "selector")
    site, gate = model.mtas[0], model.mtas[0].gate
    with site_inputs(model) as seen:
        found = weights_of(model)[0]
    parameters = dict(gate.named_parameters())
    with torch.no_grad():
        for row, task in enumerate(TASKS_B.tolist()):
            x = seen[0][row, :1]
            adapters = [one_output(site.bank, x, i) for i in range(N + M)]
            weights_N = site.selector_weights()[task]
            o_t = sum(weight * adapters[i] for i, weight in enumerate(weights_N.tolist()))
            if adapter == "merged_bottleneck":
                o_t = merged_output(site.bank, x[0], weights_N)
            stacked = torch.cat([o_t, *adapters[N:]])  # type: ignore[list-item]
            inner = (parameters["hidden.weight"] @ stacked).clamp_min(0)
            gates_G = softmax((parameters["out.weight"] @ inner).tolist())
            torch.testing.assert_close(found[row, :N], gates_G[0] * weights_N, rtol=0, atol=1e-10)
            torch.testing.assert_close(found[row, N:], gates_G[1:], rtol=0, atol=1e-10)


def one_output(bank: Any, x_1D: torch.Tensor, adapter: int) -> torch.Tensor:
    """Return what one adapter writes for one token, from its own parameters."""
    parts = dict(bank.adapters[adapter].named_parameters())
    x_D = x_1D[0]
    if "lora_A.0" in parts:
        return bank.scale * (parts["lora_B.0"] @ (parts["lora_A.0"] @ x_D))
    if "down_weight" in parts:
        inner = torch.nn.functional.gelu(parts["down_weight"] @ x_D + parts["down_bias"])
        return parts["up_weight"] @ inner + parts["up_bias"]
    inner = torch.nn.functional.gelu(parts["weights.0"] @ x_D + parts["biases.0"])
    return parts["weights.1"] @ inner + parts["biases.1"]


def merged_output(bank: Any, x_D: torch.Tensor, weights_E: torch.Tensor) -> torch.Tensor:
    """Return what the bottleneck writes for one token whose parameters are weighed sums of the adapters' own."""
    parts: dict[str, Any] = {}
    for weight, adapter in zip(weights_E, bank.adapters, strict=False):
        for name, value in adapter.named_parameters():
            parts[name] = parts.get(name, 0) + weight * value
    inner = torch.nn.functional.gelu(parts["down_weight"] @ x_D + parts["down_bias"])
    written: torch.Tensor = parts["up_weight"] @ inner + parts["up_bias"]
    return written


# ---- parameters mixed instead of outputs -----------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("by_token", [False, True])
def test_merged_bottlenecks_are_one_bottleneck_of_mixed_parameters(indexed: bool, by_token: bool) -> None:
    model = randomise(equipped(settings("merged_bottleneck"), num_layers=1), "task_adapters", "shared_adapters")
    bank, random = model.mtas[0].bank, torch.Generator().manual_seed(3)
    num_rows, num_tokens, used = 3, 4, 2 if indexed else N + M
    x_BSD = torch.randn(num_rows, num_tokens, 32, generator=random, dtype=torch.float64)
    values = torch.randn(num_rows, *([num_tokens] if by_token else []), used, generator=random, dtype=torch.float64)
    index = torch.rand(*values.shape[:-1], N + M, generator=random).argsort(-1)[..., :used] if indexed else None
    weights = Weights(values=values, index=index)
    dense = weights.dense(N + M)
    with torch.no_grad():
        found = bank.outputs(x_BSD, weights)
        for row in range(num_rows):
            for token in range(num_tokens):
                expected = merged_output(bank, x_BSD[row, token], dense[row, token] if by_token else dense[row])
                torch.testing.assert_close(found[row, token], expected, rtol=0, atol=1e-12)
        if indexed:  # an adapter of its own is a bottleneck of its own
            own = Weights(values=torch.ones_like(values[..., :1]), index=index[..., :1])
            single = one_output(bank, x_BSD[1, 2:3], int(own.index[1, 2] if by_token else own.index[1]))
            torch.testing.assert_close(bank.outputs(x_BSD, own)[1, 2], single, rtol=0, atol=1e-12)


def test_shared_merged_bottlenecks_start_as_nothing_and_part_while_they_train() -> None:
    model = randomise(equipped(settings("merged_bottleneck", router="gate", kind="task"), router="selector"), "task_adapters")
    before = hidden(model)
    model.state.router = "gate"
    for mta in model.mtas:
        mta.start_gate()
    torch.testing.assert_close(hidden(model), before, rtol=0, atol=1e-10)
    trained = model.set_trainable(["shared_adapters"])
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    probe = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    for _ in range(3):
        optimizer.zero_grad()
        (model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state * probe).sum().backward()
        optimizer.step()
    first, second = list(model.mtas[0].bank.adapters)[N:]
    assert first.down_weight.abs().max() > 0
    assert not torch.equal(first.down_weight, second.down_weight)


# ---- a random adapter while training ---------------------------------------------------------------------------------


def test_adamix_weighs_one_adapter_while_training_and_all_alike_afterwards() -> None:
    model = randomise(equipped(settings(kind="adamix"), num_layers=2), "task_adapters")
    evaluated = weights_of(model)
    for weights_BE in evaluated.values():
        assert torch.equal(weights_BE[:, :N], torch.full((len(TASKS_B), N), 1 / N, dtype=torch.float64))
    model.train()
    drawn = []
    for seed in (0, *range(60)):
        torch.manual_seed(seed)
        weights = weights_of(model)
        for weights_BE in weights.values():
            assert (weights_BE == weights_BE[0]).all(), "one draw for the whole batch"
            assert sorted(weights_BE[0].tolist()) == [0.0] * (N + M - 1) + [1.0]
        drawn.append(tuple(int(weights_BE[0].argmax()) for weights_BE in weights.values()))
    assert drawn[0] == drawn[1]  # the same seed, the same draw
    assert {first for first, _ in drawn} == {second for _, second in drawn} == set(range(N))
    assert any(first != second for first, second in drawn), "each site draws for itself"
    model.eval()
    for position, weights_BE in weights_of(model).items():
        assert torch.equal(weights_BE, evaluated[position])


def test_a_gate_starts_at_what_a_selector_answers_with_even_in_training() -> None:
    model = equipped(settings(kind="adamix"), num_layers=1).train()
    torch.manual_seed(0)
    assert torch.equal(model.mtas[0].selector_weights(), torch.full((N, N), 1 / N, dtype=torch.float64))
    assert model.mtas[0].selector.training


def test_adamix_as_a_gate_draws_shared_adapters_too() -> None:
    model = equipped(settings(router="gate", kind="adamix"), router="gate", num_layers=1).train()
    torch.manual_seed(0)
    assert {int(weights_of(model)[0][0].argmax()) for _ in range(100)} == set(range(N + M))


@both_granularities
@pytest.mark.parametrize("kind", ["linear", "outputs", "task"])
def test_gates_follow_a_selector_that_weighs_each_token(granularity: str, kind: str) -> None:
    gate = {"kind": kind, "over": "shared", "granularity": granularity}
    mta = {"selector": {"kind": "linear", "granularity": "token"}, "gate": gate, "num_shared": M}
    model = randomise(equipped(mta, router="gate", num_layers=1), "task_adapters", "shared_adapters", "selector", "gate")
    with model.record_weights() as recorded:
        hidden(model)
        of_gate = recorded[0].clone()
        model.router = "selector"
        hidden(model)
    task = recorded[0][..., :N]
    if kind == "outputs":
        of_shared = of_gate[..., N:].sum(-1, keepdim=True)
        torch.testing.assert_close(of_gate[..., :N], task * (1 - of_shared), rtol=0, atol=1e-10)
    else:
        torch.testing.assert_close(of_gate[..., :N], task, rtol=0, atol=0)


def test_the_mean_over_tokens_leaves_padding_out() -> None:
    x_BSD = torch.arange(12.0).reshape(2, 3, 2)
    mask_BS = torch.tensor([[1, 1, 0], [0, 0, 0]])
    assert mean_over_tokens(x_BSD, mask_BS).tolist() == [[1.0, 2.0], [0.0, 0.0]]
    assert mean_over_tokens(x_BSD, None).tolist() == [[2.0, 3.0], [8.0, 9.0]]


@pytest.mark.parametrize("kind", NOT_SELECTORS)
def test_a_gate_that_needs_a_selector_is_refused_as_one(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"mta.selector.kind.*outputs.*one_hot"):
        equipped({"selector": {"kind": kind}})


def test_dropout_in_an_adapter_works_in_training_only() -> None:
    for adapter in ADAPTERS.names():
        mta = {"adapter": {"kind": adapter, "r": 4, "dropout": 0.5}, "selector": {"kind": "one_hot"}}
        model = randomise(equipped(mta), "task_adapters")
        assert torch.equal(hidden(model), hidden(model)), adapter
        model.train()
        with torch.random.fork_rng(devices=[]):
            assert not torch.equal(hidden(model), hidden(model)), adapter


@pytest.mark.parametrize("adapter", ["lora", "bottleneck"])
@pytest.mark.parametrize("gate", [{"kind": "task", "over": "all"}, {"kind": "linear", "over": "all", "granularity": "token"}])
def test_whole_adapters_are_dropped_in_training_only_and_the_mean_stays(adapter: str, gate: dict[str, Any]) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "selector"}, "gate": gate, "num_shared": 2, "sites": "last"}
    model = randomise(equipped(mta, router="gate"), "task_adapters", "shared_adapters", "selector", "gate")
    [site] = model.mtas
    whole = hidden(model)
    model.state.adapter_dropout = 0.25
    assert torch.equal(hidden(model), whole), "in evaluation nothing is dropped"
    model.train()
    [full_BE] = weights_of(model).values()
    dim = full_BE.dim()
    seen = []
    with torch.random.fork_rng(devices=[]):
        for _ in range(2_000):
            thinned = site._thinned(Weights(values=full_BE)).values
            seen.append(thinned)
    drawn = torch.stack(seen)
    ratio = drawn / full_BE
    assert torch.isclose(ratio, torch.zeros(()).double()).logical_or(torch.isclose(ratio, torch.tensor(4 / 3).double())).all()
    torch.testing.assert_close(drawn.mean(0), full_BE, rtol=0.1, atol=0.02)
    kept = ratio > 0
    assert (kept.double().mean() - 0.75).abs() < 0.01
    if dim == 3:
        assert torch.equal(kept.all(2), kept.any(2)), "a row does without an adapter at all of its tokens"
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(hidden(model), hidden(model))


def test_a_model_whose_every_adapter_is_dropped_is_its_base() -> None:
    mta = {"adapter": {"kind": "lora", "r": 4}, "selector": {"kind": "one_hot"}}
    model = randomise(equipped(mta), "task_adapters")
    model.state.enabled = False
    base = hidden(model)
    model.state.enabled = True
    assert not torch.allclose(hidden(model), base)
    model.state.adapter_dropout = 1 - 1e-12
    model.train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.eval()
    torch.testing.assert_close(hidden(model), base)
