"""Models of alter on one base: one directory that answers the tasks of all, each as its own model did."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.merging.models import IDS_BS, MASK_BS, assert_same_answers, change_config, outputs, save_part
from tests.tiny import save_tiny, save_tiny_lm

import alter
from alter.checkpoint import load_model
from alter.combining.statistics import diagonal_fisher, gram_matrices
from alter.errors import CheckpointError, ConfigError
from alter.model_config import load_config
from alter.mta_settings import ADAPTERS, GATES, OWNERS

SMALL = {"adapter": {"kind": "lora", "r": 4}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def lite(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two models on a frozen base, of three tasks and of two; tests leave them as they are."""
    folder = tmp_path_factory.mktemp("lite")
    one = save_part(folder / "one", base, ["intent", "urgency", "score"], mta=SMALL, seed=1)
    return [one, save_part(folder / "two", base, ["mood", "score-2"], mta=SMALL, seed=2)]


@pytest.fixture(scope="module")
def full(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two models of preset alter, with trained backbones."""
    folder = tmp_path_factory.mktemp("full")
    one = save_part(folder / "one", base, ["intent", "urgency", "score"], preset="alter", seed=1)
    return [one, save_part(folder / "two", base, ["mood", "topic"], preset="alter", seed=2)]


# ---- a frozen base: the union ----------------------------------------------------------------------------------------


def test_tasks_answer_as_in_their_own_models(lite: list[Path], tmp_path: Path) -> None:
    report = alter.merge(lite, output_dir=tmp_path / "out")
    assert (report.kind, report.method, report.lengths) == ("model", None, {})
    assert list(report.tasks) == ["intent", "urgency", "score", "mood", "score-2"]
    assert_same_answers(tmp_path / "out", lite)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_whole_predicts_as_the_parts_do_and_mixes_all_tasks_in_a_batch(lite: list[Path], tmp_path: Path) -> None:
    alter.merge(lite, output_dir=tmp_path / "out")
    whole = alter.load(tmp_path / "out")
    texts = ["good day", "a bad bank", "please help"]
    expected = [p for part in map(alter.load, lite) for task in part.tasks for p in part.predict(task, texts)]
    pairs = [(task, text) for task in whole.tasks for text in texts]
    found = whole.predict([task for task, _ in pairs], [text for _, text in pairs], gate_weights=True)
    for ours, theirs in zip(found, expected, strict=True):
        assert (ours.task, ours.label) == (theirs.task, theirs.label)
        assert (
            ours.value == pytest.approx(theirs.value, abs=1e-4)
            if ours.value is not None
            else ours.score == pytest.approx(theirs.score, abs=1e-4)
        )
    weights = found[-1].gate_weights  # of score-2, the second part's
    assert set(weights) == {*whole.tasks, *(f"shared-{position}" for position in range(4))}
    used = {name for name, weight in weights.items() if weight}
    assert used == {"score-2", "shared-2", "shared-3"}


def test_the_directory_is_drawn_as_any_other(lite: list[Path], tmp_path: Path) -> None:
    alter.merge(lite, output_dir=tmp_path / "out")
    config = load_config(tmp_path / "out")
    assert [part.name for part in config.parts] == ["one", "two"]
    assert config.scales == {"score": (3.0, 0.5), "score-2": (4.0, 0.5)}
    assert {path.name for path in (tmp_path / "out" / "adapters").iterdir()} == {task.name for task in config.tasks}
    assert {path.name for path in (tmp_path / "out" / "shared").iterdir()} == {"0", "1", "2", "3"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert "Each task keeps its own adapters" in card
    assert str(lite[0]) in card
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        ours, theirs = tmp_path / "out" / "adapters" / "mood" / name, lite[1] / "adapters" / "mood" / name
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_order_of_models_is_the_order_of_tasks_alone(lite: list[Path], tmp_path: Path) -> None:
    alter.merge(lite[::-1], output_dir=tmp_path / "out")
    assert_same_answers(tmp_path / "out", lite[::-1])


def test_a_merged_model_can_be_merged_again(lite: list[Path], base: Path, tmp_path: Path) -> None:
    third = save_part(tmp_path / "third", base, ["late"], mta={**SMALL, "num_shared": 1}, router="selector", seed=3)
    alter.merge(lite, output_dir=tmp_path / "out")
    alter.merge([third, tmp_path / "out"], output_dir=tmp_path / "again")
    assert_same_answers(tmp_path / "again", [third, *lite])
    alter.merge([tmp_path / "out", third], output_dir=tmp_path / "once-more")
    assert_same_answers(tmp_path / "once-more", [*lite, third])
    assert [part.name for part in load_config(tmp_path / "once-more").parts] == ["one", "two", "third"]


KINDS = [kind for kind in GATES.names() if kind != "outputs"]


@pytest.mark.parametrize("gate", GATES.names())
@pytest.mark.parametrize("selector", KINDS)
@pytest.mark.parametrize("granularity", ["sequence", "token"])
def test_every_selector_and_gate_goes_with_any_other(
    base: Path, lite: list[Path], tmp_path: Path, selector: str, gate: str, granularity: str
) -> None:
    if granularity == "token" and "linear" not in (selector, gate):
        pytest.skip("no gate that looks at tokens")
    num_shared = 0 if gate in OWNERS else 3
    mta = {
        **SMALL,
        "selector": {"kind": selector, "granularity": granularity},
        "gate": {"kind": gate, "over": "all", "granularity": granularity},
        "num_shared": num_shared,
    }
    other = save_part(tmp_path / "other", base, ["late", "early", "never"], mta=mta, seed=4)
    alter.merge([lite[0], other], output_dir=tmp_path / "out")
    assert_same_answers(tmp_path / "out", [lite[0], other])


@pytest.mark.parametrize(("first", "second"), list(itertools.pairwise(["gate", "selector", "selector", "gate"])))
def test_each_part_keeps_the_stage_that_was_released(base: Path, tmp_path: Path, first: str, second: str) -> None:
    one = save_part(tmp_path / "one", base, ["a", "b"], mta=SMALL, router=first, seed=1)
    two = save_part(tmp_path / "two", base, ["c", "d"], mta=SMALL, router=second, seed=2)
    alter.merge([one, two], output_dir=tmp_path / "out")
    assert load_config(tmp_path / "out").router == ("gate" if "gate" in (first, second) else "selector")
    assert_same_answers(tmp_path / "out", [one, two])


@pytest.mark.parametrize("adapter", ADAPTERS.names())
def test_every_adapter_kind_and_fewer_adapters_than_tasks(base: Path, tmp_path: Path, adapter: str) -> None:
    mta = {"adapter": {"kind": adapter, "r": 4}, "sites": "last", "num_shared": 1}
    one = save_part(tmp_path / "one", base, ["a", "b", "c"], mta={**mta, "num_adapters": 2}, seed=1)
    two = save_part(tmp_path / "two", base, ["d", "e"], mta={**mta, "num_shared": 2}, seed=2)
    alter.merge([one, two], output_dir=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out" / "adapters").iterdir()) == [f"adapter-{i}" for i in range(4)]
    assert_same_answers(tmp_path / "out", [one, two])


def test_heads_with_a_dense_layer(base: Path, tmp_path: Path) -> None:
    heads = {"kind": "mlp", "pooling": "cls"}
    parts = [save_part(tmp_path / name, base, [f"{name}-task"], mta=SMALL, heads=heads, seed=ord(name)) for name in "ab"]
    alter.merge(parts, output_dir=tmp_path / "out")
    assert_same_answers(tmp_path / "out", parts)


@pytest.mark.parametrize("variant", ["t5", "gpt2", "llama"])
@pytest.mark.parametrize(
    "gate",
    [{"kind": "task", "over": "shared"}, {"kind": "outputs"}, {"kind": "linear"}, {"kind": "linear", "granularity": "token"}],
)
def test_models_that_write_answer_and_write_as_before(tmp_path: Path, variant: str, gate: dict[str, Any]) -> None:
    base = save_tiny_lm(tmp_path / "base", variant)
    one = save_part(tmp_path / "one", base, ["text", "mood"], mta={**SMALL, "gate": gate}, seed=1)
    two = save_part(tmp_path / "two", base, ["text-2"], mta={**SMALL, "gate": {"kind": "linear", "over": "shared"}}, seed=2)
    alter.merge([one, two], output_dir=tmp_path / "out")
    assert not (tmp_path / "out" / "heads.safetensors").exists()
    assert_same_answers(tmp_path / "out", [one, two], atol=1e-5)
    whole = load_model(tmp_path / "out").model
    ids, mask = IDS_BS[:1], MASK_BS[:1]
    settings = {"max_new_tokens": 5, "do_sample": False, "num_beams": 2}
    for part in (one, two):
        own = load_model(part).model
        for task in own.task_names:
            written = whole.generate(ids, mask, task_ids=whole.task_ids([task]), **settings)
            assert torch.equal(written, own.generate(ids, mask, task_ids=own.task_ids([task]), **settings))


def test_a_batch_of_one_part_trains_nothing_of_the_other(lite: list[Path], tmp_path: Path) -> None:
    alter.merge(lite, output_dir=tmp_path / "out")
    model = load_model(tmp_path / "out").model
    model.requires_grad_(True)
    rows_B = model.task_ids(["mood"] * len(IDS_BS))
    model(IDS_BS, MASK_BS, task_ids=rows_B, label_ids=torch.zeros_like(rows_B)).loss.backward()
    groups = model.parameter_groups()
    assert sum(bool(p.grad is not None and p.grad.any()) for p in groups["gate"].values()) == 2  # one gate at each site
    for name, parameter in groups["task_adapters"].items():
        mine = ".bank.adapters.3." in name
        assert bool(parameter.grad is not None and parameter.grad.any()) == mine, name


def test_gates_of_a_merged_model_start_at_its_selectors(base: Path, tmp_path: Path) -> None:
    mta = {**SMALL, "selector": {"kind": "selector"}, "gate": {"kind": "task", "over": "all"}}
    parts = [save_part(tmp_path / name, base, [f"{name}-1", f"{name}-2"], mta=mta, seed=ord(name)) for name in "ab"]
    alter.merge(parts, output_dir=tmp_path / "out")
    model = load_model(tmp_path / "out").model
    model.start_gates()
    for mta_module in model.mtas:
        selected = mta_module.selector_weights()
        assert selected.shape == (4, 4)
        assert (selected[:2, 2:] == 0).all()
        torch.testing.assert_close(selected.sum(-1), torch.ones(4))


# ---- trained backbones -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["average", "task_arithmetic", "ties", "dare", "dare_ties", "metagpt"])
def test_trained_backbones_are_merged_and_everything_else_is_kept(full: list[Path], tmp_path: Path, method: str) -> None:
    report = alter.merge(full, method=method, output_dir=tmp_path / "out")
    assert set(report.lengths) == {str(path) for path in full}
    found = load_file(tmp_path / "out" / "backbone.safetensors")
    one, two = (load_file(path / "backbone.safetensors") for path in full)
    assert found.keys() == one.keys()
    if method == "average":
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, (one[name] + two[name]) / 2, atol=1e-6, rtol=0)
    whole = load_model(tmp_path / "out").model
    assert load_config(tmp_path / "out").base.trained
    for path in full:  # with its own backbone back in place each task answers as before
        own = load_model(path).model
        whole.backbone.load_state_dict(
            {name.removeprefix("backbone."): tensor for name, tensor in load_file(path / "backbone.safetensors").items()},
            strict=False,
        )
        for task in own.task_names:
            torch.testing.assert_close(outputs(whole, task), outputs(own, task), atol=1e-5, rtol=1e-4)


def test_plainly_fine_tuned_models_have_no_adapters_to_copy(base: Path, tmp_path: Path) -> None:
    plain = {
        "sites": "none",
        "num_shared": 0,
        "selector": {"kind": "one_hot", "temperature": 1.0, "num_owned": 1},
        "gate": {"kind": "one_hot"},
    }
    parts = [
        save_part(tmp_path / name, base, [name], preset="alter", mta=plain, router="selector", seed=ord(name)) for name in "ab"
    ]
    alter.merge(parts, method="average", output_dir=tmp_path / "out")
    one, two, both = (load_file(path / "backbone.safetensors") for path in (*parts, tmp_path / "out"))
    for name, tensor in both.items():
        torch.testing.assert_close(tensor, (one[name] + two[name]) / 2, rtol=0, atol=1e-6)
    heads, own = load_file(tmp_path / "out" / "heads.safetensors"), load_file(parts[1] / "heads.safetensors")
    assert {name.replace("heads.heads.1.", "heads.heads.0.") for name in heads if ".1." in name} == own.keys()
    assert not (tmp_path / "out" / "adapters").exists()
    model = load_model(tmp_path / "out")
    assert model.model.mtas == []
    assert torch.isfinite(model.model(IDS_BS, MASK_BS, task_ids=model.model.task_ids(["a", "b", "a", "b", "a"])).logits).all()


def test_a_part_with_a_frozen_base_changes_nothing_of_the_backbone(full: list[Path], base: Path, tmp_path: Path) -> None:
    frozen = save_part(tmp_path / "frozen", base, ["cold"], mta={"adapter": {"kind": "ffn_clone"}, "sites": "last"}, seed=5)
    alter.merge([full[0], frozen], method="task_arithmetic", settings={"scale": 1.0}, output_dir=tmp_path / "out")
    found, one = (load_file(path / "backbone.safetensors") for path in (tmp_path / "out", full[0]))
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, one[name], atol=1e-6, rtol=0)


def test_statistics_of_models_of_alter(full: list[Path], tmp_path: Path) -> None:
    fisher, grams = [], []
    for path in full:
        model = load_model(path).model
        task = model.task_names[0]
        rows = [{"input_ids": IDS_BS[row : row + 1], "task_ids": model.task_ids([task])} for row in (0, 2)]
        before = [parameter.requires_grad for parameter in model.parameters()]
        fisher.append(diagonal_fisher(model, [{**row, "label_ids": torch.tensor([1])} for row in rows]))
        assert [parameter.requires_grad for parameter in model.parameters()] == before
        grams.append(gram_matrices(model, rows))
    for method, statistics in (("fisher", fisher), ("regmean", grams)):
        alter.merge(full, method=method, statistics=statistics, output_dir=tmp_path / method)
        found = load_file(tmp_path / method / "backbone.safetensors")
        assert all(tensor.isfinite().all() for tensor in found.values())
        assert load_model(tmp_path / method).model.task_names == ["intent", "urgency", "score", "mood", "topic"]


# ---- what does not fit together --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"mta": {"adapter": {"r": 8}}},
            r"other: its mta.adapter.r is 8, and that of .*one is 4; a merged model has one for all",
        ),
        ({"mta": {"adapter": {"lora_alpha": 4.0}}}, "its mta.adapter.lora_alpha is 4.0, and that of .*one is 8.0"),
        ({"mta": {"adapter": {"kind": "bottleneck"}}}, "its mta.adapter.kind is 'bottleneck', and that of .*one is 'lora'"),
        (
            {"mta": {"sites": "last"}},
            "its mta.sites is 'last', and that of .*one is 'all'; .*only models with the same mta.sites",
        ),
        ({"heads": {"pooling": "cls"}}, "its heads.pooling is 'cls', and that of .*one is 'mean'"),
        ({"heads": {"kind": "mlp"}}, "its heads.kind is 'mlp', and that of .*one is 'linear'"),
        ({"prompt_separator": " :"}, "its prompt_separator is ' :', and that of .*one is "),
    ],
)
def test_models_made_otherwise_are_refused(
    base: Path, lite: list[Path], tmp_path: Path, changed: dict[str, Any], says: str
) -> None:
    mta = {**SMALL, **changed.pop("mta", {})}
    mta["adapter"] = {**SMALL["adapter"], **mta["adapter"]}
    other = save_part(tmp_path / "other", base, ["late"], mta=mta, seed=3, **changed)
    with pytest.raises(ConfigError, match=says):
        alter.merge([lite[0], other], output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_base_is_refused_by_its_fingerprint(lite: list[Path], tmp_path: Path) -> None:
    other = save_part(tmp_path / "other", save_tiny(tmp_path / "base", seed=7), ["late"], mta=SMALL)
    with pytest.raises(
        ConfigError, match=r"other: its base is .*\(fingerprint \w{16}\), and that of .*one is .*only models trained on one"
    ):
        alter.merge([lite[0], other], output_dir=tmp_path / "out")


def test_a_base_that_moved_is_given_and_another_one_is_refused(lite: list[Path], base: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(base, tmp_path / "moved")
    alter.merge(lite, base=moved, output_dir=tmp_path / "out")
    assert load_config(tmp_path / "out").base.name == str(moved)
    assert_same_answers(tmp_path / "out", lite)
    other = save_tiny(tmp_path / "another", seed=7)
    with pytest.raises(CheckpointError, match=r"was trained on another base \(fingerprint .*--base BASE"):
        alter.merge(lite, base=other, output_dir=tmp_path / "never")
    assert not (tmp_path / "never").exists()


def test_a_task_that_two_models_have_is_refused(base: Path, lite: list[Path], tmp_path: Path) -> None:
    other = save_part(tmp_path / "other", base, ["late", "urgency"], mta=SMALL)
    with pytest.raises(ConfigError, match=r"other: the task 'urgency' is in .*one too, and a merged model has each task once"):
        alter.merge([lite[0], other], output_dir=tmp_path / "out")


def test_a_method_is_asked_for_where_it_is_read_and_refused_where_it_is_not(
    lite: list[Path], full: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="one: its backbone was trained, so the backbones must be merged; add --method"):
        alter.merge(full, output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--method ties has nothing to do: all models share one frozen base.*--adapters merge"):
        alter.merge(lite, method="ties", output_dir=tmp_path / "out")


def test_damage_is_found_before_anything_is_in_place(lite: list[Path], full: list[Path], tmp_path: Path) -> None:
    one = shutil.copytree(lite[0], tmp_path / "one")
    shutil.copy(lite[1] / "heads.safetensors", one / "heads.safetensors")
    with pytest.raises(CheckpointError, match=r"heads.safetensors: "):
        alter.merge([one, lite[1]], output_dir=tmp_path / "out")
    shutil.rmtree(one / "adapters" / "urgency")
    with pytest.raises(CheckpointError, match="adapters/urgency: no such folder; the model directory is incomplete"):
        alter.merge([one, lite[1]], output_dir=tmp_path / "out")
    (one / "gates.safetensors").unlink()
    two = shutil.copytree(full[1], tmp_path / "two")
    (two / "backbone.safetensors").write_bytes((lite[0] / "gates.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=r"backbone.safetensors does not fit that of .* or the base, e.g. '"):
        alter.merge([full[0], two], method="average", output_dir=tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_a_config_whose_parts_do_not_make_the_whole_is_damage(lite: list[Path], tmp_path: Path) -> None:
    alter.merge(lite, output_dir=tmp_path / "out")
    parts = [part.model_dump() for part in load_config(tmp_path / "out").parts]
    change_config(tmp_path / "out", "alter_config.json", parts=parts[:1])
    with pytest.raises(
        CheckpointError, match=r"the parts have num_tasks 3 together, but the model has 5.*copy the model directory again"
    ):
        load_model(tmp_path / "out")


def test_a_model_that_is_not_merged_has_no_parts_on_disk(lite: list[Path]) -> None:
    assert '"parts"' not in (lite[0] / "alter_config.json").read_text()
