"""Every arm says what its title says: its recipe, and which recipes it says anything about."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.comparing.given import ARM, NAMES, OTHER, of, resolve
from tests.tiny import tiny_lm, tiny_model

from alter.comparing.arms import ARMS, has_stage2
from alter.comparing.changes import FINE_TUNING, INFORMATION, SPARSITY
from alter.comparing.choice import main_arm
from alter.comparing.matched import matched_rank, matched_width
from alter.model import equip
from alter.mta_settings import GATES as GATE_KINDS
from alter.mta_settings import GateSettings
from alter.presets import PRESETS
from alter.recipe import Recipe, resolve_recipe

TRAINED = [arm.name for arm in ARMS if arm.kind in ("train", "per-task") and arm.family != "peer"]


@pytest.fixture(params=["alter-lite", "alter"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return resolve(preset=request.param)


# ---- what holds for all of them ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRAINED)
def test_an_arm_is_a_valid_recipe_that_reads_back_as_it_is(recipe: Recipe, name: str) -> None:
    task = "topic" if ARM[name].kind == "per-task" else None
    found = of(name, recipe, task=task)
    assert found.name == f"toy-{name}"
    assert found.seed == 3
    again = resolve_recipe(found.model_dump(mode="json"), folder=Path("/data"), where="again")
    assert again == found
    # What a comparison holds alike.
    assert (found.model_name_or_path, found.max_length, found.heads) == (
        recipe.model_name_or_path,
        recipe.max_length,
        recipe.heads,
    )
    assert found.train.model_dump(exclude={"test_stages"}) == recipe.train.model_dump(exclude={"test_stages"})
    assert [one.name for one in found.tasks] == ([task] if task else list(NAMES))
    assert found.train.test_stages == ("all" if has_stage2(found) else "released")


@pytest.mark.parametrize("name", TRAINED)
def test_one_stage_has_the_epochs_of_both(recipe: Recipe, name: str) -> None:
    found = of(name, recipe)
    epochs = {stage: settings.num_train_epochs for stage, settings in found.stages.items()}
    own = {stage: settings.num_train_epochs for stage, settings in recipe.stages.items()}
    if name == OTHER[recipe.preset]:
        assert epochs["stage2"] == PRESETS[name]["stages"]["stage2"]["num_train_epochs"]
        assert sum(epochs.values()) == sum(own.values())
    elif name == "stage1":
        assert epochs == {"stage1": own["stage1"]}
    elif ARM[name].base == "stage1" or name == recipe.preset:
        assert epochs == own
    else:
        assert epochs == {"stage1": own["stage1"] + own["stage2"]}


LIMITS: list[tuple[dict[str, Any], dict[str, Any], float, int | None]] = [
    ({"max_steps": 30}, {"max_steps": 12}, 4.5, 42),
    ({}, {}, 4.5, None),
    # Never fewer steps than both stages took: where one has no limit, their sum has none.
    ({"max_steps": 30}, {}, 4.5, None),
    ({}, {"max_steps": 12}, 4.5, None),
    ({"max_steps": 30, "num_train_epochs": 2.5}, {"max_steps": 12, "num_train_epochs": 0.5}, 3.0, 42),
    ({"max_steps": 30}, {"max_steps": 12, "num_train_epochs": 0}, 4, 30),  # a stage that is skipped has no steps to give
]


@pytest.mark.parametrize(("first", "second", "epochs", "steps"), LIMITS)
@pytest.mark.parametrize("name", ["single-full", "single-lora", "multi-full", "shared-lora", "stage1-longer", "one-go"])
def test_limits_on_steps_are_added_up(
    name: str, first: dict[str, Any], second: dict[str, Any], epochs: float, steps: int | None
) -> None:
    found = of(name, resolve({"stages": {"stage1": first, "stage2": second}})).stages["stage1"]
    assert (found.num_train_epochs, found.max_steps) == (epochs, steps)


def test_a_stage_1_from_elsewhere_is_no_arm_s() -> None:
    given = resolve({"stage1_from": "runs/other"})
    assert {of(name, given).stage1_from for name in TRAINED} == {None}


def test_listing_arms_loads_no_torch() -> None:
    code = (
        "import sys; import alter.comparing.arms, alter.comparing.questions; "
        "sys.exit(' '.join(m for m in ('torch', 'transformers', 'sklearn', 'numpy') if m in sys.modules) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- one by one ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["single-full", "multi-full"])
def test_plain_fine_tuning_has_no_mta_and_trains_everything(recipe: Recipe, name: str) -> None:
    found = of(name, recipe)
    assert (found.mta.sites, found.mta.num_shared, found.mta.num_adapters) == ("none", 0, None)
    [stage] = found.stages.values()
    assert (stage.router, stage.trains) == ("selector", ["backbone", "heads"])
    assert stage.learning_rates.model_dump(include=set(FINE_TUNING)) == FINE_TUNING
    alter = PRESETS["alter"]["stages"]["stage1"]["learning_rates"]
    assert {key: alter[key] for key in FINE_TUNING} == FINE_TUNING, "the rates of the preset that trains the same parameters"


def test_plain_fine_tuning_has_the_rates_of_a_recipe_that_trains_the_backbone() -> None:
    rates = {"backbone": 5e-4, "heads": 2e-3, "adapters": 7e-4}
    given = resolve({"stages": {"stage1": {"learning_rates": rates}}}, preset="alter")
    [stage] = of("multi-full", given).stages.values()
    assert stage.learning_rates.model_dump(include=set(FINE_TUNING)) == {"backbone": 5e-4, "heads": 2e-3}
    lite = resolve(
        {"stages": {"stage1": {"learning_rates": rates}}}, preset="alter-lite"
    )  # whose rate of the backbone nothing reads
    [stage] = of("multi-full", lite).stages.values()
    assert stage.learning_rates.model_dump(include=set(FINE_TUNING)) == FINE_TUNING


def test_a_task_s_own_arm_has_this_task_and_nothing_of_the_others(recipe: Recipe) -> None:
    content = recipe.model_dump()
    tasks = [{**task, "weight": 1.0} for task in content["tasks"]]
    weighed = Recipe.model_validate({**content, "tasks": tasks, "mixture": {"kind": "weights"}})
    for name in ("single-full", "single-lora"):
        found = of(name, weighed, task="stars")
        assert [task.name for task in found.tasks] == ["stars"]
        assert (found.mixture.kind, found.mta.num_adapters) == ("proportional", None)
        assert (found.mta.selector.kind, found.mta.gate.kind) == ("one_hot", "one_hot")


def test_the_lora_baselines_are_where_alter_lite_is_at_its_rates(recipe: Recipe) -> None:
    single, shared = of("single-lora", recipe, task="mood"), of("shared-lora", recipe)
    lite = resolve()
    for found in (single, shared):
        assert (found.mta.adapter, found.mta.sites, found.mta.num_shared) == (lite.mta.adapter, "all", 0)
        [stage] = found.stages.values()
        assert (stage.router, stage.trains) == ("selector", ["task_adapters", "heads"])
        read = {"adapters", "heads"}
        assert stage.learning_rates.model_dump(include=read) == lite.stages["stage1"].learning_rates.model_dump(include=read)
        assert (found.mta.selector.kind, found.mta.selector.temperature, found.mta.selector.num_owned) == ("one_hot", 1.0, 1)
    assert (single.mta.num_adapters, shared.mta.num_adapters) == (None, 1)


def test_the_lora_baselines_keep_the_recipe_s_own_lora_sites_and_rates() -> None:
    settings = {"adapter": {"r": 4, "dropout": 0.2}, "sites": "every-2"}
    given = resolve({"mta": settings, "stages": {"stage1": {"learning_rates": {"adapters": 0.02}}}})
    found = of("shared-lora", given)
    assert (found.mta.adapter.r, found.mta.adapter.dropout, found.mta.sites) == (4, 0.2, "every-2")
    assert found.stages["stage1"].learning_rates.adapters == 0.02
    bottleneck = of("shared-lora", resolve({"mta": {"adapter": {"kind": "bottleneck", "r": 4}}}))
    assert (bottleneck.mta.adapter.kind, bottleneck.mta.adapter.r) == ("lora", PRESETS["alter-lite"]["mta"]["adapter"]["r"])


def test_a_matched_rank_keeps_the_scale() -> None:
    given = resolve({"mta": {"adapter": {"r": 4, "lora_alpha": 6.0}}})
    adapter = of("shared-lora", given, rank=10).mta.adapter
    assert (adapter.r, adapter.lora_alpha) == (10, 15.0)


def test_stage_1_alone_is_the_recipe_without_its_stage_2(recipe: Recipe) -> None:
    found = of("stage1", recipe)
    assert list(found.stages) == ["stage1"]
    assert (found.stages["stage1"], found.mta) == (recipe.stages["stage1"], recipe.mta)
    longer = of("stage1-longer", recipe)
    assert list(longer.stages) == ["stage1"]
    same = {"num_train_epochs", "max_steps"}
    assert longer.stages["stage1"].model_dump(exclude=same) == recipe.stages["stage1"].model_dump(exclude=same)


def test_the_control_of_stage_2_trains_task_adapters_on_by_themselves_at_its_rates(recipe: Recipe) -> None:
    found = of("stage2-alone", recipe)
    assert ARM["stage2-alone"].base == "stage1"
    assert found.stages["stage1"] == recipe.stages["stage1"]
    stage, theirs = found.stages["stage2"], recipe.stages["stage2"]
    assert (stage.router, set(stage.trains)) == ("selector", {"task_adapters", "heads"})
    same = {"router", "trains"}
    assert stage.model_dump(exclude=same) == theirs.model_dump(exclude=same)
    assert (found.mta.num_shared, found.mta.selector, found.mta.adapter) == (0, recipe.mta.selector, recipe.mta.adapter)


def test_one_go_trains_what_both_stages_train_under_the_gate(recipe: Recipe) -> None:
    found = of("one-go", recipe)
    [stage] = found.stages.values()
    assert stage.router == "gate"
    both = set(recipe.stages["stage1"].trains) | set(recipe.stages["stage2"].trains)
    assert set(stage.trains) == both
    assert len(stage.trains) == len(both)
    first, second = (recipe.stages[name].learning_rates for name in ("stage1", "stage2"))
    assert stage.learning_rates == first.model_copy(update={"gate": second.gate}), (
        "stage 1 has no gate, so its rate for one is no choice"
    )


def test_one_go_leaves_a_selector_alone_that_its_gate_does_not_read() -> None:
    assert "selector" not in of("one-go", resolve({"mta": {"gate": {"over": "all"}}})).stages["stage1"].trains


@pytest.mark.parametrize("name", ["alter", "alter-lite"])
def test_the_arm_of_the_recipe_s_own_preset_is_the_recipe(recipe: Recipe, name: str) -> None:
    found = of(name, recipe)
    if name == recipe.preset:
        assert (found.mta, found.stages) == (recipe.mta, recipe.stages)
        assert main_arm(recipe) == name


def test_the_other_preset_keeps_its_epochs_where_the_recipe_has_no_more_than_its_stage_2() -> None:
    found = of("alter", resolve({"stages": {"stage1": {"num_train_epochs": 0.5}, "stage2": None}}))
    assert {stage: settings.num_train_epochs for stage, settings in found.stages.items()} == {"stage1": 3, "stage2": 0.5}


@pytest.mark.parametrize("preset", ["alter-lite", "alter"])
def test_the_other_preset_inherits_nothing_from_this_one(preset: str) -> None:
    """Settings that only one preset names must not shine through: the selector's temperature and logits, the rates, the sites."""
    mta = {
        "adapter": {"r": 3, "dropout": 0.5},
        "num_adapters": 3,
        "num_shared": 5,
        "gate": {"kind": "linear", "granularity": "token", "over": "all", "top_k": 2},
    }
    stage = {"learning_rates": {"adapters": 0.5, "backbone": 0.5}, "warmup_ratio": 0.5, "eval_steps": 7, "max_steps": 11}
    given = resolve({"mta": mta, "stages": {"stage1": stage, "stage2": stage}}, preset=preset)
    found, fresh = of(OTHER[preset], given), resolve(preset=OTHER[preset])
    assert found.preset == OTHER[preset]
    assert found.mta == fresh.mta
    epochs = given.stages["stage1"].num_train_epochs + given.stages["stage2"].num_train_epochs
    longer = {"stage1": {"num_train_epochs": epochs - fresh.stages["stage2"].num_train_epochs}, "stage2": {}}
    for name, settings in found.stages.items():
        assert settings == fresh.stages[name].model_copy(update={"max_steps": 11, **longer[name]}), "all but epochs and limits"
    assert (found.heads, found.train.per_device_train_batch_size) == (given.heads, given.train.per_device_train_batch_size)


