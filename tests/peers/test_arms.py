"""Peers as arms of a comparison: their recipes, their sizes, the bases they take, and one comparison that runs them all."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.comparing.given import ARM, NAMES, OTHER, of, resolve
from tests.recipes import toy, toy_texts
from tests.tiny import save_tiny, save_tiny_lm, tiny_lm, tiny_model

from alter.backbones._look import look_at
from alter.comparing.arms import ARMS, OUTSIDE
from alter.comparing.borrowed import CHOOSY, filled_in, fitting, misfit
from alter.comparing.choice import arm_recipe, choose, own_arms
from alter.comparing.run import compare
from alter.comparison import Comparison
from alter.errors import ConfigError
from alter.model import MTAModel
from alter.recipe import Recipe
from alter.results import read_results

PEERS = [arm.name for arm in ARMS if arm.family == "peer"]
TRAINED = {
    "peft-lora": ["task_adapters", "heads"],
    "peft-poly": ["task_adapters", "selector", "heads"],
    "peft-xlora": ["gate", "heads"],
}


@pytest.fixture(params=["alter-lite", "alter"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return resolve(preset=request.param)


@pytest.mark.parametrize("name", TRAINED)
def test_a_peer_gets_what_the_shared_lora_gets(recipe: Recipe, name: str) -> None:
    peer, like = of(name, recipe), of("shared-lora", recipe)
    assert (peer.mta.sites, peer.mta.num_shared, list(peer.stages)) == ("none", 0, ["stage1"])
    stage, theirs = peer.stages["stage1"], like.stages["stage1"]
    assert stage.trains == TRAINED[name]
    same = {"num_train_epochs", "max_steps", "lr_scheduler_type", "warmup_ratio", "eval_steps", "evals_per_epoch"}
    assert stage.model_dump(include=same) == theirs.model_dump(include=same)
    assert stage.learning_rates.adapters == theirs.learning_rates.adapters
    assert stage.learning_rates.heads == theirs.learning_rates.heads
    assert (peer.train, peer.heads, peer.mixture, peer.tasks) == (like.train, like.heads, like.mixture, like.tasks)
    assert peer.peft is not None
    assert peer.peft["peft_type"] == name.removeprefix("peft-").upper()


@pytest.mark.parametrize("base", ["bert", "t5", "llama"])
@pytest.mark.parametrize("kind", ["lora", "bottleneck", "ffn_clone"])
def test_a_peer_is_as_large_as_all_adapters_together(base: str, kind: str) -> None:
    preset = "alter" if kind == "ffn_clone" else "alter-lite"
    mta: dict[str, Any] = {
        "adapter": {"kind": kind, "r": 5},
        **({"selector": {"kind": "one_hot"}} if kind != "ffn_clone" else {}),
    }
    given = resolve({"mta": mta}, preset=preset)
    whole = adapters_of(fresh(base), given)
    for name in ("peft-lora", "peft-poly"):
        block = filled_in(name, fresh(base), given, ARM[name].settings(given)["peft"])
        peer = arm_recipe(given, ARM[name], seed=0, peft=block)
        assert peer.peft is not None
        size = adapters_of(fresh(base), peer)
        step = size / (peer.peft["r"] if name == "peft-lora" else peer.peft["n_skills"])
        assert abs(size - whole) <= step / 2, (name, size, whole)
    if kind == "lora":
        assert peer.peft["n_skills"] == len(NAMES) + given.mta.num_shared, "a skill has a LoRA's size, but for its weight by task"


def fresh(base: str) -> Any:
    return tiny_model(base) if base == "bert" else tiny_lm(base)


def adapters_of(base: Any, recipe: Recipe) -> int:
    model = MTAModel(base, task_names=list(NAMES), settings=recipe.mta, peft=recipe.peft)
    counts = model.count_parameters()
    selector = counts["selector"] if recipe.peft is not None else 0
    return counts["task_adapters"] + counts["shared_adapters"] + selector


def test_a_peer_has_the_shared_loras_rank_scale_and_sites() -> None:
    given = resolve({"mta": {"adapter": {"r": 4, "lora_alpha": 6.0}, "sites": "last"}})
    block = filled_in("peft-lora", tiny_model("bert"), given, ARM["peft-lora"].settings(given)["peft"])
    assert (block["r"], block["lora_alpha"]) == (24, 36.0)
    assert block["target_modules"] == ["encoder.layer.1.intermediate.dense", "encoder.layer.1.output.dense"]


# ---- which bases, and without the library --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("base", "left_out"),
    [("bert", set()), ("t5", {"peft-xlora"}), ("gpt2", {"peft-poly"}), ("llama", set()), ("encoder_decoder", {"peft-xlora"})],
)
def test_a_peer_that_does_not_take_the_base_says_why(base: str, left_out: set[str], tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / base, base) if base == "bert" else save_tiny_lm(tmp_path / base, base)
    assert {name for name in PEERS if misfit(name, look_at(str(folder)))} == left_out <= set(CHOOSY)
    given = resolve({"model_name_or_path": str(folder)})
    told: list[str] = []
    kept = fitting(given, choose(given, None), named=(), told=told.append)
    assert {arm.name for arm in choose(given, None)} - {arm.name for arm in kept} == left_out
    assert [message.split()[2].strip(",") for message in told] == sorted(left_out)
    for name in left_out:
        with pytest.raises(ConfigError, match=rf"the arm '{name}' says nothing about .*: .*; leave it out"):
            fitting(given, choose(given, [name]), named=[name], told=told.append)


def test_without_the_library_peers_are_left_out_and_one_that_is_named_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else find(name, *rest))
    assert not {arm.name for arm in choose(resolve(), None)} & set(PEERS)
    with pytest.raises(ConfigError, match=r"the arm 'peft-poly' needs the library peft, .*pip install 'alter-mta\[peft\]'"):
        choose(resolve(), ["peft-poly"])


def test_peers_bring_the_loras_that_they_weigh() -> None:
    for name in ("peft-arrow", "peft-xlora"):
        assert [arm.name for arm in choose(resolve(), [name])] == ["single-lora", name]
    one = resolve(tasks=("mood",))
    assert set(PEERS) & {arm.name for arm in choose(one, None)} == {"peft-lora"}
    with pytest.raises(ConfigError, match="says nothing about this recipe, which has one task"):
        choose(one, ["peft-poly"])


def test_a_recipe_of_a_peer_is_no_method_to_compare() -> None:
    given = of("peft-lora", resolve())
    with pytest.raises(ConfigError, match="the recipe has the block peft, and arms are laid over a recipe of the method"):
        choose(given, None)


def test_a_method_of_peft_may_be_an_arm_of_ones_own() -> None:
    block = {"peft_type": "LORA", "r": 2, "use_dora": True}
    content = {"dora": {"mta": {"sites": "none"}, "stages": {"stage2": None}, "peft": block}}
    [arm] = own_arms(content, where="arms.yaml")
    found = arm_recipe(resolve(), arm, seed=0)
    assert (found.peft, found.mta.sites) == (block, "none")


def test_arms_of_another_program_are_not_run_here() -> None:
    for arm in OUTSIDE:
        with pytest.raises(ConfigError, match=rf"the arm '{arm.name}' is another program's: run benchmarks/adapters_peer"):
            choose(resolve(), [arm.name])
        with pytest.raises(ConfigError, match="are taken by arms of our own"):
            own_arms({arm.name: {}}, where="arms.yaml")


# ---- run -----------------------------------------------------------------------------------------------------------


def run(recipe: Recipe, folder: Path, arms: Sequence[str], *, resume: bool = False) -> Comparison:
    return compare(recipe, output_dir=folder, arms=list(arms), resume=resume)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Comparison]:
    folder = tmp_path_factory.mktemp("peers")
    settings = {"stages": {"stage1": {"max_steps": 2}, "stage2": {"max_steps": 1}}}
    recipe = toy(folder / "toy", tasks=["mood", "stars"], settings=settings)
    return recipe, folder / "out", run(recipe, folder / "out", ["shared-lora", "alter-lite", *PEERS])


def test_peers_go_through_the_same_rows_and_the_same_file(compared: tuple[Recipe, Path, Comparison]) -> None:
    _, folder, found = compared
    assert not [arm.failed for arm in found.arms.values() if arm.failed]
    for name in PEERS:
        [one] = found.arms[name].runs
        assert set(one.splits) == {"validation", "test"}
        assert set(one.splits["test"].tasks) == {"mood", "stars"}
        assert [(task, score.num_examples) for task, score in one.splits["test"].tasks.items()] == [("mood", 12), ("stars", 12)]
        for task in ("mood", "stars"):
            theirs, ours = (
                [json.loads(line)["input"] for line in read(folder / f"arms/{arm}/seed0/predictions/test/{task}.jsonl")]
                for arm in (name, "alter-lite")
            )
            assert theirs == ours
    assert {one.against for one in found.differences} >= set(PEERS)
    page = (folder / "compare.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in page for name in PEERS)


def read(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_what_peers_cost_counts_their_own_parameters(compared: tuple[Recipe, Path, Comparison]) -> None:
    _, folder, found = compared
    budget = {name: found.arms[name].runs[0].budget for name in [*PEERS, "shared-lora", "single-lora"]}
    assert budget["peft-lora"].trainable_parameters == budget["shared-lora"].trainable_parameters
    assert budget["peft-lora"].steps == budget["shared-lora"].steps == 3
    heads = read_results(folder / "arms/peft-xlora/seed0/results.json").parameters["heads"]
    loras, steps = budget["single-lora"].trainable_parameters or 0, budget["single-lora"].steps or 0
    gate = heads + 32 * 2 + 2  # a weight and a bias a LoRA
    assert budget["peft-xlora"].trainable_parameters == gate + loras, "the LoRAs that it weighs had to be trained"
    assert budget["peft-xlora"].steps == 3 + steps
    assert budget["peft-arrow"] == budget["single-lora"], "it trains nothing beyond the LoRAs"
    assert (budget["peft-poly"].stored_bytes or 0) > (budget["peft-xlora"].stored_bytes or 0) / 2


def test_finished_peers_are_kept(compared: tuple[Recipe, Path, Comparison]) -> None:
    recipe, folder, found = compared
    before = {path: path.stat().st_mtime_ns for path in folder.glob("arms/peft-*/seed0/results.json")}
    again = run(recipe, folder, ["shared-lora", *PEERS], resume=True)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert again.arms == found.arms


def test_a_comparison_that_was_moved_goes_on(compared: tuple[Recipe, Path, Comparison], tmp_path: Path) -> None:
    recipe, folder, found = compared
    moved = shutil.copytree(folder, tmp_path / "moved")
    assert run(recipe, moved, ["peft-xlora", "peft-arrow"], resume=True).arms == found.arms


def test_another_programs_results_are_shown_beside(compared: tuple[Recipe, Path, Comparison], tmp_path: Path) -> None:
    recipe, folder, _ = compared
    whole = shutil.copytree(folder, tmp_path / "out")
    place = shutil.copytree(whole / "arms/peft-lora/seed0", whole / "arms/adapters-fusion/seed0")
    for name in ("recipe.yaml", "model"):
        path = place / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    found = run(recipe, whole, ["majority"], resume=True)
    shown, like = found.arms["adapters-fusion"], found.arms["peft-lora"]
    assert shown.family == "peer"
    assert shown.summary == like.summary
    assert shown.runs[0].budget.steps == like.runs[0].budget.steps
    assert shown.runs[0].budget.trainable_parameters == like.runs[0].budget.trainable_parameters
    assert "adapters-fusion" in {one.against for one in found.differences}


@pytest.mark.parametrize("base", ["t5", "llama"])
def test_peers_of_models_that_write(base: str, tmp_path: Path) -> None:
    settings = {"stages": {"stage1": {"max_steps": 1}, "stage2": {"max_steps": 1}}}
    recipe = toy_texts(tmp_path / "toy", base, tasks=("mood", "echo"), settings=settings)
    arms = [name for name in PEERS if base == "llama" or name != "peft-xlora"]
    found = run(recipe, tmp_path / "out", arms)
    assert not [arm.failed for arm in found.arms.values() if arm.failed]
    assert all(set(found.arms[name].runs[0].splits["test"].tasks) == {"mood", "echo"} for name in arms)


def test_the_other_preset_has_the_same_peers() -> None:
    for name in ("peft-poly", "peft-xlora"):
        ours, theirs = of(name, resolve()), of(name, resolve(preset=OTHER["alter-lite"]))
        assert ours.peft == theirs.peft
        assert ours.stages["stage1"].trains == theirs.stages["stage1"].trains
