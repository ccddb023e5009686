"""The fused forms of a mixture against the plain loop: values, gradients, and which form serves which weights."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from tests.nn.formula import FORMS, Sizes, leaves, make_bank, make_weights, mix_by_loop
from torch.utils._python_dispatch import TorchDispatchMode

from alter.nn import mixing
from alter.nn.mixing import Bank, Weights, mix, widen

# (weights by token, dimensions of the index): all that a gate can hand over
SHAPES = [(False, None), (True, None), (False, 2), (True, 2), (True, 3)]
SMALL = Sizes()
LARGE = Sizes(inner=40)  # two adapters of width 40: wider than a gather is worth


class Ops(TorchDispatchMode):
    """Counts the operations that reach ATen."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def inputs(sizes: Sizes, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    random = torch.Generator().manual_seed(7)
    x = torch.randn(sizes.rows, sizes.tokens, sizes.dim, generator=random, dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def gradients(y: torch.Tensor, x: torch.Tensor, bank: Bank, weights: Weights) -> dict[str, torch.Tensor]:
    probe = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(y.dtype)
    named = {"x": x, **leaves(bank, weights)}
    found = torch.autograd.grad((y * probe).sum(), list(named.values()), allow_unused=True)
    return {name: torch.zeros_like(of) if grad is None else grad for (name, of), grad in zip(named.items(), found, strict=True)}


def cast(bank: Bank, weights: Weights, x: torch.Tensor, dtype: torch.dtype) -> tuple[Bank, Weights, torch.Tensor]:
    def copy(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().to(dtype).requires_grad_()

    return bank._map(copy), Weights(values=copy(weights.values), index=weights.index), copy(x)


def assert_equals_loop(y: torch.Tensor, x: torch.Tensor, bank: Bank, weights: Weights, *, atol: float) -> None:
    bank64, weights64, x64 = cast(bank, weights, x, torch.float64)
    y64 = mix_by_loop(x64, bank64, weights64)
    torch.testing.assert_close(y.double(), y64, rtol=0, atol=atol)
    expected = gradients(y64, x64, bank64, weights64)
    for name, grad in gradients(y, x, bank, weights).items():
        torch.testing.assert_close(
            grad.double(), expected[name], rtol=atol, atol=10 * atol, msg=lambda text, n=name: f"{n}: {text}"
        )


def forms_used(x: torch.Tensor, bank: Bank, weights: Weights) -> str:
    with Ops() as ops:
        mix(x, bank, weights)
    if ops.counts["_grouped_mm"]:
        return "grouped"
    return "rows" if ops.counts["bmm"] else "dense"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("by_token", "index"), SHAPES)
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_a_mixture_equals_the_loop_in_float64(form: str, by_token: bool, index: int | None, sizes: Sizes) -> None:
    bank, weights, x = make_bank(form, sizes), make_weights(sizes, by_token=by_token, index=index), inputs(sizes)
    assert_equals_loop(mix(x, bank, weights), x, bank, weights, atol=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("by_token", "index"), [shape for shape in SHAPES if shape[1] is not None])
def test_the_grouped_form_equals_the_loop_in_float32(form: str, by_token: bool, index: int) -> None:
    bank = make_bank(form, LARGE, dtype=torch.float32)
    weights = make_weights(LARGE, by_token=by_token, index=index, dtype=torch.float32)
    x = inputs(LARGE, torch.float32)
    assert forms_used(x, bank, weights) == "grouped"
    assert_equals_loop(mix(x, bank, weights), x, bank, weights, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("by_token", [False, True])
def test_the_rows_form_equals_the_loop(form: str, by_token: bool) -> None:
    bank, weights, x = make_bank(form, SMALL), make_weights(SMALL, by_token=by_token, index=2), inputs(SMALL)
    assert forms_used(x, bank, weights) == "rows"
    assert weights.index is not None
    assert_equals_loop(mixing._mix_rows(x, bank, weights.values, weights.index), x, bank, weights, atol=1e-12)


@pytest.mark.parametrize(
    ("sizes", "dtype", "index", "form"),
    [
        (SMALL, torch.float32, None, "dense"),
        (SMALL, torch.float32, 2, "rows"),
        (LARGE, torch.float32, 2, "grouped"),
        (SMALL, torch.float32, 3, "grouped"),
        (LARGE, torch.bfloat16, 3, "grouped"),
        (LARGE, torch.float64, 3, "dense"),
        (Sizes(inner=6), torch.float32, 3, "dense"),
        (Sizes(inner=6), torch.bfloat16, 3, "dense"),
        (Sizes(dim=7), torch.float32, 3, "dense"),
        (Sizes(output=5), torch.float32, 3, "dense"),
        (Sizes(inner=40, tokens=40), torch.float32, 2, "rows"),
    ],
)
def test_each_kind_of_weights_gets_its_form(sizes: Sizes, dtype: torch.dtype, index: int | None, form: str) -> None:
    weights = make_weights(sizes, by_token=index == 3, index=index, dtype=dtype)
    assert forms_used(inputs(sizes, dtype), make_bank("bias", sizes, dtype=dtype), weights) == form


@pytest.mark.parametrize("width", [1, 2, 3, 5, 6, 7, 9, 10])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_width_of_an_adapter_is_refused(width: int, dtype: torch.dtype) -> None:
    sizes = Sizes(inner=width)
    bank, weights = make_bank("bias", sizes, dtype=dtype), make_weights(sizes, by_token=True, index=3, dtype=dtype)
    x = inputs(sizes, dtype)
    assert_equals_loop(mix(x, bank, weights), x, bank, weights, atol=1e-5 if dtype == torch.float32 else 5e-2)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("by_token", "index"), SHAPES)
def test_gradcheck_holds(form: str, by_token: bool, index: int | None) -> None:
    sizes = Sizes(rows=2, tokens=2, dim=3, inner=2, output=3, adapters=3, weighed=2)
    bank, weights, x = make_bank(form, sizes), make_weights(sizes, by_token=by_token, index=index), inputs(sizes)
    names = list(leaves(bank, weights))

    def function(x_BSD: torch.Tensor, *tensors: torch.Tensor) -> torch.Tensor:
        given = dict(zip(names, tensors, strict=True))
        values = given.pop("values")
        return mix(x_BSD, Bank(combine=bank.combine, **given), Weights(values=values, index=weights.index))

    assert torch.autograd.gradcheck(function, (x, *leaves(bank, weights).values()))


@pytest.mark.parametrize("index", [2, 3])
def test_adapters_that_nobody_chose_get_a_gradient_of_zero(index: int) -> None:
    bank, x = make_bank("bias", LARGE, dtype=torch.float32), inputs(LARGE, torch.float32)
    weights = make_weights(LARGE, by_token=index == 3, index=index, dtype=torch.float32)
    assert weights.index is not None
    used = set(weights.index.flatten().tolist())
    assert 4 not in used
    found = gradients(mix(x, bank, weights), x, bank, weights)
    for adapter in range(LARGE.adapters):
        size = found["writes_EOH"][adapter].abs().sum().item()
        assert (size > 0) == (adapter in used)


def test_all_rows_on_the_last_adapter_leave_every_earlier_group_empty() -> None:
    bank, x = make_bank("bias", LARGE, dtype=torch.float32), inputs(LARGE, torch.float32)
    values = torch.ones(LARGE.rows, 2, requires_grad=True)
    weights = Weights(values=values, index=torch.tensor([[4, 3]]).expand(LARGE.rows, -1))
    assert forms_used(x, bank, weights) == "grouped"
    assert_equals_loop(mix(x, bank, weights), x, bank, weights, atol=1e-5)


@pytest.mark.parametrize("index", [None, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_bank_of_one_adapter_works(index: int | None, dtype: torch.dtype) -> None:
    sizes = Sizes(adapters=1, weighed=1, inner=72)
    bank, weights = make_bank("bias", sizes, dtype=dtype), make_weights(sizes, by_token=index == 3, index=index, dtype=dtype)
    x = inputs(sizes, dtype)
    assert_equals_loop(mix(x, bank, weights), x, bank, weights, atol=1e-5)


def test_an_adapter_that_comes_twice_counts_twice() -> None:
    bank, x = make_bank("bias", SMALL), inputs(SMALL)
    values = torch.full((SMALL.rows, 2), 0.5, dtype=torch.float64)
    twice = Weights(values=values, index=torch.ones(SMALL.rows, 2, dtype=torch.int64))
    once = Weights(values=2 * values[:, :1], index=torch.ones(SMALL.rows, 1, dtype=torch.int64))
    torch.testing.assert_close(mix(x, bank, twice), mix(x, bank, once), rtol=0, atol=1e-12)
    assert torch.equal(twice.dense(5), once.dense(5))


@pytest.mark.parametrize(("by_token", "index"), SHAPES)
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_a_few_adapters_equal_all_adapters_with_weights_of_zero(by_token: bool, index: int | None, sizes: Sizes) -> None:
    bank, x = make_bank("gated", sizes, dtype=torch.float32), inputs(sizes, torch.float32)
    weights = make_weights(sizes, by_token=by_token, index=index, dtype=torch.float32)
    dense = weights.dense(sizes.adapters)
    assert dense.shape == (*weights.values.shape[:-1], sizes.adapters)
    assert (dense == 0).any()
    torch.testing.assert_close(mix(x, bank, weights), mix(x, bank, Weights(values=dense)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("by_token", "index"), SHAPES)
@pytest.mark.parametrize("sizes", [SMALL, LARGE], ids=["small", "large"])
def test_autocast_gives_the_same_mixture_in_bfloat16(form: str, by_token: bool, index: int | None, sizes: Sizes) -> None:
    bank, x = make_bank(form, sizes, dtype=torch.float32), inputs(sizes, torch.float32)
    weights = make_weights(sizes, by_token=by_token, index=index, dtype=torch.float32)
    expected = mix(x, bank, weights)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = mix(x, bank, weights)
    torch.testing.assert_close(y.float(), expected, rtol=0.02, atol=0.05)
    for name, grad in gradients(y, x, bank, weights).items():
        assert grad.dtype == torch.float32, name
        assert torch.isfinite(grad).all(), name


@pytest.mark.parametrize(("by_token", "index"), SHAPES)
def test_weights_widen_with_beams(by_token: bool, index: int | None) -> None:
    bank, weights, x = make_bank("bias", SMALL), make_weights(SMALL, by_token=by_token, index=index), inputs(SMALL)
    beams_x = x.repeat_interleave(3, dim=0)
    torch.testing.assert_close(mix(beams_x, bank, weights), mix(x, bank, weights).repeat_interleave(3, dim=0), rtol=0, atol=1e-12)


def test_widen_repeats_each_row_beside_itself() -> None:
    ids = torch.tensor([4, 9])
    assert widen(ids, 6).tolist() == [4, 4, 4, 9, 9, 9]
    assert widen(ids, 2) is ids


def test_rows_that_do_not_divide_are_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match=r"5 rows of input, but 2 task ids; give one task id per row"):
        widen(torch.tensor([0, 1]), 5)


def test_a_bank_can_be_cut_to_its_first_adapters() -> None:
    bank = make_bank("gated", SMALL)
    assert bank.first(SMALL.adapters) is bank
    first = bank.first(2)
    for name, value in leaves(first, make_weights(SMALL, by_token=False, index=None)).items():
        if name != "values":
            assert torch.equal(value, getattr(bank, name)[:2]), name