def test_adamix_has_the_recipes_adapters_one_a_task_and_no_second_stage(recipe: Recipe) -> None:
    found = of("adamix", recipe)
    assert (found.mta.adapter, found.mta.sites) == (recipe.mta.adapter, recipe.mta.sites)
    assert (found.mta.selector.kind, found.mta.num_adapters, found.mta.num_shared) == ("adamix", recipe.mta.num_adapters, 0)
    assert set(found.stages) == {"stage1"}
    assert set(found.stages["stage1"].trains) == {*recipe.stages["stage1"].trains, "task_adapters"} - {"selector"}
    assert found.stages["stage1"].num_train_epochs == sum(stage.num_train_epochs for stage in recipe.stages.values())


def test_hyperformer_mixes_parameters_by_free_weights_where_the_loras_sit(recipe: Recipe) -> None:
    found, like = of("hyperformer", recipe), of("single-lora", recipe)
    assert (found.mta.adapter.kind, found.mta.sites) == ("merged_bottleneck", like.mta.sites)
    assert (found.mta.selector.kind, found.mta.gate.kind, found.mta.num_shared) == ("one_hot", "table", 1)
    assert set(found.stages) == {"stage1"}
    assert found.stages["stage1"].router == "gate"
    assert set(found.stages["stage1"].trains) == {"task_adapters", "shared_adapters", "gate", "heads"}
    rates, alike = found.stages["stage1"].learning_rates, like.stages["stage1"].learning_rates
    lite = resolve(preset="alter-lite").stages["stage2"].learning_rates
    assert (rates.adapters, rates.heads, rates.gate) == (alike.adapters, alike.heads, lite.gate)
    assert found.stages["stage1"].num_train_epochs == like.stages["stage1"].num_train_epochs


