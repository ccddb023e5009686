"""The smaller model against the whole one, in float64: equal at threshold 0, by its formula above."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from tests.generative.lm import base_lm, batch_for, codec_of, trained_lm
from tests.nn.equipped import IDS_BS, MASK_BS, base_model, equipped, randomise
from transformers import PreTrainedModel

from alter.data.encode import Features
from alter.errors import ConfigError
from alter.extracting.choose import Choice, choose
from alter.extracting.router import router_of
from alter.extracting.smaller import smaller_config, smaller_model
from alter.model import MTAModel
from alter.model_config import AlterConfig, BaseInfo
from alter.mta_settings import ADAPTERS, GATES, OWNERS
from alter.nn.mixing import Weights
from alter.tasks.spec import TaskSpec

TASKS = {"intent": 3, "mood": 2, "stars": 1}
N, M = len(TASKS), 2
SELECTORS = [kind for kind in GATES.names() if kind != "outputs"]
ROUTERS = [("selector", kind, "task", "all") for kind in SELECTORS] + [
    ("gate", selector, gate, over)
    for selector, gate in itertools.product(SELECTORS, GATES.names())
    for over in (("all", "shared") if gate in ("task", "linear") else ("all",))
]


def spec_of(name: str, outputs: int) -> TaskSpec:
    if outputs == 1:
        return TaskSpec(name=name, kind="regression")
    return TaskSpec(name=name, labels=[str(label) for label in range(outputs)])


def config_of(model: MTAModel, **changes: Any) -> AlterConfig:
    kinds: dict[str, Any] = {"tasks": [spec_of(name, outputs) for name, outputs in TASKS.items()]}
    if model.kind != "encoder":
        kinds = {"tasks": [TaskSpec(name=name, kind="generation") for name in model.task_names]}
    base = BaseInfo(name="base", model_type="bert", fingerprint="none")
    told = {"alter_version": "0", "name": "whole", "base": base, "preset": "alter-lite", "router": model.router, "max_length": 32}
    return AlterConfig.model_validate({**told, "mta": model.settings, "heads": model.head_settings, **kinds, **changes})


def whole_model(adapter: str, router: Any, selector: str, gate: str, over: str, **more: Any) -> MTAModel:
    """Return a model in which everything has trained."""
    granularity = more.pop("granularity", "sequence")
    mta = {
        "adapter": {"kind": adapter, "r": 4},
        "selector": {"kind": selector, "granularity": granularity},
        "gate": {"kind": gate, "over": over, "granularity": granularity},
        "num_shared": 0 if gate in OWNERS else M,
        **more,
    }
    return randomise(equipped(mta, tasks=TASKS, router=router), "task_adapters", "shared_adapters", "selector", "gate")


def extracted(
    model: MTAModel,
    task: int,
    *,
    threshold: float = 0.0,
    renormalise: bool = False,
    rows: Sequence[Features] | None = None,
    base: PreTrainedModel | None = None,
) -> tuple[MTAModel, Choice]:
    config = config_of(model)
    router = router_of(config, task)
    codec: Any = None if model.kind == "encoder" else codec_of(model.kind)
    choice = choose(model, router, threshold=threshold, rows=rows, codec=codec, renormalise=renormalise)
    small = smaller_config(config, model, router, choice)
    return smaller_model(model, base or base_model(), small, router, choice, renormalise=renormalise), choice


def outputs(model: MTAModel, task: int) -> torch.Tensor:
    """Return hidden states and the task's own outputs, side by side."""
    ids_B = torch.full((len(IDS_BS),), task)
    with torch.no_grad():
        out = model(IDS_BS, MASK_BS, task_ids=ids_B)
    logits_BC = out.logits[:, out.logits[0].isfinite()]
    return torch.cat([out.last_hidden_state.flatten(1), logits_BC], dim=1)


