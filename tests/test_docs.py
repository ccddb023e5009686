"""The documentation says what the code says: reference pages, links, names, and the examples in the how-to pages."""

from __future__ import annotations

import importlib
import inspect
import math
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.tiny import seeded, tiny_model
from transformers import AutoModel, MPNetConfig

import alter
from alter import errors
from alter.backbones import FAMILIES
from alter.backbones._find import family_of
from alter.comparing.arms import ARMS
from alter.comparing.choice import arm_recipe, own_arms
from alter.config import parse, read_yaml
from alter.merging import MERGE_METHODS
from alter.merging._method import method_of
from alter.metrics import METRICS
from alter.nn.penalty_shape import SiteWeights
from alter.pretraining.recipe import PretrainRecipe
from alter.recipe import PENALTIES, resolve_recipe
from alter.tasks.read import ALIASES
from alter.tasks.spec import TaskSpec

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PRETRAIN = DOCS / "how-to" / "pretrain.md"


def load(name: str) -> ModuleType:
    """Import a file of docs/, which is no package; `build` finds `checks` as it does when it is run."""
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS))


build, checks = load("build"), load("checks")


def fences(path: Path, language: str) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", build.PAGES)
def test_a_reference_page_is_what_the_code_says(page: str) -> None:
    assert (DOCS / "reference" / page).read_text(encoding="utf-8") == build.render(page), "run: make docs"


@pytest.mark.parametrize("path", checks.documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_and_every_named_file_of_a_document_exists(path: Path) -> None:
    assert checks.problems_in(path) == []


def test_the_map_in_the_readme_has_every_file_of_the_package() -> None:
    assert len(checks.tree_entries()) > 50
    assert checks.tree_problems() == []


def test_every_page_is_reached_from_the_index() -> None:
    linked = set(re.findall(r"\]\(([^)#]+\.md)", (DOCS / "index.md").read_text(encoding="utf-8")))
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert pages <= linked


def test_documents_hold_ascii_only() -> None:
    for path in checks.documents():
        assert path.read_text(encoding="utf-8").isascii(), path


def test_a_bad_link_a_bad_heading_and_a_bad_name_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    page = tmp_path / "page.md"
    page.write_text(
        "# A heading, really\n\n[good](#a-heading-really) [gone](gone.md) [none](#nowhere) [web](https://example.com)\n\n"
        "`src/gone.py` and `gone.py`\n\n```text\n[not](looked-at.md)\n```\n"
    )
    assert checks.problems_in(page) == [
        "page.md:3: the link gone.md leads nowhere",
        "page.md:3: page.md has no heading #nowhere",
        "page.md:5: there is no src/gone.py",
        "page.md:5: there is no gone.py",
    ]


def test_a_reference_page_that_is_out_of_date_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "REFERENCE", tmp_path)
    for page in build.PAGES:
        (tmp_path / page).write_text(build.render(page), encoding="utf-8")
    assert build.stale_pages() == []
    (tmp_path / "cli.md").write_text("old", encoding="utf-8")
    assert build.stale_pages() == ["docs/reference/cli.md: out of date; run: make docs"]


def test_every_setting_of_a_recipe_has_its_line_in_the_reference() -> None:
    page = build.render("recipe.md")
    for kind in build.RECIPE_PARTS:
        for name, field in kind.model_fields.items():
            assert field.description, f"{kind.__name__}.{name} has no docstring"
            assert f"| `{name}` |" in page


def test_the_errors_page_names_every_error() -> None:
    page = (DOCS / "errors.md").read_text(encoding="utf-8")
    names = [name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, errors.AlterError)]
    assert len(names) > 5
    assert [name for name in names if name not in page] == []


def test_the_data_format_page_names_every_column_alias() -> None:
    page = (DOCS / "data-format.md").read_text(encoding="utf-8")
    for ours, theirs in ALIASES.items():
        assert f"| `{ours}` | {', '.join(f'`{name}`' for name in theirs)} |" in page


def test_the_design_page_draws_the_floors_that_are_checked() -> None:
    design = (DOCS / "design.md").read_text(encoding="utf-8")
    assert build.with_floors(design) == design, "run: make docs"
    [drawn] = fences(DOCS / "design.md", "text")
    assert drawn.startswith("cli\n")
    assert len(drawn.splitlines()) > 10