GATES: dict[str, dict[str, Any]] = {
    "gate-task": {"kind": "task", "over": "all"},
    "gate-task-shared": {"kind": "task", "over": "shared"},
    "gate-table": {"kind": "table"},
    "gate-linear-sequence": {"kind": "linear", "over": "all", "granularity": "sequence"},
    "gate-linear-token": {"kind": "linear", "over": "all", "granularity": "token"},
    "gate-outputs": {"kind": "outputs"},
    "gate-selector": {"kind": "selector"},
    "gate-uniform": {"kind": "uniform"},
    "mutual-information": {"kind": "linear", "over": "all", "granularity": "sequence"},
}


def test_every_gate_arm_is_looked_at() -> None:
    assert list(GATES) == [arm.name for arm in ARMS if arm.family == "gate"]


def test_every_kind_of_gate_is_an_arm() -> None:
    elsewhere = {"one_hot": "stage2-alone", "taps": "taps", "adamix": "adamix"}  # strict weights, and arms of one stage
    assert set(elsewhere.values()) <= {arm.name for arm in ARMS}
    assert {str(gate["kind"]) for gate in GATES.values()} | set(elsewhere) == set(GATE_KINDS.names())


@pytest.mark.parametrize("name", GATES)
def test_another_gate_stands_on_the_same_stage_1_and_nothing_of_the_old_one_is_left(recipe: Recipe, name: str) -> None:
    old = {"kind": "linear", "granularity": "token", "over": "all", "top_k": 2}
    for given in (recipe, resolve({"mta": {"gate": old}}, preset=recipe.preset)):
        found = of(name, given)
        assert found.stages["stage1"] == given.stages["stage1"]
        assert (found.mta.selector, found.mta.adapter, found.mta.sites) == (
            given.mta.selector,
            given.mta.adapter,
            given.mta.sites,
        )
        gate = found.mta.gate
        assert {key: getattr(gate, key) for key in GATES[name]} == GATES[name]
        assert (gate.top_k, gate.temperature) == (None, 1.0)
        assert found.mta.num_shared == (0 if name == "gate-selector" else given.mta.num_shared)
        assert ARM[name].base == "stage1"
        trains = {"gate-selector": {"gate", "heads"}, "gate-uniform": {"shared_adapters", "heads"}}
        assert set(found.stages["stage2"].trains) == trains.get(name, {"shared_adapters", "gate", "heads"})


