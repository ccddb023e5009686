"""What a site costs: operations launched and arithmetic, and that neither grows with the number of tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.nn.equipped import equipped
from tests.tiny import HIDDEN_SIZE
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from alter.model import MTAModel
from alter.mta_settings import ADAPTERS, GATES
from alter.nn.routing import Router

IDS_BS = torch.randint(5, 90, (6, 8), generator=torch.Generator().manual_seed(0))
TASKS_B = torch.tensor([0, 1, 2, 0, 1, 2])
NUM_LAYERS = 1
FEW, MANY = 3, 9
ROLES = [(router, kind) for router in ("selector", "gate") for kind in GATES.names() if (router, kind) != ("selector", "outputs")]


class Launches(TorchDispatchMode):
    """Counts operations that do work: views and bookkeeping launch nothing on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if not func.is_view:
            self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def build(num_tasks: int, mta: Mapping[str, Any], *, router: str, heads: str | None = None) -> MTAModel:
    names = [f"task{position}" for position in range(num_tasks)]
    tasks = names if heads is None else {name: 1 + position % 4 for position, name in enumerate(names)}
    settings = {"kind": heads} if heads else {}
    at_work: Router = "gate" if router == "gate" else "selector"
    return equipped(mta, tasks=tasks, heads=settings, router=at_work, dtype=torch.float32, num_layers=NUM_LAYERS)


def launches(model: MTAModel) -> Counter[str]:
    with torch.no_grad(), Launches() as counter:
        model(IDS_BS, torch.ones_like(IDS_BS), task_ids=TASKS_B)
    return counter.counts


def launches_with_backward(model: MTAModel) -> Counter[str]:
    model.set_trainable(["task_adapters", "shared_adapters", "selector", "gate", "heads"])
    out = model(IDS_BS, torch.ones_like(IDS_BS), task_ids=TASKS_B)
    with Launches() as counter:
        out.last_hidden_state.square().sum().backward()
    return counter.counts


def grouped_flops(x_shape: Any, matrix_shape: Any, *args: Any, **kwargs: Any) -> int:
    """Each row of x meets one matrix, whatever the number of matrices."""
    rows, width = x_shape
    assert matrix_shape[1] == width
    return int(2 * rows * width * matrix_shape[2])


def flops(model: MTAModel) -> int:
    mapping = {torch.ops.aten._grouped_mm: grouped_flops}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        model(IDS_BS, torch.ones_like(IDS_BS), task_ids=TASKS_B)
    return counter.get_total_flops()


@pytest.mark.parametrize("adapter", ADAPTERS.names())
@pytest.mark.parametrize(("router", "kind"), ROLES)
@pytest.mark.parametrize("settings", [{}, {"granularity": "token", "top_k": 2}], ids=["by row", "few per token"])
def test_launches_do_not_grow_with_the_number_of_tasks(adapter: str, router: str, kind: str, settings: dict[str, Any]) -> None:
    selector = kind if router == "selector" else "one_hot"
    gate = kind if router == "gate" else "task"
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": selector, **settings}, "gate": {"kind": gate, **settings}}
    few, many = (launches(build(number, mta, router=router)) for number in (FEW, MANY))
    assert few == many


@pytest.mark.parametrize("heads", ["linear", "mlp"])
def test_launches_of_the_heads_do_not_grow_with_the_number_of_tasks(heads: str) -> None:
    mta = {"selector": {"kind": "one_hot"}}
    few, many = (launches(build(number, mta, router="selector", heads=heads)) for number in (FEW, MANY))
    assert few == many


@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_launches_of_the_backward_pass_grow_by_no_more_than_one_gradient_per_parameter(adapter: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "one_hot"}, "gate": {"kind": "task", "over": "shared"}}
    few, many = (build(number, mta, router="selector") for number in (FEW, MANY))
    grown = launches_with_backward(many) - launches_with_backward(few)
    added = sum(len(group) for group in many.parameter_groups().values()) - sum(
        len(group) for group in few.parameter_groups().values()
    )
    assert sum(grown.values()) <= added, grown


# (router, settings of what weighs; growth of its own logits per added task, in multiply-adds over all rows)
CHEAP = [
    ("selector", {"kind": "one_hot"}, 0),
    ("selector", {"kind": "one_hot", "num_owned": 2}, 0),
    ("selector", {"kind": "taps"}, 0),
    ("selector", {"kind": "selector", "top_k": 1}, 0),
    ("selector", {"kind": "selector", "top_k": 2}, 0),
    ("selector", {"kind": "task", "top_k": 2}, 0),
    ("selector", {"kind": "linear", "top_k": 2}, IDS_BS.shape[0] * HIDDEN_SIZE),
    ("selector", {"kind": "linear", "top_k": 2, "granularity": "token"}, IDS_BS.numel() * HIDDEN_SIZE),
    ("gate", {"kind": "one_hot"}, 0),
    ("gate", {"kind": "taps"}, 0),
    ("gate", {"kind": "task", "over": "shared"}, 0),
    ("gate", {"kind": "task", "over": "all", "top_k": 2}, 0),
    ("gate", {"kind": "linear", "over": "shared"}, 0),
    ("gate", {"kind": "linear", "over": "shared", "granularity": "token"}, 0),
    ("gate", {"kind": "linear", "over": "all", "top_k": 2}, IDS_BS.shape[0] * HIDDEN_SIZE),
    ("gate", {"kind": "outputs"}, 0),
]


@pytest.mark.parametrize("adapter", ADAPTERS.names())
@pytest.mark.parametrize(("router", "settings", "logits"), CHEAP)
def test_arithmetic_of_one_hot_and_top_k_does_not_grow_with_the_number_of_tasks(
    adapter: str, router: str, settings: dict[str, Any], logits: int
) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "one_hot"}, router: settings}
    few, many = (flops(build(number, mta, router=router)) for number in (FEW, MANY))
    if adapter == "merged_bottleneck" and settings.get("granularity") == "token":
        # No token has a matrix of its own, so all adapters read and write for it, as the docstring says.
        each = 2 * 4 * HIDDEN_SIZE + 4 + HIDDEN_SIZE  # its reading and writing, the weighing of what it read, its bias
        assert many - few == 2 * (MANY - FEW) * (each * IDS_BS.numel() + logits) * NUM_LAYERS
        return
    assert many - few == 2 * (MANY - FEW) * logits * NUM_LAYERS


@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_the_count_sees_the_arithmetic_of_dense_weights(adapter: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "selector"}}
    assert flops(build(MANY, mta, router="selector")) > flops(build(FEW, mta, router="selector"))


@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_one_adapter_costs_what_one_adapter_has_to(adapter: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "selector": {"kind": "one_hot"}}
    base = build(MANY, mta, router="selector")
    with base.disable_adapter():
        without = flops(base)
    bottleneck = 2 * 4 * HIDDEN_SIZE
    rows_and_widths = {"lora": 2 * 4 * (HIDDEN_SIZE + 64), "bottleneck": bottleneck, "merged_bottleneck": bottleneck,
                       "ffn_clone": 2 * HIDDEN_SIZE * 64}  # fmt: skip
    assert adapter in rows_and_widths, "add the multiply-adds per token of the new adapter kind to this test"
    # biases of the output are mixed once per row, hence the small tolerance
    assert flops(base) - without == pytest.approx(2 * IDS_BS.numel() * rows_and_widths[adapter] * NUM_LAYERS, rel=0.02)