def assert_equal(small: MTAModel, whole: MTAModel, task: int) -> None:
    torch.testing.assert_close(outputs(small, 0), outputs(whole, task), rtol=0, atol=1e-10)


# ---- threshold 0 -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("router", "selector", "gate", "over"), ROUTERS)
def test_threshold_0_answers_as_the_whole_model(router: str, selector: str, gate: str, over: str) -> None:
    reads = "linear" in (selector, gate)
    for granularity in ("sequence", "token") if reads else ("sequence",):
        whole = whole_model("lora", router, selector, gate, over, granularity=granularity)
        for task in range(N):
            small, choice = extracted(whole, task)
            assert small.task_names == [list(TASKS)[task]]
            assert_equal(small, whole, task)
            if selector in ("one_hot", "taps") and (router == "selector" or gate in (selector, "outputs") or over == "shared"):
                assert len([column for column in choice.columns if column < N]) <= 1


@pytest.mark.parametrize("adapter", ADAPTERS.names())
@pytest.mark.parametrize("gate", ["linear", "outputs", "task"])
@pytest.mark.parametrize("num_adapters", [None, 2])
def test_threshold_0_with_every_adapter_kind_and_fewer_adapters_than_tasks(
    adapter: str, gate: str, num_adapters: int | None
) -> None:
    whole = whole_model(adapter, "gate", "one_hot", gate, "shared", num_adapters=num_adapters)
    randomise(whole, "backbone", scale=0.01)  # what preset alter trains too
    for task in range(N):
        small, choice = extracted(whole, task)
        assert choice.columns == [task % (num_adapters or N), *range(num_adapters or N, (num_adapters or N) + M)]
        assert_equal(small, whole, task)


@pytest.mark.parametrize("name", ["t5", "gpt2", "encoder_decoder"])
@pytest.mark.parametrize("gate", [{"kind": "task", "over": "all"}, {"kind": "linear"}, {"kind": "outputs"}])
@pytest.mark.parametrize("granularity", ["sequence", "token"])
def test_models_that_write_answer_as_the_whole_one(name: str, gate: dict[str, Any], granularity: str) -> None:
    whole = trained_lm(name, {"selector": {"kind": "selector"}, "gate": {**gate, "granularity": granularity}})
    for task in range(len(whole.task_names)):
        small, _ = extracted(whole, task, base=base_lm(name))
        batch = batch_for(whole.kind)
        with torch.no_grad():
            expected = whole(**batch.inputs, task_ids=torch.full_like(batch.task_ids_B, task), **batch.supervised)
            found = small(**batch.inputs, task_ids=torch.zeros_like(batch.task_ids_B), **batch.supervised)
        torch.testing.assert_close(found.losses, expected.losses, rtol=0, atol=1e-10)


# ---- adapters left out -----------------------------------------------------------------------------------------------


class Fixed(torch.nn.Module):
    """Weights that are given, (E,), for every row."""

    def __init__(self, weights_E: torch.Tensor) -> None:
        super().__init__()
        self.weights_E = weights_E

    def forward(self, inputs: Any) -> Any:
        return Weights(values=self.weights_E.expand(inputs.x_BSD.shape[0], -1))


def with_weights(whole: MTAModel, weights_LE: torch.Tensor) -> MTAModel:
    """Put fixed weights in the place of the router at work."""
    for mta, weights_E in zip(whole.mtas, weights_LE, strict=True):
        setattr(mta, whole.router, Fixed(weights_E))
    return whole