PENALISED: dict[str, Any] = {
    "mta": {"selector": {"kind": "selector"}, "gate": {"kind": "task", "over": "all"}},
    "stages": {
        "stage1": {"penalties": {"mutual_information": 0.1}},
        "stage2": {"penalties": {"mutual_information": 0.2, "load_balance": 0.3}},
    },
}
SCORED: dict[str, Any] = {
    "mta": {
        "selector": {"kind": "taps", "start": 0.5, "threshold": 0.2},
        "num_shared": 0,
        "gate": {"kind": "taps", "start": 0.4},
    },
    "stages": {
        "stage1": {"penalties": {"sparsity": 0.1}},
        "stage2": {"trains": ["gate", "heads"], "penalties": {"sparsity": 0.1}},
    },
}


@pytest.mark.parametrize("settings", [PENALISED, SCORED])
@pytest.mark.parametrize("name", TRAINED)
def test_an_arm_has_no_penalty_and_no_setting_that_it_does_not_read(name: str, settings: dict[str, Any]) -> None:
    """What only the recipe's own selector and gate read would be refused, or worse, shine through."""
    given = resolve(settings)
    if ARM[name].fits(given):
        found = of(name, given)
        on = {stage: {key for key, factor in one.penalties.items() if factor} for stage, one in found.stages.items()}
        if name in ("single-full", "multi-full", "single-lora", "shared-lora", "alter", "adamix", "hyperformer"):
            assert on in ({"stage1": set()}, {"stage1": set(), "stage2": set()})
        elif name == "taps":
            assert on == {"stage1": {"sparsity"}}
        else:
            assert on["stage1"] == ({"mutual_information"} if settings is PENALISED else {"sparsity"})


