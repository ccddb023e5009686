"""MTAModel on every family under both presets: mixed tasks, copies, unequipping, checkpointing, and its messages."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.nn.equipped import IDS_BS, MASK_BS, NAMES, TASKS_B, base_model, equipped, hidden, randomise
from tests.tiny import FAMILY_NAMES
from transformers import BertForSequenceClassification

from alter.errors import AlterError, ConfigError, ModelError, TaskError
from alter.model import MTAModel, choose_sites, equip
from alter.nn.mta import MTA
from alter.presets import PRESETS

PRESET_NAMES = ("alter", "alter-lite")
TASKS = {"intent": 3, "urgency": 2, "mood": 5, "score": 1}

every_family = pytest.mark.parametrize("family", FAMILY_NAMES)
both_presets = pytest.mark.parametrize("preset", PRESET_NAMES)
both_routers = pytest.mark.parametrize("router", ["selector", "gate"])


def trained(family: str, preset: Any, router: Any = "selector", *, dtype: torch.dtype = torch.float64, **more: Any) -> MTAModel:
    """Return an equipped model whose parts all changed, as after training."""
    model = equipped(family=family, preset=preset, router=router, dtype=dtype, **more)
    return randomise(model, "task_adapters", "shared_adapters", "selector", "gate", "heads", scale=0.1)


def base_output(family: str, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    with torch.no_grad():
        state: torch.Tensor = base_model(family, dtype=dtype)(IDS_BS, MASK_BS).last_hidden_state
    return state


# ---- every family under both presets ---------------------------------------------------------------------------------


@every_family
@both_presets
@both_routers
@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_a_mixed_batch_equals_its_rows_alone(family: str, preset: Any, router: Any, dtype: torch.dtype, atol: float) -> None:
    model = trained(family, preset, router, dtype=dtype, tasks=TASKS)
    with torch.no_grad():
        together = model(IDS_BS, MASK_BS, task_ids=TASKS_B)
        for row, length in enumerate(MASK_BS.sum(1).tolist()):
            alone = model(IDS_BS[row : row + 1, :length], task_ids=TASKS_B[row : row + 1])
            states = together.last_hidden_state[row : row + 1, :length]
            torch.testing.assert_close(states, alone.last_hidden_state, rtol=0, atol=atol)
            torch.testing.assert_close(together.logits[row : row + 1], alone.logits, rtol=0, atol=atol)


@every_family
@both_presets
def test_tasks_differ_in_what_they_make_of_a_row(family: str, preset: Any) -> None:
    model = trained(family, preset)
    same_row = IDS_BS[:1].expand(4, -1)
    states = hidden(model, same_row, None, task_ids=torch.arange(4))
    for first in range(4):
        for second in range(first):
            assert (states[first] - states[second]).abs().max() > 1e-4


@every_family
@both_presets
@both_routers
def test_a_deep_copy_has_its_own_adapters(family: str, preset: Any, router: Any) -> None:
    model = trained(family, preset, router)
    before = hidden(model)
    twin = copy.deepcopy(model)
    assert torch.equal(hidden(twin), before)
    randomise(twin, "task_adapters", "shared_adapters", "gate", seed=9)
    assert torch.equal(hidden(model), before)
    changed = hidden(twin)
    assert (changed - before).abs().max() > 1e-3
    randomise(model, "task_adapters", "shared_adapters", "gate", seed=5)
    assert torch.equal(hidden(twin), changed)


@every_family
@both_presets
def test_a_deep_copy_shares_no_module_and_no_state_with_the_original(family: str, preset: Any) -> None:
    model = trained(family, preset)
    twin = copy.deepcopy(model)
    assert not {id(module) for module in model.modules()} & {id(module) for module in twin.modules()}
    assert all(mta.state is twin.state for mta in twin.mtas)
    twin.router = "gate"
    assert model.router == "selector"
    with twin.disable_adapter():
        assert (hidden(model) - base_output(family)).abs().max() > 1e-4


@every_family
@both_presets
@both_routers
def test_unequip_gives_back_the_stock_model_bit_for_bit(family: str, preset: Any, router: Any) -> None:
    stock = base_model(family)
    traces = leftovers(stock)
    model = trained(family, preset, router)
    assert (hidden(model) - base_output(family)).abs().max() > 1e-4
    given_back = model.unequip()
    assert type(given_back) is type(stock)
    with torch.no_grad():
        assert torch.equal(given_back(IDS_BS, MASK_BS).last_hidden_state, base_output(family))
    assert leftovers(given_back) == traces
    assert list(given_back.state_dict()) == list(stock.state_dict())
    assert all(torch.equal(value, given_back.state_dict()[name]) for name, value in stock.state_dict().items())


def leftovers(model: torch.nn.Module) -> dict[str, Any]:
    """Return what an MTA could leave behind: hooks, attributes and children, by module."""
    return {
        name: (len(module._forward_hooks), len(module._forward_pre_hooks), sorted(module.__dict__), sorted(module._modules))
        for name, module in model.named_modules()
    }


@every_family
@both_presets
def test_a_model_can_be_equipped_again_after_unequip(family: str, preset: Any) -> None:
    model = trained(family, preset)
    again = MTAModel(model.unequip(), task_names=NAMES, settings=model.settings)
    torch.testing.assert_close(hidden(again.double()), base_output(family), rtol=0, atol=1e-10)


@every_family
@both_presets
def test_base_weights_keep_their_names_and_values(family: str, preset: Any) -> None:
    stock = base_model(family).state_dict()
    model = trained(family, preset)
    found = model.backbone.state_dict()
    for name, value in stock.items():
        assert torch.equal(found[name], value), name
    assert all(".mta." in name for name in found.keys() - stock.keys())
    assert found.keys() - stock.keys()


@every_family
@both_presets
@both_routers
def test_disable_adapter_is_the_base_model(family: str, preset: Any, router: Any) -> None:
    model = trained(family, preset, router)
    with model.disable_adapter():
        assert torch.equal(hidden(model), base_output(family))
        with model.disable_adapter():
            pass
        assert torch.equal(hidden(model), base_output(family))
    assert (hidden(model) - base_output(family)).abs().max() > 1e-4


def gradients(model: MTAModel, batches: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return gradients of one backward pass after a forward pass per tensor of task ids."""
    model.zero_grad()
    probe = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    outputs = [model(IDS_BS, MASK_BS, task_ids=task_ids_B).last_hidden_state for task_ids_B in batches]
    sum((output * probe * (position + 1)).sum() for position, output in enumerate(outputs)).backward()  # type: ignore[union-attr]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@every_family