def test_floors_that_are_out_of_date_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = tmp_path / "design.md"
    other.write_text(
        (DOCS / "design.md").read_text(encoding="utf-8").replace("```text\ncli\n", "```text\ncellar\n"), encoding="utf-8"
    )
    monkeypatch.setattr(build, "DESIGN", other)
    assert "docs/design.md: the floors are out of date; run: make docs" in build.stale_pages()


def test_yaml_examples_are_recipes_and_tasks_that_parse(tmp_path: Path) -> None:
    seen = {"# a recipe": 0, "# a task": 0, "# arms": 0}
    for path in DOCS.rglob("*.md"):
        for block in fences(path, "yaml") if path != PRETRAIN else []:
            kind = block.split("\n", 1)[0]
            seen[kind] += 1
            settings = read_yaml(block)
            if kind == "# a recipe":
                assert resolve_recipe(settings, folder=tmp_path, where=str(path)).tasks
            elif kind == "# arms":
                task = {"name": "task", "source": {"train": "rows.jsonl"}}
                recipe = resolve_recipe({"model_name_or_path": "base", "tasks": [task]}, folder=tmp_path, where="a recipe")
                assert all(arm_recipe(recipe, arm, seed=0).tasks for arm in own_arms(settings, where=str(path)))
            else:
                assert TaskSpec.model_validate({"name": "task", **settings}).source is not None
    assert all(seen.values())