def test_a_penalty_stays_where_another_gate_has_weights_for_it() -> None:
    given = resolve(PENALISED)
    both = {"mutual_information": 0.2, "load_balance": 0.3}
    assert of("gate-linear-sequence", given).stages["stage2"].penalties == both
    assert of("gate-uniform", given).stages["stage2"].penalties == dict.fromkeys(both, 0.0)
    assert of("gate-selector", given).stages["stage2"].penalties == {**both, "load_balance": 0.0}


def test_a_gate_that_learns_is_trained_even_where_the_recipe_s_own_learns_nothing() -> None:
    stage2 = {"trains": ["shared_adapters", "heads"]}
    given = resolve({"mta": {"gate": {"kind": "uniform"}}, "stages": {"stage2": stage2}})
    assert of("gate-task", given).stages["stage2"].trains == ["shared_adapters", "heads", "gate"]


def test_a_selector_is_trained_on_only_under_gates_that_read_it() -> None:
    stage2 = {"trains": ["shared_adapters", "gate", "selector", "heads"]}
    given = resolve({"stages": {"stage2": stage2}})
    assert "selector" in of("gate-outputs", given).stages["stage2"].trains
    assert "selector" not in of("gate-task", given).stages["stage2"].trains


def test_taps_has_its_penalty_in_one_stage_and_no_shared_adapters(recipe: Recipe) -> None:
    for given in (recipe, resolve(SCORED), resolve({"stages": {"stage2": None}}, preset=recipe.preset)):
        found = of("taps", given)
        assert (found.mta.selector, found.mta.num_shared) == (GateSettings(kind="taps"), 0)
        assert (found.mta.adapter, found.mta.sites) == (given.mta.adapter, given.mta.sites)
        [stage] = found.stages.values()
        assert {"task_adapters", "selector", "heads"} <= set(stage.trains)
        assert stage.penalties == {"sparsity": SPARSITY}