@both_presets
@both_routers
def test_gradient_checkpointing_gives_the_same_gradients(family: str, preset: Any, router: Any) -> None:
    model = trained(family, preset, router).train()
    model.set_trainable(["task_adapters", "shared_adapters", "selector", "gate", "backbone"])
    for batches in ([TASKS_B], [TASKS_B, TASKS_B.flip(0)]):
        expected = gradients(model, batches)
        checkpointed = copy.deepcopy(model)
        checkpointed.gradient_checkpointing_enable()
        recomputed = count_sites(checkpointed)
        found = gradients(checkpointed, batches)
        assert recomputed() == 2 * len(batches) * len(model.mtas)  # so it did recompute
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-10, msg=name)
        # nothing of the pass may stay behind: a copy would fail, and memory would be held
        assert checkpointed.state.route is None
        copy.deepcopy(checkpointed)


def count_sites(model: MTAModel) -> Any:
    runs: list[int] = []
    for ffn in model.ffns:
        ffn.inputs[0].register_forward_hook(lambda *_: runs.append(1))
    return lambda: len(runs)


def test_recomputation_uses_the_router_of_its_own_pass() -> None:
    model = trained("bert", "alter-lite").train()
    model.set_trainable(["task_adapters", "shared_adapters", "gate"])
    expected = gradients(model, [TASKS_B])
    model.gradient_checkpointing_enable()
    model.zero_grad()
    probe = torch.randn(1, 1, 32, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    loss = (model(IDS_BS, MASK_BS, task_ids=TASKS_B).last_hidden_state * probe).sum()
    model.router = "gate"
    with model.disable_adapter():
        loss.backward()
    assert model.router == "gate"
    for name, parameter in model.named_parameters():
        if name in expected:
            assert parameter.grad is not None
            torch.testing.assert_close(parameter.grad, expected[name], rtol=0, atol=1e-10)


def test_a_copy_of_a_checkpointed_model_routes_by_its_own_tasks() -> None:
    model = trained("bert", "alter-lite").train()
    model.set_trainable(["task_adapters"])
    expected = gradients(model, [TASKS_B])
    model.gradient_checkpointing_enable()
    twin = copy.deepcopy(model)
    loss = gradients(twin, [TASKS_B])
    for name, value in expected.items():
        torch.testing.assert_close(loss[name], value, rtol=0, atol=1e-10)


# ---- sites and parameters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "chosen"),
    [
        ("all", [0, 1, 2, 3, 4]),
        ("last", [4]),
        ("every-1", [0, 1, 2, 3, 4]),
        ("every-2", [0, 2, 4]),
        ("every-3", [1, 4]),
        ("every-9", [4]),
        ([3, 0], [0, 3]),
        ([-1, 1], [1, 4]),
    ],
)
def test_sites_are_chosen_as_settings_say(sites: Any, chosen: list[int]) -> None:
    assert choose_sites(sites, 5) == chosen