@pytest.mark.parametrize("renormalise", [False, True])
@pytest.mark.parametrize(("router", "selector", "gate"), [("selector", "selector", "task"), ("gate", "task", "task")])
def test_adapters_below_the_threshold_are_left_out_and_the_others_weigh_what_they_should(
    renormalise: bool, router: Any, selector: str, gate: str
) -> None:
    whole = randomise(whole_model("lora", router, selector, gate, "all"), router, scale=1.0, seed=2)
    task, threshold = 1, 0.5
    small, choice = extracted(whole, task, threshold=threshold, renormalise=renormalise)
    means_LE = choice.means_LE
    assert means_LE is not None
    kept = [e for e in range(means_LE.shape[1]) if max(float(site[e]) for site in means_LE) >= threshold]
    assert kept == choice.columns
    assert 0 < len(kept) < len(means_LE[0])
    expected_LE = torch.zeros_like(means_LE)
    for site in range(len(whole.mtas)):
        own = [e for e in kept if e < N]
        scale = float(means_LE[site, :N].sum() / means_LE[site, own].sum()) if renormalise else 1.0
        for e in kept:
            expected_LE[site, e] = means_LE[site, e] * (scale if e < N else 1.0)
        if renormalise:
            assert float(expected_LE[site, :N].sum()) == pytest.approx(float(means_LE[site, :N].sum()))
    assert small.num_adapters == len([e for e in kept if e < N])
    assert small.settings.num_shared == len([e for e in kept if e >= N])
    assert_equal(small, with_weights(whole, expected_LE), task)


def test_a_threshold_above_all_weights_keeps_the_largest_task_adapter_alone() -> None:
    whole = whole_model("lora", "selector", "selector", "task", "all")
    small, choice = extracted(whole, 2, threshold=1.0)
    assert choice.means_LE is not None
    assert choice.columns == [int(choice.means_LE[:, :N].amax(0).argmax())]
    assert len(list(small.mtas[0].bank.adapters)) == 1  # type: ignore[arg-type]


@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_sites_that_taps_switched_off_are_left_out(adapter: str) -> None:
    whole = whole_model(adapter, "selector", "taps", "task", "shared")
    scores = [[0.5, 0.0, 0.0], [0.5, 0.5, 0.0]]
    with torch.no_grad():
        for mta, scores_T in zip(whole.mtas, scores, strict=True):
            for score, value in zip(mta.selector.scores, scores_T, strict=True):  # type: ignore[union-attr, arg-type]
                score.fill_(value)
    for task, (sites, setting) in enumerate([([0, 1], "all"), ([1], [1]), ([], "none")]):
        small, choice = extracted(whole, task)
        assert choice.sites == sites
        assert small.settings.sites == setting
        assert [mta.position for mta in small.mtas] == sites
        assert_equal(small, whole, task)


def test_shared_adapters_alone_keep_a_task_adapter_beside_them() -> None:
    whole = whole_model("lora", "gate", "taps", "task", "shared")
    with torch.no_grad():
        for mta in whole.mtas:
            mta.selector.scores[1].fill_(0.0)  # type: ignore[union-attr, index]
    small, choice = extracted(whole, 1)
    assert choice.columns == [1, N, N + 1]
    assert small.num_adapters == 1
    assert_equal(small, whole, 1)