def test_yaml_examples_of_pretraining_are_a_recipe_and_other_models_for_it() -> None:
    whole, *models = [read_yaml(block) for block in fences(PRETRAIN, "yaml")]
    text = {key: value for key, value in whole.items() if key != "model_name_or_path"}
    assert models
    for settings in (whole, *({**text, **model} for model in models)):
        assert parse(PretrainRecipe, {"name": "docs", **settings}, where=str(PRETRAIN)).source.train


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Return what puts the example of a how-to page into its folder, as far as Python can tell, and returns its name."""
    added: list[str] = []

    def put(page: str) -> str:
        [code] = fences(DOCS / "how-to" / page, "python")
        place = re.match(r"# src/(.+)/(\w+)\.py\n", code)
        assert place is not None
        package, name = place[1].replace("/", "."), place[2]
        (tmp_path / f"{name}.py").write_text(code, encoding="utf-8")
        folders = importlib.import_module(package).__path__
        monkeypatch.setattr(importlib.import_module(package), "__path__", [*folders, str(tmp_path)])
        spec = importlib.import_module(package).__spec__
        assert spec is not None
        monkeypatch.setattr(spec, "submodule_search_locations", [*folders, str(tmp_path)])
        added.append(f"{package}.{name}")
        return name

    yield put
    for module in added:
        sys.modules.pop(module, None)


def test_the_metric_of_its_how_to_page_scores(plugin: Callable[[str], str]) -> None:
    name = plugin("add-a-metric.md")
    spec = TaskSpec.model_validate({"name": "task", "metrics": [name]})
    assert spec.primary_metric == "precision_macro"
    # a: 1 of 2 answers right, b: 1 of 1
    assert METRICS.get(name)(["a", "a", "b"], ["a", "b", "b"], labels=None) == pytest.approx(0.75)


def test_the_adapter_kind_of_its_how_to_page_starts_as_nothing_and_learns_per_task(plugin: Callable[[str], str]) -> None:
    name = plugin("add-an-adapter-kind.md")
    ids, tasks = torch.arange(12).reshape(2, 6) + 5, torch.tensor([0, 1])
    stock = tiny_model("bert")(input_ids=ids).last_hidden_state
    settings = {"adapter": {"kind": name}, "num_shared": 1}
    model = alter.equip(tiny_model("bert"), tasks={"one": 2, "two": 3}, mta=settings).train(mode=False)
    out = model(input_ids=ids, task_ids=tasks, label_ids=torch.tensor([0, 2]))
    torch.testing.assert_close(out.last_hidden_state, stock)
    out.loss.backward()
    groups = model.parameter_groups()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in groups["task_adapters"].values())
    assert all(parameter.grad is None or not parameter.grad.any() for parameter in groups["shared_adapters"].values())
    model.router = "gate"
    with torch.no_grad():
        next(p for p in groups["shared_adapters"].values()).fill_(1.0)
        changed = model(input_ids=ids, task_ids=tasks).last_hidden_state
    assert not torch.allclose(changed, stock)


def test_the_gate_kind_of_its_how_to_page_starts_near_stage_one(plugin: Callable[[str], str]) -> None:
    name = plugin("add-a-gate-kind.md")
    settings = {"gate": {"kind": name}, "selector": {"kind": "selector"}}
    model = alter.equip(tiny_model("bert"), tasks=["one", "two"], mta=settings)
    model.start_gates()
    model.router = "gate"
    with model.record_weights() as recorded:
        model(input_ids=torch.arange(12).reshape(2, 6), task_ids=torch.tensor([0, 1]))
    assert sorted(recorded) == [0, 1]
    expected = torch.tensor([[0.9, 0.1, 0.5, 0.5], [0.1, 0.9, 0.5, 0.5]])
    torch.testing.assert_close(recorded[0], expected, atol=1e-4, rtol=0)


def test_the_penalty_of_its_how_to_page_is_its_formula_and_has_a_gradient(plugin: Callable[[str], str]) -> None:
    name = plugin("add-a-penalty.md")
    assert name in PENALTIES.names()
    weights = torch.tensor([[2.0, 2.0], [3.0, 0.0], [5.0, 5.0]], requires_grad=True)
    counts_B = torch.tensor([1, 1, 0])
    given = {
        "task_ids_B": torch.tensor([0, 1, 1]),
        "mask_BS": None,
        "num_tasks": 2,
        "num_adapters": 2,
        "gate": torch.nn.Identity(),
    }
    value = PENALTIES.get(name)()([SiteWeights(weights=weights, counts_B=counts_B, **given)])
    assert value.item() == pytest.approx(math.log(2) / 2)  # of two rows that count one is undecided
    value.backward()
    assert weights.grad is not None
    assert torch.isfinite(weights.grad).all()


def test_the_family_of_its_how_to_page_is_equipped(plugin: Callable[[str], str]) -> None:
    config = MPNetConfig(vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4)
    name = plugin("add-a-family.md")
    backbone = seeded(AutoModel, config)
    assert family_of(backbone) is FAMILIES.get(name)
    model = alter.equip(backbone, tasks=["one"])
    assert model.site_positions == [0, 1]
    out = model(input_ids=torch.arange(12).reshape(2, 6) + 5, task_ids=torch.tensor([0, 0]))
    assert torch.isfinite(out.last_hidden_state).all()


def test_the_merge_method_of_its_how_to_page_merges(plugin: Callable[[str], str]) -> None:
    name = plugin("add-a-merge-method.md")
    vectors = [{"w": torch.tensor([number, -number])} for number in (1.0, 2.0, 6.0)]
    assert dict(method_of(name, {"scale": 0.5}).merge(vectors))["w"].tolist() == [1.0, -1.0]


def test_the_statistics_on_the_page_about_merging_are_computed_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [code] = fences(DOCS / "how-to" / "merge.md", "python")
    exec(code, {})  # noqa: S102 - our own page
    fisher, grams = load_file("a-fisher.safetensors"), load_file("a-gram.safetensors")
    weight = "backbone.encoder.layer.0.intermediate.dense.weight"
    assert fisher[weight].shape == (64, 32)
    assert fisher[weight].any()
    assert grams[weight].shape == (32, 32)


def test_the_page_about_merging_names_every_method() -> None:
    page = (DOCS / "how-to" / "merge.md").read_text(encoding="utf-8")
    for name in MERGE_METHODS.names():
        settings = list(method_of(name).settings.model_dump())
        assert re.search(rf"^\| `{name}` \| .+ \| {', '.join(f'`{key}`' for key in settings) or '-'} \|$", page, re.MULTILINE), (
            name
        )


def test_the_page_about_comparing_names_every_arm() -> None:
    page = (DOCS / "how-to" / "compare.md").read_text(encoding="utf-8")
    families = {"gate": "`gate-...`", "peer": "`peft-...`"}
    for arm in ARMS:
        assert families.get(arm.family, f"`{arm.name}`") in page, arm.name


def test_the_loop_on_the_page_about_writing_text_runs_as_it_is() -> None:
    torch.manual_seed(0)
    [code] = fences(DOCS / "how-to" / "write-text.md", "python")
    found: dict[str, Any] = {}
    exec(code, found)  # noqa: S102 - our own page
    assert found["losses"][-1] < 0.5 * found["losses"][0]
    assert found["ids"].shape[0] == 2
    assert found["model"].task_names == ["subject", "mood"]
