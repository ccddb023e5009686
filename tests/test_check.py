"""What `alter validate` and `alter.validate` say of a base model, and of tasks and settings that do not fit it."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub.constants
import pytest
from tests.recipes import write_recipe, write_text_recipe

import alter
from alter.check import validate
from alter.errors import AlterError
from alter.recipe import Recipe, load_recipe
from alter.tasks.validate import BaseSummary, validate_recipe
from alter.training.run import train


@pytest.fixture(scope="module")
def recipes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("check")
    found = {name: write_text_recipe(folder / name, name, tasks=("mood", "echo")) for name in ("t5", "gpt2")}
    return {**found, "bert": write_recipe(folder / "bert", tasks=["mood", "stars"])}


@pytest.mark.parametrize(("name", "kind"), [("bert", "encoder"), ("t5", "encoder-decoder"), ("gpt2", "decoder")])
def test_a_base_that_fits_is_summed_up(recipes: dict[str, Path], name: str, kind: str) -> None:
    report = validate(recipes[name])
    rows = validate_recipe(recipes[name])
    assert (report.problems, report.warnings, report.summaries) == ([], rows.warnings, rows.summaries)
    base = str(recipes[name].parent / "base")
    assert report.base == BaseSummary(name=base, kind=kind, model_type=name, family=name, writes=name != "bert")
    assert rows.base is None


def test_it_is_the_public_one(recipes: dict[str, Path]) -> None:
    assert alter.validate is validate
    assert validate(load_recipe(recipes["bert"])) == validate(str(recipes["bert"]))


# case -> base, overrides, and how each problem begins
MISFITS: dict[str, tuple[str, list[str], list[str]]] = {
    "a package that is not installed": ("bert", ["model_name_or_path=package:no_such"], ["package:no_such: the package is not inst"]),
    "no such folder": ("bert", ["model_name_or_path=./nowhere"], ["./nowhere: no such folder; give a folder with config.json"]),
    "a revision of a folder": ("bert", ["revision=main"], ["{base}: revision 'main' is for hub models only"]),
    "texts to write on an encoder": (
        "bert", ["tasks.mood.kind=generation", "tasks.stars.target=it is {{ label }}"],
        ["task 'mood' is a generation, and this base model is an encoder", "task 'stars' sets target, which only a base model that"],
    ),
    "packing on an encoder-decoder": ("t5", ["train.packing=true"], ["train.packing is for decoder-only models"]),
    "longer inputs than positions": ("bert", ["max_length=4000"], ["max_length is 4000, but this base model has 160 positions"]),
    "sites that are not there": ("t5", ["mta.sites=[0, 4]"], ["mta.sites names [4], but this model has 4 FFNs; allowed: 0 to 3"]),
    "labels that are written alike": (
        "gpt2", ["tasks.mood.target=it"], ["task 'mood': the answers 'pleased' and 'upset' are written with the same tokens"],
    ),
    "a chat without a template": (
        "t5", ["tasks.echo.chat=true"], ["task 'echo' is a chat, but the tokenizer of this base model has no chat template"],
    ),
    "several at once": (
        "t5", ["mta.sites=[9]", "tasks.echo.chat=true"],
        ["mta.sites names [9], but this model has 4 FFNs", "task 'echo' is a chat, but the tokenizer"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISFITS)
def test_what_training_refuses_is_a_problem(recipes: dict[str, Path], case: str, tmp_path: Path) -> None:
    name, overrides, starts = MISFITS[case]
    recipe: Recipe = load_recipe(recipes[name], overrides)
    report = validate(recipe)
    assert not report.is_valid
    assert len(report.problems) == len(starts)
    for problem, start in zip(report.problems, starts, strict=True):
        assert problem.startswith(start.format(base=recipes[name].parent / "base"))
    with pytest.raises(AlterError):
        train(recipe, output_dir=tmp_path / "run")


def test_problems_of_rows_and_of_the_base_are_told_together(tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tasks=["mood"])
    (tmp_path / "mood-test.jsonl").write_text("broken\n")
    rows, base = validate(load_recipe(path, ["mta.sites=[9]"])).problems
    assert rows.startswith(f"{tmp_path / 'mood-test.jsonl'}:1: not valid JSON")
    assert base.startswith("mta.sites names [9]")


def test_a_hub_that_is_out_of_reach_is_a_warning(
    recipes: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    report = validate(load_recipe(recipes["bert"], ["model_name_or_path=nobody/no-such-model"]))
    assert report.is_valid
    assert report.base is None
    [warning] = report.warnings
    assert warning.startswith(
        "the base model was not looked at, and training needs it: nobody/no-such-model: no such folder here, and the hub does not "
        "give it ("
    )
    assert warning.endswith("check the spelling and the connection, or give a local folder or package:NAME")