@pytest.mark.parametrize("sites", [[5], [0, 7], [-6]])
def test_a_site_that_does_not_exist_is_refused(sites: list[int]) -> None:
    with pytest.raises(ConfigError, match=r"mta.sites names .* this model has 5 FFNs; allowed: 0 to 4"):
        choose_sites(sites, 5)


def test_only_the_chosen_sites_carry_an_mta() -> None:
    model = equipped({"sites": [1]}, num_layers=3)
    assert [name for name, module in model.named_modules() if isinstance(module, MTA)] == ["backbone.encoder.layer.1.mta"]
    with model.record_weights() as recorded:
        hidden(model)
    assert list(recorded) == [1]


@both_presets
def test_groups_hold_every_parameter_once(preset: Any) -> None:
    model = equipped(preset=preset, tasks=TASKS)
    groups = model.parameter_groups()
    ids = [id(parameter) for group in groups.values() for parameter in group.values()]
    replaced = {id(p) for ffn in model.ffns for m in ffn.projections for p in m.parameters()} if preset == "alter" else set()
    assert len(ids) == len(set(ids))
    assert set(ids) | replaced == {id(parameter) for parameter in model.parameters()}
    assert not set(ids) & replaced
    counts = model.count_parameters()
    assert counts["total"] == sum(parameter.numel() for parameter in model.parameters())
    assert counts["heads"] == 11 * 33


