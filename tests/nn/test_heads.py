"""Heads and losses: the padded bank against one head per task, and the mixed loss against its formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from tests.nn.equipped import IDS_BS, MASK_BS, equipped
from torch.nn import functional

from alter.nn.heads import HeadBank, pool
from alter.nn.losses import NOT_A_CLASS, row_losses
from alter.recipe import HeadSettings

OUTPUTS = [3, 1, 7, 2]
TASKS_B = torch.tensor([2, 0, 1, 3, 3, 0])
DIM = 5
X_BSD = torch.randn(6, 4, DIM, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X_MASK_BS = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 0]])


def bank(**settings: Any) -> HeadBank:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        heads = HeadBank(DIM, OUTPUTS, HeadSettings(**{"dropout": 0.0, **settings})).double()
        for parameter in heads.parameters():
            torch.nn.init.normal_(parameter)
    return heads


@pytest.mark.parametrize("kind", ["linear", "mlp"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
def test_the_padded_bank_equals_one_head_per_task(kind: Any, pooling: Any) -> None:
    heads = bank(kind=kind, pooling=pooling)
    logits_BC = heads(X_BSD, TASKS_B, X_MASK_BS)
    assert logits_BC.shape == (len(TASKS_B), max(OUTPUTS))
    for row, task in enumerate(TASKS_B.tolist()):
        tokens = X_BSD[row][X_MASK_BS[row] == 1]
        pooled_D = {"mean": tokens.mean(0), "cls": tokens[0], "max": tokens.amax(0)}[pooling]
        head: Any = heads.heads[task]
        if kind == "mlp":
            pooled_D = torch.tanh(functional.linear(pooled_D, head.dense_weight, head.dense_bias))
        expected = functional.linear(pooled_D, head.weight, head.bias)
        torch.testing.assert_close(logits_BC[row, : OUTPUTS[task]], expected, rtol=0, atol=1e-12)
        assert (logits_BC[row, OUTPUTS[task] :] == -math.inf).all()


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_heads_gradient_is_that_of_the_head_alone(kind: Any) -> None:
    heads = bank(kind=kind)
    logits_BC = heads(X_BSD, TASKS_B, X_MASK_BS)
    real_BC = torch.isfinite(logits_BC)
    torch.where(real_BC, logits_BC, 0.0).square().sum().backward()
    alone = bank(kind=kind)
    for row, task in enumerate(TASKS_B.tolist()):
        alone(X_BSD[row : row + 1], TASKS_B[row : row + 1], X_MASK_BS[row : row + 1])[
            0, : OUTPUTS[task]
        ].square().sum().backward()
    for (name, together), apart in zip(heads.named_parameters(), alone.parameters(), strict=True):
        assert together.grad is not None, name
        assert apart.grad is not None, name
        torch.testing.assert_close(together.grad, apart.grad, rtol=0, atol=1e-10, msg=name)


def test_a_task_without_rows_gets_a_gradient_of_zero() -> None:
    heads = bank()
    heads(X_BSD[:2], torch.tensor([0, 2]), X_MASK_BS[:2])[:, 0].sum().backward()
    grads = [head.weight.grad for head in heads.heads]
    assert [grad is not None and bool(grad.abs().sum() > 0) for grad in grads] == [True, False, True, False]


def test_a_bank_of_one_task_works() -> None:
    heads = HeadBank(DIM, [2], HeadSettings()).double().eval()
    assert heads(X_BSD, torch.zeros(6, dtype=torch.int64), None).shape == (6, 2)


def test_pooling_without_a_mask_takes_every_token() -> None:
    for pooling, expected in {"mean": X_BSD.mean(1), "cls": X_BSD[:, 0], "max": X_BSD.amax(1)}.items():
        torch.testing.assert_close(pool(X_BSD, None, pooling), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_logits_keep_at_least_the_digits_of_float32(dtype: torch.dtype) -> None:
    heads = bank().to(dtype)
    logits = heads(X_BSD.to(dtype), TASKS_B, X_MASK_BS)
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_dropout_works_in_training_only() -> None:
    heads = bank(dropout=0.5)
    with torch.random.fork_rng(devices=[]):
        assert not torch.equal(heads(X_BSD, TASKS_B, None), heads(X_BSD, TASKS_B, None))
        heads.train(mode=False)
        assert torch.equal(heads(X_BSD, TASKS_B, None), heads(X_BSD, TASKS_B, None))


# ---- losses ----------------------------------------------------------------------------------------------------------

LABELS_B = torch.tensor([6, 1, NOT_A_CLASS, 0, 1, 2])
TARGETS_B = torch.tensor([0.0, 0.0, -1.5, 0.0, 0.0, 0.0], dtype=torch.float64)
IS_REGRESSION_B = torch.tensor([OUTPUTS[task] == 1 for task in TASKS_B.tolist()])


def by_hand(logits_BC: torch.Tensor, smoothing: float) -> list[float]:
    losses = []
    for row, task in enumerate(TASKS_B.tolist()):
        logits = logits_BC[row, : OUTPUTS[task]].tolist()
        label = LABELS_B[row].item()
        if label == NOT_A_CLASS:
            losses.append((logits[0] - TARGETS_B[row].item()) ** 2)
            continue
        total = sum(math.exp(logit) for logit in logits)
        log_p = [logit - math.log(total) for logit in logits]
        target = [smoothing / len(logits) + (1 - smoothing) * (position == label) for position in range(len(logits))]
        losses.append(-sum(share * log for share, log in zip(target, log_p, strict=True)))
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_the_mixed_loss_is_cross_entropy_and_squared_error_row_by_row(smoothing: float) -> None:
    logits_BC = bank()(X_BSD, TASKS_B, X_MASK_BS)
    losses_B = row_losses(logits_BC, LABELS_B, TARGETS_B, is_regression_B=IS_REGRESSION_B, label_smoothing=smoothing)
    assert losses_B.tolist() == pytest.approx(by_hand(logits_BC, smoothing), abs=1e-10)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_spreads_over_a_tasks_own_classes(smoothing: float) -> None:
    logits_BC = bank()(X_BSD, TASKS_B, X_MASK_BS)
    for row, task in enumerate(TASKS_B.tolist()):
        if LABELS_B[row] != NOT_A_CLASS:
            own = logits_BC[row : row + 1, : OUTPUTS[task]]
            expected = functional.cross_entropy(own, LABELS_B[row : row + 1], label_smoothing=smoothing)
            found = row_losses(logits_BC, LABELS_B, TARGETS_B, is_regression_B=IS_REGRESSION_B, label_smoothing=smoothing)[row]
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_gradients_of_the_mixed_loss_are_finite_and_right(smoothing: float) -> None:
    logits_BC = bank()(X_BSD, TASKS_B, X_MASK_BS).detach()
    real_BC = torch.isfinite(logits_BC)

    def loss(real: torch.Tensor) -> torch.Tensor:
        padded_BC = torch.full_like(logits_BC, -math.inf).masked_scatter(real_BC, real)
        return row_losses(padded_BC, LABELS_B, TARGETS_B, is_regression_B=IS_REGRESSION_B, label_smoothing=smoothing)

    assert torch.autograd.gradcheck(loss, (logits_BC[real_BC].requires_grad_(),))


def test_a_models_loss_is_the_mean_over_rows_and_smooths_in_training_only() -> None:
    model = equipped(tasks={"score": 1, "mood": 4, "intent": 3}, heads={"dropout": 0.0})
    model.label_smoothing = 0.2
    given = {
        "task_ids": torch.tensor([0, 1, 2, 1, 0]),
        "label_ids": torch.tensor([NOT_A_CLASS, 3, 0, 2, NOT_A_CLASS]),
        "targets": torch.tensor([0.5, 0, 0, 0, -2.0], dtype=torch.float64),
    }
    with torch.no_grad():
        plain = model(IDS_BS, MASK_BS, **given)
        model.train()
        smooth = model(IDS_BS, MASK_BS, **given)
    for out, smoothing in ((plain, 0.0), (smooth, 0.2)):
        expected = row_losses(
            plain.logits,
            given["label_ids"],
            given["targets"],
            is_regression_B=given["task_ids"] == 0,
            label_smoothing=smoothing,
        )
        torch.testing.assert_close(out.losses, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(out.loss, expected.mean(), rtol=0, atol=1e-12)
    assert plain.loss < smooth.loss or plain.loss > smooth.loss


def losses_of(**given: Any) -> Any:
    """Return the output for rows of a regression, two classifications, a classification and the regression."""
    model = equipped(tasks={"score": 1, "mood": 4, "intent": 3}, heads={"dropout": 0.0})
    return model(IDS_BS, MASK_BS, task_ids=torch.tensor([0, 1, 2, 1, 0]), **given)


TARGETS = torch.tensor([0.5, math.nan, math.nan, math.nan, -2.0], dtype=torch.float64)


def test_the_mean_of_the_loss_is_over_the_rows_that_count() -> None:
    every = losses_of(label_ids=torch.tensor([NOT_A_CLASS, 3, 0, 2, NOT_A_CLASS]), targets=TARGETS)
    some = losses_of(label_ids=torch.tensor([NOT_A_CLASS, 3, NOT_A_CLASS, 2, NOT_A_CLASS]), targets=TARGETS)
    assert some.losses[2].item() == 0.0
    torch.testing.assert_close(some.losses[[0, 1, 3, 4]], every.losses[[0, 1, 3, 4]])
    torch.testing.assert_close(some.loss, every.losses[[0, 1, 3, 4]].mean())


def test_targets_alone_give_a_loss_and_labels_of_regression_rows_are_not_looked_at() -> None:
    alone = losses_of(targets=TARGETS)
    assert (alone.losses != 0).tolist() == [True, False, False, False, True]
    torch.testing.assert_close(alone.loss, (alone.losses[0] + alone.losses[4]) / 2)
    labelled = losses_of(label_ids=torch.tensor([3, NOT_A_CLASS, NOT_A_CLASS, NOT_A_CLASS, 77]), targets=TARGETS)
    assert torch.equal(labelled.losses, alone.losses)


def test_what_a_row_ignores_leaves_gradients_finite_and_no_row_gives_no_loss() -> None:
    model = equipped(tasks={"mood": 4, "intent": 3})
    out = model(IDS_BS, MASK_BS, task_ids=torch.tensor([0, 1, 0, 1, 0]), targets=torch.full((5,), math.nan))
    assert out.loss.item() == 0.0
    out.loss.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_without_labels_there_is_no_loss() -> None:
    model = equipped(tasks={"mood": 4, "intent": 3})
    with torch.no_grad():
        out = model(IDS_BS, MASK_BS, task_ids=torch.tensor([0, 1, 0, 1, 0]))
    assert out.loss is None
    assert out.losses is None
    assert out.logits.shape == (5, 4)
