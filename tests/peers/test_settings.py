"""The block `peft` of a recipe: what is wrong in it is told with its key, by the recipe, by `alter validate` and by a run alike."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.peers.given import METHODS, borrowed
from tests.recipes import toy

from alter.check import validate
from alter.errors import ConfigError
from alter.peers.settings import FIXED, need_peft
from alter.peers.settings import METHODS as KINDS
from alter.recipe import Recipe
from alter.training.run import train

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"r": 4}, r"peft\.peft_type is None; allowed: HRA, IA3, LOHA, LOKR, LORA, OFT, POLY, XLORA\."),
    ({"peft_type": "LORAA"}, r"peft\.peft_type is 'LORAA'; .*Did you mean 'LORA'\?"),
    ({"peft_type": "PROMPT_TUNING"}, r"peft\.peft_type is 'PROMPT_TUNING'; allowed: "),
    ({"peft_type": "LORA", "lora_aplha": 3}, r"peft has no setting 'lora_aplha' for LORA; .*Did you mean 'lora_alpha'\?"),
    ({"peft_type": "POLY", "lora_alpha": 3}, r"peft has no setting 'lora_alpha' for POLY; "),
    ({"peft_type": "LORA", "r": "8"}, r"peft\.r is '8'; peft takes a value like 8"),
    ({"peft_type": "LORA", "use_dora": 1}, r"peft\.use_dora is 1; peft takes a value like False"),
    ({"peft_type": "LORA", "r": 0}, r"peft cannot put LORA into a BertModel .*`r` should be a positive integer"),
    ({"peft_type": "LORA", "target_modules": ["nope"]}, r"not found in the base model.*peft\.target_modules is \['nope'\]"),
    ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, r"peft\.task_type is made by alter; leave it out"),
    ({"peft_type": "LORA", "bias": "all"}, r"peft\.bias is 'all'; the base's biases are trained by backbone"),
    (
        {"peft_type": "LORA", "init_lora_weights": "pissa"},
        r"peft\.init_lora_weights is 'pissa', .*allowed: true, false, gaussian",
    ),
    ({"peft_type": "POLY", "n_tasks": 9}, r"peft\.n_tasks is 9, but the recipe has 2 tasks; leave it out"),
    ({"peft_type": "POLY", "n_splits": 5}, r"peft\.n_splits is 5, but encoder\.layer\.0\.intermediate\.dense reads 32"),
    ({"peft_type": "POLY", "n_splits": 0}, r"peft\.n_splits is 0; it must be at least 1"),
    ({"peft_type": "POLY", "n_skills": 0}, r"peft\.n_skills is 0; it must be at least 1"),
    (
        {"peft_type": "LORA", "layers_to_transform": [1]},
        r"peft\.layers_to_transform is \[1\], .*only beside target_modules; add them",
    ),
    ({"peft_type": "XLORA"}, r"peft\.adapters is None; X-LoRA weighs trained LoRAs: name at least two"),
    ({"peft_type": "XLORA", "adapters": {"a": "x", "../b": "y"}}, r"peft\.adapters names \['\.\./b'\]; allowed: letters"),
]


def recipe_with(folder: Path, block: Any, **settings: Any) -> Recipe:
    given = {"mta": {"sites": "none"}, "stages": {"stage2": None}, "peft": block, **settings}
    return toy(folder, tasks=["mood", "topic"], settings=given)


@pytest.mark.parametrize(("block", "message"), WRONG)
def test_a_wrong_setting_is_told_with_its_key(block: dict[str, Any], message: str, tmp_path: Path) -> None:
    recipe = recipe_with(tmp_path, block)
    with pytest.raises(ConfigError, match=message):
        train(recipe, output_dir=tmp_path / "run")
    [problem] = validate(recipe).problems
    with pytest.raises(ConfigError, match=message):
        raise ConfigError(problem)


@pytest.mark.parametrize("method", METHODS)
def test_a_right_one_passes(method: str, tmp_path: Path) -> None:
    assert validate(recipe_with(tmp_path, METHODS[method])).problems == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mta": {"sites": "all"}}, r"peft takes the place of the MTA, but mta\.sites is all; set mta\.sites: none"),
        ({"stages": {"stage2": {}}}, r"peft has no shared adapters and no gate for a second stage; set stages\.stage2: null"),
    ],
)
def test_it_takes_the_place_of_the_mta(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_with(tmp_path, METHODS["lora"], **settings)
    with pytest.raises(ConfigError, match="peft: "):
        recipe_with(tmp_path, "LORA")


def test_without_the_library_the_remedy_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = recipe_with(tmp_path, METHODS["lora"])
    monkeypatch.setitem(sys.modules, "peft", None)
    wanted = r"the setting peft needs the library peft, which cannot be imported .*pip install 'alter-mta\[peft\]'"
    with pytest.raises(ConfigError, match=wanted):
        train(recipe, output_dir=tmp_path / "run")
    assert [problem for problem in validate(recipe).problems if "pip install" in problem]


def test_every_method_and_every_setting_that_is_refused_is_one_of_pefts() -> None:
    peft = need_peft("this test")
    assert all(hasattr(peft, name) for name in KINDS.values())
    fields = {name for config in KINDS.values() for name in getattr(peft, config).__dataclass_fields__}
    assert fields >= set(FIXED) - {"monteclora_config"}, "which is newer than the oldest peft that alter takes"


def test_layers_are_chosen_beside_modules() -> None:
    block = {"peft_type": "LORA", "r": 4, "layers_to_transform": [1], "target_modules": ["intermediate.dense"]}
    names = borrowed("bert", block).parameter_groups()["task_adapters"]
    assert len(names) == 2
    assert all("layer.1.intermediate.dense" in name for name in names)


def test_settings_that_change_the_bases_own_weights_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alter.peers.settings.STARTS", (True, "pissa"))
    with pytest.raises(ConfigError, match="changes the base's own weights, which alter keeps as they are"):
        borrowed("bert", {"peft_type": "LORA", "r": 4, "init_lora_weights": "pissa"}, dtype=torch.float32)