def test_only_the_named_groups_train() -> None:
    model = equipped(tasks=TASKS)
    trainable = model.set_trainable(["shared_adapters", "gate"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(trainable)
    assert all(".gate." in name or ".adapters.4." in name or ".adapters.5." in name for name in trainable)
    number = sum(parameter.numel() for parameter in trainable.values())
    assert model.describe_trainable().startswith(f"trainable params: {number:,} || all params: ")


def test_an_equipped_model_can_be_pickled_and_read_back() -> None:
    model = trained("bert", "alter")
    again = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own bytes; processes are started this way
    assert torch.equal(hidden(again), hidden(model))


# ---- messages --------------------------------------------------------------------------------------------------------


def test_a_batch_without_task_ids_is_refused() -> None:
    model = equipped()
    with pytest.raises(TypeError, match="task_ids"):
        model(IDS_BS, MASK_BS)
    with pytest.raises(ModelError, match=r"without task ids; call it through the MTAModel, with task_ids="):
        model.backbone(IDS_BS, MASK_BS)


@pytest.mark.parametrize("task_ids", [torch.tensor([0, 1]), torch.zeros(5, 1, dtype=torch.int64), torch.tensor(1)])
def test_task_ids_of_another_shape_are_refused(task_ids: torch.Tensor) -> None:
    with pytest.raises(TaskError, match=r"task_ids has shape .*, but the batch has 5 rows; give one task id per row"):
        equipped()(IDS_BS, MASK_BS, task_ids=task_ids)


@pytest.mark.parametrize("kind", ["one_hot", "selector", "linear"])
@pytest.mark.parametrize("wrong", [4, -1])
def test_a_task_id_that_no_task_has_is_refused(kind: str, wrong: int) -> None:
    model = equipped({"selector": {"kind": kind}})
    with pytest.raises(TaskError, match=rf"task_ids holds \[{wrong}\], but the model has 4 tasks; allowed: 0 to 3"):
        model(IDS_BS, MASK_BS, task_ids=torch.tensor([0, wrong, 1, 2, 3]))
    assert model.state.route is None
    assert hidden(model).isfinite().all()


def test_a_task_id_that_no_task_has_is_refused_where_only_heads_read_it() -> None:
    model = equipped(tasks={"mood": 2, "intent": 3})
    with model.disable_adapter(), pytest.raises(TaskError, match=r"task_ids holds \[2, 3\], but the model has 2 tasks"):
        model(IDS_BS, MASK_BS, task_ids=TASKS_B)


def test_a_token_id_that_does_not_exist_is_not_blamed_on_the_task() -> None:
    with pytest.raises(IndexError, match="index out of range"):
        equipped()(IDS_BS + 1000, MASK_BS, task_ids=TASKS_B)


def test_an_unknown_task_name_is_refused_with_the_nearest() -> None:
    model = equipped()
    assert model.task_ids(["mood", "intent"]).tolist() == [2, 0]
    with pytest.raises(
        TaskError, match=r"unknown task 'urgnecy'; allowed: intent, mood, score, urgency. Did you mean 'urgency'\?"
    ):
        model.task_ids(["mood", "urgnecy"])


@pytest.mark.parametrize(("first", "second"), [("last", "all"), ("all", "all"), ([0], [1])])
def test_a_model_is_equipped_once_and_a_second_try_leaves_it_as_it_was(first: Any, second: Any) -> None:
    model = equipped({"sites": first})
    before, names = hidden(model), list(model.state_dict())
    with pytest.raises(ModelError, match=r"already carries an MTA .*load the base model afresh, or call unequip\(\) first"):
        equip(model.backbone, tasks=["a"], mta={"sites": second})
    assert torch.equal(hidden(model), before)
    assert list(model.state_dict()) == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"preset": "alter-light"}, r"unknown preset 'alter-light'; allowed: alter, alter-lite. Did you mean 'alter-lite'\?"),
        ({"mta": {"adapter": {"kind": "lroa"}}}, r"adapter.kind.*unknown adapter kind 'lroa'.*Did you mean 'lora'\?"),
        ({"mta": {"gate": {"kind": "liner"}}}, r"gate.kind.*unknown gate kind 'liner'.*Did you mean 'linear'\?"),
        ({"mta": {"selector": {"kind": "onehot"}}}, r"selector.kind.*unknown gate kind 'onehot'.*Did you mean 'one_hot'\?"),
        ({"mta": {"adaptor": {}}}, r"adaptor.*Did you mean 'adapter'\?"),
        ({"mta": {"sites": [2]}}, r"mta.sites names \[2\], but this model has 2 FFNs; allowed: 0 to 1"),
        ({"mta": {"sites": "each"}}, r"must be all, last, none, every-K"),
        ({"mta": {"adapter": {"r": 0}}}, r"adapter.r"),
        ({"heads": {"pooling": "first"}}, r"pooling"),
        ({"tasks": []}, r"tasks.* is empty; name at least one task"),
        ({"tasks": ["a", "b", "a"]}, r"names \['a'\] more than once; give each task its own name"),
        ({"tasks": {"a": 2, "b": 0}}, r"gives \['b'\] no outputs; give the number of labels, or 1 for a regression"),
    ],
)
def test_wrong_settings_are_refused_by_name_and_leave_the_model_stock(given: dict[str, Any], message: str) -> None:
    base = base_model()
    traces = leftovers(base)
    with pytest.raises(ConfigError, match=message):
        equip(base, **{"tasks": NAMES, **given})
    assert leftovers(base) == traces


def test_a_model_that_cuts_rows_into_pieces_is_refused() -> None:
    base = base_model()
    base.config.chunk_size_feed_forward = 3
    with pytest.raises(ModelError, match=r"config.chunk_size_feed_forward is 3.*load it with chunk_size_feed_forward=0"):
        equip(base, tasks=NAMES)


# ---- what equip leaves behind, and its page --------------------------------------------------------------------------


