"""The battery of penalties on gate weights: what must hold of every one, then each one's own formula."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.nn.equipped import IDS_BS, MASK_BS, NAMES, TASKS_B, equipped, randomise
from torch import nn

from alter.errors import ConfigError
from alter.mta_settings import GateSettings
from alter.nn.gate_shape import GateShape
from alter.nn.gates.taps import Taps
from alter.nn.penalty_shape import Penalty, SiteWeights
from alter.recipe import PENALTIES

T, N, M = 3, 3, 2
E = N + M
TOKENS = 4
each_penalty = pytest.mark.parametrize("name", PENALTIES.names())
OF_ROWS = [name for name in PENALTIES.names() if PENALTIES.get(name).reads_rows]
each_of_rows = pytest.mark.parametrize("name", OF_ROWS)


def penalty_of(name: str) -> Penalty:
    made = PENALTIES.get(name)()
    assert isinstance(made, Penalty)
    return made


def taps() -> Taps:
    """Return a gate with scores, which every penalty can act on."""
    shape = GateShape(role="selector", num_tasks=T, num_adapters=N, num_shared=0, dim=4, output_dim=4)
    gate = Taps(shape, GateSettings(kind="taps")).double()
    with torch.no_grad():
        for score, value in zip(gate.scores, (0.3, 0.05, 0.7), strict=True):
            score.fill_(value)
    return gate


def site(*, rows: int = 7, by_token: bool = False, seed: int = 0, **changes: Any) -> SiteWeights:
    """Return random weights: task adapters that sum to one, shared ones between 0 and 1; the last token of odd rows is padding."""
    random = torch.Generator().manual_seed(seed)
    shape = (rows, TOKENS) if by_token else (rows,)
    task = torch.softmax(2 * torch.randn(*shape, N, generator=random, dtype=torch.float64), dim=-1)
    shared = torch.rand(*shape, M, generator=random, dtype=torch.float64)
    mask_BS = torch.ones(rows, TOKENS, dtype=torch.int64)
    mask_BS[1::2, -1] = 0
    made = SiteWeights(
        weights=torch.cat([task, shared], dim=-1).requires_grad_(),
        task_ids_B=torch.randint(T, (rows,), generator=random),
        mask_BS=mask_BS,
        counts_B=torch.ones(rows, dtype=torch.int64),
        num_tasks=T,
        num_adapters=N,
        gate=taps(),
    )
    return replace(made, **changes)


def part(whole: SiteWeights, rows: slice) -> SiteWeights:
    mask_BS = None if whole.mask_BS is None else whole.mask_BS[rows]
    return replace(
        whole, weights=whole.weights[rows], task_ids_B=whole.task_ids_B[rows], mask_BS=mask_BS, counts_B=whole.counts_B[rows]
    )


# ---- what must hold of every penalty ---------------------------------------------------------------------------------


@each_penalty
def test_a_penalty_says_what_it_is_and_gives_one_finite_number(name: str) -> None:
    assert PENALTIES.summaries()[name]
    for by_token in (False, True):
        value = penalty_of(name)([site(by_token=by_token), site(by_token=by_token, seed=1)])
        assert value.shape == ()
        assert torch.isfinite(value)


@each_penalty
def test_a_penalty_has_a_gradient_for_what_it_reads_and_it_is_right(name: str) -> None:
    penalty, whole = penalty_of(name), site()
    if not penalty.reads_rows:
        value = penalty([whole])
        value.backward()  # type: ignore[no-untyped-call]
        assert whole.weights.grad is None
        assert all(p.grad is not None and p.grad.abs() > 0 for p in whole.gate.parameters())
        return

    def of(weights: torch.Tensor) -> torch.Tensor:
        return penalty([replace(whole, weights=weights)])

    assert torch.autograd.gradcheck(of, (whole.weights,), eps=1e-7, atol=1e-6)
    [gradient] = torch.autograd.grad(of(whole.weights), whole.weights)
    assert gradient.abs().max() > 0


@each_of_rows
@pytest.mark.parametrize("by_token", [False, True])
def test_sums_add_up_however_rows_are_cut(name: str, by_token: bool) -> None:
    penalty, whole = penalty_of(name), site(by_token=by_token)
    for cuts in ((0, 3, 7), (0, 1, 2, 7)):
        parts = [penalty.sums(part(whole, slice(one, two))) for one, two in itertools.pairwise(cuts)]
        torch.testing.assert_close(sum(parts), penalty.sums(whole), rtol=0, atol=1e-12)


@each_of_rows
@pytest.mark.parametrize("by_token", [False, True])
def test_neither_padding_nor_rows_that_do_not_count_nor_their_order_matter(name: str, by_token: bool) -> None:
    penalty, whole = penalty_of(name), site(by_token=by_token)
    expected = penalty([whole])
    counts_B = torch.tensor([1, 1, 1, 1, 1, 1, 1, 0, 0])
    more = site(rows=9, by_token=by_token, seed=3)
    longer = replace(
        more,
        weights=torch.cat([whole.weights, more.weights[7:]]),
        task_ids_B=torch.cat([whole.task_ids_B, more.task_ids_B[7:]]),
        counts_B=counts_B,
    )
    torch.testing.assert_close(penalty([longer]), expected, rtol=0, atol=1e-12)
    order = torch.tensor([6, 0, 3, 1, 5, 2, 4])
    assert whole.mask_BS is not None
    turned = replace(whole, weights=whole.weights[order], task_ids_B=whole.task_ids_B[order], mask_BS=whole.mask_BS[order])
    torch.testing.assert_close(penalty([turned]), expected, rtol=0, atol=1e-12)
    if by_token:
        padding = whole.mask_BS.unsqueeze(-1) == 0
        torch.testing.assert_close(
            penalty([replace(whole, weights=torch.where(padding, 0.7, whole.weights))]), expected, rtol=0, atol=1e-12
        )


@each_of_rows
def test_tokens_that_weigh_alike_are_a_row(name: str) -> None:
    by_row = site()
    alike = replace(by_row, weights=by_row.weights.unsqueeze(1).expand(-1, TOKENS, -1))
    torch.testing.assert_close(penalty_of(name)([alike]), penalty_of(name)([by_row]), rtol=0, atol=1e-12)


@each_of_rows
def test_weights_of_zero_have_a_finite_value_and_a_finite_gradient(name: str) -> None:
    weights = torch.zeros(4, E, dtype=torch.float64)
    weights[0, 0] = weights[1, 0] = weights[2, 4] = 1.0
    weights.requires_grad_()
    given = site(rows=4, weights=weights, task_ids_B=torch.tensor([0, 0, 1, 1]), mask_BS=None)
    value = penalty_of(name)([given])
    value.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(value)
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()


@each_of_rows
def test_a_weight_below_zero_counts_as_large_as_it_is(name: str) -> None:
    """A table may learn one: a share below zero would be a probability that is none, and the penalty would have no end."""
    weights = site().weights.detach()
    signs = torch.where(torch.rand(weights.shape, generator=torch.Generator().manual_seed(1)) < 0.5, -1.0, 1.0)
    turned = penalty_of(name)([site(weights=signs * weights)])
    torch.testing.assert_close(turned, penalty_of(name)([site(weights=weights)]), rtol=0, atol=1e-12)


@each_penalty
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["sequence", "token"])
def test_every_penalty_reaches_the_router_of_a_model(name: str, checkpointing: bool, kind: str) -> None:
    """The weights of a pass carry its graph, and the gradient is the same where activations are recomputed."""
    found = []
    for recomputes in {False, checkpointing}:
        settings = {"kind": "taps"} if name == "sparsity" else {"kind": "linear", "granularity": kind}
        mta = {"selector": {"kind": "one_hot"}, "gate": settings, "num_shared": 0 if name == "sparsity" else 2}
        model = randomise(equipped(mta, router="gate"), "task_adapters", "shared_adapters", "gate", scale=0.1)
        model.train()
        model.set_trainable(["task_adapters", "gate"])
        if recomputes:
            model.gradient_checkpointing_enable()
        with model.trace_weights() as traced:
            state = model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state
        assert sorted(traced) == [0, 1]
        before = dict(traced)
        sites = [
            SiteWeights(
                weights=traced[mta.position].dense(mta.num_adapters + mta.num_shared),
                task_ids_B=TASKS_B,
                mask_BS=MASK_BS,
                counts_B=torch.ones_like(TASKS_B),
                num_tasks=len(NAMES),
                num_adapters=mta.num_adapters,
                gate=mta.gate,
            )
            for mta in model.mtas
        ]
        (penalty_of(name)(sites) + 1e-3 * state.square().mean()).backward()
        assert model.state.traced is None
        assert all(traced[position] is weights for position, weights in before.items())  # not once more in the recomputation
        gradients = {key: p.grad for key, p in model.parameter_groups()["gate"].items()}
        assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gradients.values())
        found.append(gradients)
    for gradients in found[1:]:
        for key, gradient in gradients.items():
            torch.testing.assert_close(gradient, found[0][key], rtol=0, atol=1e-12)


def test_nothing_is_kept_of_a_pass_that_nobody_asks_for() -> None:
    model = equipped({"selector": {"kind": "selector"}})
    model(IDS_BS, MASK_BS, task_ids=TASKS_B)
    assert model.state.traced is None
    assert model.state.recorded == {}


# ---- mutual information ----------------------------------------------------------------------------------------------


def information(weights: torch.Tensor, tasks: list[int], num_tasks: int = T) -> float:
    """Return I(T; E) as the formula says it, number by number."""
    joint = [[0.0] * weights.shape[1] for _ in range(num_tasks)]
    for task in range(num_tasks):
        mine = [weights[row] for row, other in enumerate(tasks) if other == task]
        if mine:
            mean = [float(sum(row[e] for row in mine)) / len(mine) for e in range(weights.shape[1])]
            joint[task] = [len(mine) / len(tasks) * value / sum(mean) for value in mean]
    p_t = [sum(row) for row in joint]
    p_e = [sum(row[e] for row in joint) for e in range(weights.shape[1])]
    return sum(
        p * math.log(p / (p_t[t] * p_e[e])) for t, row in enumerate(joint) for e, p in enumerate(row) if p > 0
    )  # fmt: skip


def of_rows(weights: torch.Tensor, tasks: list[int], name: str = "mutual_information", num_adapters: int = N) -> float:
    given = site(
        rows=len(tasks), weights=weights, task_ids_B=torch.tensor(tasks), mask_BS=None, num_adapters=num_adapters
    )  # fmt: skip
    return penalty_of(name)([given]).item()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("tasks", [[0, 1, 2, 0, 1, 2], [0, 0, 0, 0, 1, 2], [2, 2, 0, 0, 0, 0]])
def test_mutual_information_is_its_formula(seed: int, tasks: list[int]) -> None:
    weights = site(rows=6, seed=seed).weights.detach()
    assert -of_rows(weights, tasks) == pytest.approx(information(weights, tasks), abs=1e-12)


def test_mutual_information_by_token_is_that_of_the_means_over_tokens() -> None:
    whole = site(by_token=True)
    assert whole.mask_BS is not None
    means = [torch.stack([whole.weights[row, s] for s in range(TOKENS) if whole.mask_BS[row, s]]).mean(0) for row in range(7)]
    expected = information(torch.stack(means).detach(), whole.task_ids_B.tolist())
    assert -penalty_of("mutual_information")([whole]).item() == pytest.approx(expected, abs=1e-12)


def test_tasks_with_adapters_of_their_own_tell_the_logarithm_of_their_number() -> None:
    own = torch.eye(E, dtype=torch.float64)[[0, 1, 2]]
    assert -of_rows(own, [0, 1, 2]) == pytest.approx(math.log(3), abs=1e-12)
    assert -of_rows(own[[0, 0, 1, 2]], [0, 0, 1, 2]) == pytest.approx(0.5 * math.log(2) + 0.5 * math.log(4), abs=1e-12)


@pytest.mark.parametrize("tasks", [[0, 1, 2], [0, 0, 1]])
def test_tasks_that_weigh_alike_tell_nothing(tasks: list[int]) -> None:
    assert of_rows(torch.full((3, E), 1 / E, dtype=torch.float64), tasks) == pytest.approx(0, abs=1e-12)
    assert of_rows(torch.rand(1, E, dtype=torch.float64).expand(3, -1), tasks) == pytest.approx(0, abs=1e-12)


def test_one_task_alone_tells_nothing_and_absent_tasks_get_no_gradient() -> None:
    whole = site(rows=4, task_ids_B=torch.tensor([1, 1, 1, 1]), mask_BS=None)
    value = penalty_of("mutual_information")([whole])
    value.backward()  # type: ignore[no-untyped-call]
    assert value.item() == pytest.approx(0, abs=1e-12)
    assert whole.weights.grad is not None
    assert whole.weights.grad.abs().max() < 1e-12


def test_the_gradient_makes_tasks_differ() -> None:
    logits = torch.tensor([[0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=0.2)
    for _ in range(60):
        optimizer.zero_grad()
        penalty_of("mutual_information")(
            [site(rows=3, weights=logits.softmax(-1), task_ids_B=torch.arange(3), mask_BS=None)]
        ).backward()
        optimizer.step()
    assert -of_rows(logits.softmax(-1).detach(), [0, 1, 2]) > 0.95 * math.log(3)


# ---- load balance ----------------------------------------------------------------------------------------------------


def test_load_balance_is_switchs_formula_on_shared_adapters() -> None:
    weights = site(rows=6, seed=4).weights.detach()
    firsts = [max(range(M), key=lambda j: float(row[N + j])) for row in weights]
    shares = [[float(row[N + j] / row[N:].sum()) for j in range(M)] for row in weights]
    expected = M * sum((firsts.count(j) / 6) * (sum(share[j] for share in shares) / 6) for j in range(M))
    assert of_rows(weights, [0, 1, 2, 0, 1, 2], "load_balance") == pytest.approx(expected, abs=1e-12)


def test_load_balance_is_one_where_even_and_the_number_of_adapters_where_one_gets_all() -> None:
    even = torch.zeros(2, N + 2, dtype=torch.float64)
    even[0, N] = even[1, N + 1] = 0.4
    assert of_rows(even, [0, 1], "load_balance") == pytest.approx(1, abs=1e-12)
    even[1, N], even[1, N + 1] = 0.4, 0.0
    assert of_rows(even, [0, 1], "load_balance") == pytest.approx(2, abs=1e-12)


# ---- sparsity --------------------------------------------------------------------------------------------------------


def test_sparsity_is_the_mean_score() -> None:
    assert penalty_of("sparsity")([site()]).item() == pytest.approx((0.3 + 0.05 + 0.7) / 3)
    other = taps()
    with torch.no_grad():
        other.scores[0].fill_(-0.6)
    assert penalty_of("sparsity")([site(), site(gate=other)]).item() == pytest.approx((1.05 + 0.6 + 0.75) / 6)


def test_sparsity_of_a_gate_without_scores_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the penalty sparsity needs scores, and a Linear has none; use kind taps"):
        penalty_of("sparsity")([site(gate=nn.Linear(1, 1))])