@pytest.mark.parametrize("threshold", [0.0, 0.2])
@pytest.mark.parametrize("num_adapters", [None, 2])
@pytest.mark.parametrize(("gate", "over"), [("linear", "shared"), ("outputs", "all"), ("task", "shared")])
def test_a_task_that_taps_switched_off_everywhere_keeps_its_own_adapter_beside_the_shared_ones(
    gate: str, over: str, num_adapters: int | None, threshold: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = whole_model("lora", "gate", "taps", gate, over, num_adapters=num_adapters)
    number = num_adapters or N
    with torch.no_grad():
        for mta in whole.mtas:
            mta.selector.scores[2].fill_(0.0)  # type: ignore[union-attr, index]
    means_LE = torch.tensor([*[0.0] * number, 0.3, 0.4], dtype=torch.float64).expand(2, -1)
    monkeypatch.setattr("alter.extracting.choose.task_map", lambda *_, **__: means_LE)
    small, choice = extracted(whole, 2, threshold=threshold, rows=[])
    assert choice.columns == [2 % number, number, number + 1]
    assert_equal(small, whole, 2)


@pytest.mark.parametrize("granularity", ["sequence", "token"])
@pytest.mark.parametrize("role", ["selector", "gate"])
def test_a_softmax_by_row_goes_over_the_kept_adapters(role: Any, granularity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renormalised: each row's weights of the kept task adapters, scaled to the sum of all, which is one."""
    settings = ("selector", "linear", "task", "all") if role == "selector" else ("gate", "one_hot", "linear", "all")
    whole = whole_model("lora", *settings, granularity=granularity)
    means_LE = torch.tensor([[0.6, 0.1, 0.3, 0.2, 0.0], [0.6, 0.2, 0.2, 0.1, 0.5]], dtype=torch.float64)
    monkeypatch.setattr("alter.extracting.choose.task_map", lambda *_, **__: means_LE)
    small, choice = extracted(whole, 1, threshold=0.25, renormalise=True, rows=[])
    assert choice.columns == ([0, 2] if role == "selector" else [0, 2, 4])
    kept_E = torch.zeros(N + M, dtype=torch.float64)
    kept_E[choice.columns] = 1.0
    for mta in whole.mtas:
        module: Any = getattr(mta, role)
        module.register_forward_hook(lambda _, args, weights: masked(weights, kept_E))
    assert_equal(small, whole, 1)


def masked(weights: Any, kept_E: torch.Tensor) -> Any:
    values = weights.values * kept_E[: weights.values.shape[-1]]
    total = weights.values[..., :N].sum(-1, keepdim=True) / values[..., :N].sum(-1, keepdim=True)
    return Weights(values=torch.cat([values[..., :N] * total, values[..., N:]], dim=-1))


# ---- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "renormalise", "told"),
    [
        (
            ("gate", "one_hot", "linear", "all"),
            False,
            r"gate is of kind linear, a softmax.*add --renormalise, or extract with --thre",
        ),
        (("selector", "linear", "task", "all"), False, r"selector is of kind linear"),
        (("gate", "linear", "task", "shared"), False, r"selector is of kind linear"),
        (("gate", "selector", "outputs", "all"), True, r"gate is of kind outputs, which reads what each adapter says"),
    ],
)
def test_what_fewer_adapters_cannot_say_is_refused(
    settings: tuple[Any, ...], renormalise: bool, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = whole_model("lora", *settings)
    monkeypatch.setattr(
        "alter.extracting.choose.task_map", lambda *_, **__: torch.tensor([[0.9, 0.05, 0.05, 0.3, 0.3]]).expand(2, -1)
    )
    with pytest.raises(ConfigError, match=told):
        extracted(whole, 0, threshold=0.2, renormalise=renormalise, rows=[])


def test_the_largest_few_of_all_adapters_need_all_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    mta = {"selector": {"kind": "linear", "top_k": 2}, "num_shared": M}
    whole = randomise(equipped(mta, tasks=TASKS), "task_adapters", "selector")
    assert_equal(extracted(whole, 1)[0], whole, 1)
    monkeypatch.setattr(
        "alter.extracting.choose.task_map", lambda *_, **__: torch.tensor([[0.9, 0.05, 0.05, 0, 0]]).expand(2, -1)
    )
    with pytest.raises(ConfigError, match=r"selector keeps the 2 largest of all task adapters.*--threshold 0"):
        extracted(whole, 0, threshold=0.2, renormalise=True, rows=[])


def test_a_kind_of_which_nothing_is_known_is_refused() -> None:
    whole = whole_model("lora", "gate", "one_hot", "task", "all")
    config = config_of(whole)
    gate = config.mta.gate.model_copy(update={"kind": "sigmoid"})
    router = router_of(config.model_copy(update={"mta": config.mta.model_copy(update={"gate": gate})}), 0)
    with pytest.raises(ConfigError, match=r"the model's gate is of kind sigmoid, .*allowed: adamix, linear, one_hot, outputs"):
        router.check_known()