def test_the_arm_of_mutual_information_is_the_gate_by_row_with_its_penalty(recipe: Recipe) -> None:
    found, plain = of("mutual-information", recipe), of("gate-linear-sequence", recipe)
    assert found.stages["stage2"].penalties == {"mutual_information": INFORMATION}
    assert found.mta == plain.mta
    assert found.stages["stage1"] == plain.stages["stage1"]
    assert found.stages["stage2"].model_copy(update={"penalties": {}}) == plain.stages["stage2"]


def test_neither_says_anything_about_one_task() -> None:
    alone = resolve(tasks=("mood",))
    assert not ARM["taps"].fits(alone)
    assert not ARM["mutual-information"].fits(alone)
    assert not ARM["mutual-information"].fits(resolve({"stages": {"stage2": None}}))


# ---- the rank at which one LoRA is as large ------------------------------------------------------------------------


ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"adapter": {"kind": "lora", "r": 5}},
    "bottleneck": {"adapter": {"kind": "bottleneck", "r": 7}, "sites": "last"},
    "ffn_clone": {"adapter": {"kind": "ffn_clone"}, "selector": {"kind": "one_hot"}, "sites": "last"},
}


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("base", ["bert", "t5", "llama"])
@pytest.mark.parametrize("num_adapters", [None, 3])
def test_one_lora_of_the_matched_rank_is_as_large_as_all_adapters_together(
    kind: str, base: str, num_adapters: int | None
) -> None:
    preset = "alter" if kind == "ffn_clone" else "alter-lite"  # of alter-lite's recipes the LoRA has the recipe's own sites
    selector = {"selector": {"kind": "one_hot", "temperature": 1.0, "num_owned": 1}}
    given = resolve({"mta": {**ADAPTERS[kind], **selector, "num_adapters": num_adapters}}, preset=preset)

    def fresh() -> Any:
        return tiny_model(base) if base == "bert" else tiny_lm(base)

    rank = matched_rank(fresh(), given)
    whole = sizes(fresh(), given)
    one = sizes(fresh(), of("shared-lora", given, rank=rank))
    per_rank = one / rank
    assert abs(whole - one) <= per_rank / 2
    assert isinstance(rank, int)
    if kind == "lora":
        assert rank == 5 * ((num_adapters or 4) + 2)


@pytest.mark.parametrize("kind", ADAPTERS)
@pytest.mark.parametrize("base", ["bert", "t5", "llama"])
def test_bottlenecks_of_the_matched_width_are_together_as_large_as_all_adapters(kind: str, base: str) -> None:
    preset = "alter" if kind == "ffn_clone" else "alter-lite"
    given = resolve(
        {"mta": {**ADAPTERS[kind], "selector": {"kind": "one_hot", "temperature": 1.0, "num_owned": 1}}}, preset=preset
    )

    def fresh() -> Any:
        return tiny_model(base) if base == "bert" else tiny_lm(base)

    width = matched_width(fresh(), given)
    each = [sizes(fresh(), of("hyperformer", given, rank=rank)) for rank in (width, width + 1)]
    assert width > 1
    assert abs(sizes(fresh(), given) - each[0]) <= (each[1] - each[0]) / 2


def sizes(base: Any, recipe: Recipe) -> int:
    """Return the parameters of all adapters of a recipe's model."""
    model = equip(base, tasks=list(NAMES), mta=recipe.mta.model_dump())
    counts = model.count_parameters()
    return counts["task_adapters"] + counts["shared_adapters"]


def test_a_tiny_mta_still_gets_a_rank() -> None:
    given = resolve({"mta": {"adapter": {"kind": "bottleneck", "r": 1}, "num_adapters": 1, "num_shared": 0, "sites": [0]}})
    assert matched_rank(tiny_model("bert"), given) >= 1