def test_labels_by_the_name_of_transformers_are_refused() -> None:
    with pytest.raises(TaskError, match=r"labels=.* was given, but an MTAModel takes label_ids=.* and targets="):
        equipped(tasks=TASKS)(IDS_BS, MASK_BS, task_ids=TASKS_B, labels=torch.zeros(5))


@both_presets
@both_routers
def test_an_equipped_model_has_the_dtype_of_its_base_and_runs(preset: Any, router: Any) -> None:
    model = equip(base_model(dtype=torch.bfloat16), tasks=TASKS, preset=preset)
    model.router = router
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert model(IDS_BS, MASK_BS, task_ids=TASKS_B, targets=torch.zeros(5)).loss.isfinite()


def test_an_equipped_model_is_where_its_base_is() -> None:
    model = equip(base_model().to("meta"), tasks=TASKS)
    assert {tensor.device.type for tensor in [*model.mtas[0].parameters(), *model.heads.parameters()]} == {"meta"}  # type: ignore[union-attr]


def test_a_model_with_a_head_of_its_own_is_refused() -> None:
    headed = BertForSequenceClassification(base_model().config)
    with pytest.raises(ModelError, match=r"BertForSequenceClassification has a head .*\(BertModel\). Load it with AutoModel"):
        equip(headed, tasks=NAMES)
    assert equip(headed.base_model, tasks=NAMES).site_positions == [0, 1]


@both_presets
def test_equip_leaves_trainable_what_stage_one_trains(preset: Any) -> None:
    model = equip(base_model(), tasks=TASKS, preset=preset)
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    trains = PRESETS[preset]["stages"]["stage1"]["trains"]
    groups = model.parameter_groups()
    assert trainable == {name for group in trains for name in groups[group]}
    assert ("backbone.embeddings.word_embeddings.weight" in trainable) == (preset == "alter")


@pytest.mark.parametrize(
    ("mta", "message"),
    [
        ({"num_adapters": 9}, r"equip\(mta=...\): mta.num_adapters is 9, but the recipe has 4 tasks"),
        ({"gate": {"kind": "one_hot"}}, r"mta.gate.kind one_hot gives shared adapters no weight"),
        ({"selector": {"kind": "outputs"}}, r"mta.selector.kind is outputs, which weighs what a selector has mixed"),
        ({"adapter": {"kind": "ffn_clone"}, "selector": {"kind": "task"}}, r"starts them equal, so that they would stay equal"),
    ],
)
def test_equip_refuses_what_a_recipe_refuses(mta: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        equip(base_model(), tasks=NAMES, mta=mta)


@pytest.mark.parametrize("gate", ["task", "linear"])
def test_shared_copies_grow_apart_and_other_adapters_start_with_equal_weights(gate: str) -> None:
    def model_of(kind: str) -> MTAModel:
        return equipped({"adapter": {"kind": kind}, "gate": {"kind": gate}}, tasks=TASKS, router="gate")

    torch.testing.assert_close(hidden(model_of("ffn_clone")), base_output("bert"), rtol=0, atol=1e-10)
    model = model_of("ffn_clone")
    model(IDS_BS, MASK_BS, task_ids=TASKS_B, targets=torch.ones(5)).loss.backward()
    first, second = (model.mtas[0].bank.get_parameter(f"adapters.{place}.weights.0").grad for place in (4, 5))
    assert first is not None
    assert second is not None
    assert (first - second).abs().max() > 1e-3 * first.abs().max() > 0
    for kind in ("lora", "bottleneck"):
        assert not any(mta.gate.get_parameter("shared_logits_TM").any() for mta in model_of(kind).mtas)


def test_the_training_loop_of_its_how_to_page_learns() -> None:
    page = (Path(__file__).parents[1] / "docs" / "how-to" / "equip.md").read_text(encoding="utf-8")
    [code] = re.findall(r"^```python\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 - our own page
    assert names["stage1"][-1] < 0.7 * names["stage1"][0]
    assert names["stage2"][-1] < names["stage1"][0]
    assert names["logits"].isinf().tolist() == [[False] * 3, [False, True, True]] * 2


def test_every_message_above_is_one_that_a_user_can_mend() -> None:
    assert all(issubclass(error, AlterError) and error.exit_code == 2 for error in (ConfigError, ModelError, TaskError))
