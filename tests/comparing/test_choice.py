"""Which arms a recipe gets, arms of one's own, and the questions that arms answer."""

from __future__ import annotations

from datetime import date
from importlib.util import find_spec
from typing import Any

import pytest
from tests.comparing.given import ARM, NAMES, OTHER, of, resolve

from alter.comparing.arms import ARMS
from alter.comparing.choice import arm_recipe, choose, own_arms
from alter.comparing.questions import questions
from alter.errors import ConfigError
from alter.recipe import Recipe

TRAINED = [arm.name for arm in ARMS if arm.kind in ("train", "per-task") and arm.family != "peer"]
GATE_ARMS = [arm.name for arm in ARMS if arm.family == "gate"]


def names(recipe: Recipe, asked: list[str] | None = None) -> list[str]:
    return [arm.name for arm in choose(recipe, asked)]


@pytest.fixture(params=["alter-lite", "alter"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return resolve(preset=request.param)


# ---- which arms there are ------------------------------------------------------------------------------------------


def test_all_that_say_anything_are_chosen_and_the_recipe_s_own_gate_is_no_other_one(recipe: Recipe) -> None:
    # The selector of `alter` gives every task a part in every adapter, so none of them trains alone.
    own = {"alter-lite": ("gate-task-shared",), "alter": ("gate-outputs", "stage2-alone")}[recipe.preset]
    there = [arm.name for arm in ARMS if arm.needs is None or find_spec(arm.needs) is not None]
    assert names(recipe) == [name for name in there if name not in own]


def test_one_stage_has_no_arms_about_stage_2(recipe: Recipe) -> None:
    for stages in ({"stage2": None}, {"stage2": {"num_train_epochs": 0}}):
        found = names(resolve({"stages": stages}, preset=recipe.preset))
        assert not {"stage1", "stage1-longer", "one-go", "zeroed-shared", *GATE_ARMS} & set(found)
        assert {"multi-full", "alter", "alter-lite", "uniform-weights"} <= set(found)


def test_one_task_has_nothing_to_weigh(recipe: Recipe) -> None:
    found = names(resolve(preset=recipe.preset, tasks=("mood",)))
    assert not {"uniform-weights", "random-weights", "wrong-task", *GATE_ARMS} & set(found)
    assert {"single-full", "multi-full", "stage1", "zeroed-shared"} <= set(found)


def test_without_shared_adapters_nothing_asks_for_them() -> None:
    given = resolve({"mta": {"num_shared": 0, "gate": {"kind": "selector"}}, "stages": {"stage2": {"trains": ["gate", "heads"]}}})
    found = names(given)
    assert not {"zeroed-shared", "gate-outputs", "gate-task-shared", "gate-selector"} & set(found)
    for name in found:
        if name in TRAINED:
            assert of(name, given).tasks


def test_named_arms_bring_what_they_need(recipe: Recipe) -> None:
    assert names(recipe, ["gate-task"]) == ["stage1", "gate-task"]
    assert names(recipe, [recipe.preset]) == ["stage1", recipe.preset]
    assert names(recipe, ["wrong-task"]) == ["stage1", recipe.preset, "wrong-task"]
    assert names(recipe, [OTHER[recipe.preset]]) == [OTHER[recipe.preset]]
    assert names(recipe, ["tfidf", "majority", "tfidf"]) == ["majority", "tfidf"]
    assert names(resolve({"stages": {"stage2": None}}, preset=recipe.preset), [recipe.preset]) == [recipe.preset]


def test_an_unknown_arm_gets_the_nearest_name(recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match=r"^unknown arm 'mutli-full'; allowed: .*Did you mean 'multi-full'\?$"):
        choose(recipe, ["mutli-full"])


@pytest.mark.parametrize(
    ("settings", "tasks", "name", "lacks"),
    [
        ({"stages": {"stage2": None}}, NAMES, "one-go", "no stage 2"),
        ({"stages": {"stage2": None}}, NAMES, "stage1", "no stage 2"),
        ({"stages": {"stage2": None}}, NAMES, "zeroed-shared", "no stage 2"),
        ({}, ("mood",), "wrong-task", "one task"),
        ({}, ("mood",), "gate-task", "one task"),
        ({"stages": {"stage2": None}}, ("mood",), "adamix", "one task"),
        (
            {"mta": {"adapter": {"kind": "merged_bottleneck"}}},
            NAMES,
            "gate-uniform",
            "several shared adapters of kind merged_bottleneck, which equal weights would keep equal",
        ),
        ({}, NAMES, "gate-task-shared", "the gate task anyway"),
        ({"mta": {"num_adapters": 2}}, NAMES, "stage2-alone", "adapters that tasks have in common from stage 1 on"),
        ({"mta": {"num_shared": 0}}, NAMES, "zeroed-shared", "no shared adapters"),
        ({"mta": {"num_shared": 0}}, NAMES, "gate-outputs", "no shared adapters"),
    ],
)
def test_an_arm_that_says_nothing_about_the_recipe_is_refused(
    settings: dict[str, Any], tasks: tuple[str, ...], name: str, lacks: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        choose(resolve(settings, tasks=tasks), [name])
    assert str(caught.value) == (
        f"the arm '{name}' ({ARM[name].title}) says nothing about this recipe, which has {lacks}; leave it out"
    )


def test_every_arm_that_a_recipe_of_mixed_parameters_gets_has_a_recipe() -> None:
    given = resolve({"mta": {"adapter": {"kind": "merged_bottleneck"}}})
    found = choose(given, None)
    assert {"adamix", "hyperformer", "gate-task", "gate-outputs", "multi-full"} <= {arm.name for arm in found}
    for arm in found:
        if arm.kind in ("train", "per-task"):
            assert arm_recipe(given, arm, seed=0).seed == 0


def test_a_recipe_of_plain_fine_tuning_is_no_method_to_compare() -> None:
    given = of("multi-full", resolve())
    with pytest.raises(ConfigError, match=r"mta\.sites is none, so this recipe is plain fine-tuning"):
        choose(given, None)


# ---- arms of one's own ---------------------------------------------------------------------------------------------


def test_own_arms_lie_over_the_recipe() -> None:
    given = {"r8": {"mta": {"adapter": {"r": 8}}}, "no-warm-up": {"stages": {"stage1": {"warmup_ratio": 0}, "stage2": None}}}
    own = own_arms(given, where="arms.yaml")
    assert [(arm.name, arm.family, arm.kind) for arm in own] == [("r8", "own", "train"), ("no-warm-up", "own", "train")]
    assert [arm.title for arm in own] == ["mta.adapter.r=8", "stages.stage1.warmup_ratio=0; stages.stage2=null"]
    listed = own_arms({"mine": {"stages": {"stage1": {"trains": ["heads", "gate"]}}, "mta": {}}}, where="arms.yaml")
    assert listed[0].title == "stages.stage1.trains=[heads, gate]; mta={}"
    assert own_arms({"mine": {"name": date(2020, 1, 1)}}, where="arms.yaml")[0].title == "name=2020-01-01"  # as YAML reads it
    first, second = (arm_recipe(resolve(), arm, seed=1) for arm in own)
    assert (first.mta.adapter.r, first.name, first.seed) == (8, "toy-r8", 1)
    assert (list(second.stages), second.stages["stage1"].warmup_ratio) == (["stage1"], 0.0)
    assert [arm.name for arm in choose(resolve(), ["r8"], own)] == ["r8"]
    assert [arm.name for arm in choose(resolve(), None, own)][-2:] == ["r8", "no-warm-up"]


def test_own_arms_take_no_name_and_no_seed() -> None:
    [arm] = own_arms({"mine": {"name": "else", "seed": 99}}, where="arms.yaml")
    assert (arm_recipe(resolve(), arm, seed=1).name, arm_recipe(resolve(), arm, seed=1).seed) == ("toy-mine", 1)


@pytest.mark.parametrize("content", [["r8"], "r8", {"r8": 8}, {"r8": None}])
def test_own_arms_of_another_shape_are_refused(content: Any) -> None:
    with pytest.raises(ConfigError, match=r"^arms\.yaml: must be a mapping of arm names to settings"):
        own_arms(content, where="arms.yaml")


def test_a_name_of_ours_is_taken() -> None:
    with pytest.raises(ConfigError, match=r"arms\.yaml: the names \['stage1'\] are taken by arms of our own; choose others"):
        own_arms({"stage1": {}, "mine": {}}, where="arms.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"mine": {"mta": {"adaptor": {}}}}, r"arm mine: unknown key 'mta\.adaptor'.*Did you mean 'adapter'"),
        ({"mine": {"mta": {"gate": {"kind": "one_hot"}}}}, r"arm mine: .*gives shared adapters no weight"),
        ({"../mine": {}}, r"arm \.\./mine: name: "),
    ],
)
def test_settings_of_an_own_arm_that_do_not_fit_are_told_with_its_name(content: dict[str, Any], message: str) -> None:
    [arm] = own_arms(content, where="arms.yaml")
    with pytest.raises(ConfigError, match=message):
        arm_recipe(resolve(), arm, seed=0)


# ---- questions -----------------------------------------------------------------------------------------------------


def test_questions_are_asked_of_arms_that_are_there(recipe: Recipe) -> None:
    every = names(recipe)
    asked = questions(recipe, every)
    assert all(arm == recipe.preset and against in every for _, arm, against in asked)
    assert len({text for text, _, _ in asked}) == len(asked)
    expected = set(every) - {recipe.preset, "majority", "untrained"}
    assert {against for _, _, against in asked} == expected, "every arm but the weakest yardsticks answers one"
    assert questions(recipe, ["multi-full", "single-full"]) == []
    assert [against for _, _, against in questions(recipe, [recipe.preset, "multi-full"])] == ["multi-full"]


def test_an_own_arm_is_held_against_both_fine_tunings_and_the_recipe(recipe: Recipe) -> None:
    asked = questions(recipe, ["single-full", "multi-full", recipe.preset, "mine", "adapters-fusion"])
    own = [(text, against) for text, arm, against in asked if arm == "mine"]
    assert own == [
        ("Is mine better than one fine-tuned model a task?", "single-full"),
        ("Is mine better than one fine-tuned model for all tasks?", "multi-full"),
        ("Is mine better than the recipe as it stands?", recipe.preset),
    ]
    assert {arm for _, arm, _ in asked} == {"mine", recipe.preset}
    assert [arm for _, arm, _ in questions(recipe, ["multi-full", "mine"])] == ["mine"], "without the method, too"
    for name in ("gate-mine", "peft-mine", "adapters-mine"):
        assert [arm for _, arm, _ in questions(recipe, [recipe.preset, name])] == [name], "asked once, whatever it is called"


def test_one_stage_asks_nothing_about_the_second() -> None:
    given = resolve({"stages": {"stage2": None}})
    assert not [text for text, _, _ in questions(given, names(given)) if "stage" in text]
