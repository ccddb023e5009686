"""LoRA adapters of tasks on one frozen base become one: in weight space, then cut to a rank, with the error said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.merging.models import IDS_BS, MASK_BS, outputs, save_part
from tests.tiny import save_tiny, save_tiny_lm

import alter
from alter.backbones._load import load_base
from alter.checkpoint import load_model
from alter.combining.adapters import cut
from alter.errors import ConfigError
from alter.model import MTAModel
from alter.model_config import load_config

RANK = 4
LORA = {"adapter": {"kind": "lora", "r": RANK, "lora_alpha": 12.0}}
FULL = 32  # the tiny BERT's width: no projection has a larger rank


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture(scope="module")
def parts(base: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return two models: of one task, whose stage 1 was released, and of two tasks with shared adapters under a gate."""
    folder = tmp_path_factory.mktemp("parts")
    one = save_part(folder / "one", base, ["intent"], mta=LORA, router="selector", seed=1)
    return [one, save_part(folder / "two", base, ["mood", "score"], mta=LORA, router="gate", seed=2)]


def changes_by_formula(model: MTAModel, task: int) -> dict[str, torch.Tensor]:
    """Return what a task changes at each projection, from the parameters and the gates' formulas (one_hot, task over shared)."""
    found = {}
    for ffn, mta in zip(model.ffns, model.mtas, strict=True):
        bank, gate = mta.bank, mta.gate
        weights = [float(position == task) for position in range(model.num_adapters)]
        shared = torch.sigmoid(gate.shared_logits_TM[task]).tolist()  # type: ignore[union-attr,index]
        weights += shared if model.router == "gate" else [0.0] * len(shared)
        for position, path in enumerate(ffn.paths):
            found[path] = sum(
                weight * (12.0 / RANK) * adapter.lora_B[position] @ adapter.lora_A[position]
                for weight, adapter in zip(weights, bank.adapters, strict=True)  # type: ignore[arg-type]
            ).detach()
    return found


def change_of(model: MTAModel) -> dict[str, torch.Tensor]:
    """Return what the one adapter of a merged model changes."""
    return {
        path: (adapter.lora_B[position] @ adapter.lora_A[position]).detach()
        for ffn, mta in zip(model.ffns, model.mtas, strict=True)
        for adapter in mta.bank.adapters  # type: ignore[union-attr]
        for position, path in enumerate(ffn.paths)
    }


def mean_of(parts: list[Path]) -> dict[str, torch.Tensor]:
    models = [load_model(part).model for part in parts]
    changes = [changes_by_formula(model, task) for model in models for task in range(len(model.task_names))]
    return {path: torch.stack([change[path] for change in changes]).mean(0) for path in changes[0]}


def test_the_whole_rank_loses_nothing_and_is_the_mean_of_what_tasks_change(parts: list[Path], base: Path, tmp_path: Path) -> None:
    report = alter.merge(parts, adapters="merge", method="average", rank=FULL, output_dir=tmp_path / "out")
    assert report.kind == "adapter"
    assert report.relative_error is not None
    assert report.relative_error < 1e-6
    model = load_model(tmp_path / "out").model
    found, expected = change_of(model), mean_of(parts)
    assert found.keys() == expected.keys()
    for path, change in expected.items():
        torch.testing.assert_close(found[path], change, atol=1e-6, rtol=1e-4)
    # and a stock model with that change in its weights computes the same
    stock, _ = load_base(str(base))
    with torch.no_grad():
        for path, change in expected.items():
            stock.get_submodule(path).weight.add_(change)  # type: ignore[operator,union-attr]
        states = stock(IDS_BS, MASK_BS).last_hidden_state
        for task in range(3):
            ours = model(IDS_BS, MASK_BS, task_ids=torch.full((len(IDS_BS),), task)).last_hidden_state
            torch.testing.assert_close(ours, states, atol=1e-5, rtol=1e-4)


def test_the_default_rank_is_the_first_models_and_the_error_is_that_of_the_best_cut(parts: list[Path], tmp_path: Path) -> None:
    report = alter.merge(parts, adapters="merge", method="average", output_dir=tmp_path / "out")
    lost = whole = 0.0
    found = change_of(load_model(tmp_path / "out").model)
    for path, change in mean_of(parts).items():
        values = torch.linalg.svdvals(change.double())
        lost += float(values[RANK:].square().sum())
        whole += float(values.square().sum())
        assert torch.linalg.matrix_rank(found[path], rtol=1e-4) == RANK
    assert report.relative_error == pytest.approx((lost / whole) ** 0.5, rel=1e-4)
    assert report.relative_error is not None
    assert 0.05 < report.relative_error < 1


def test_every_task_keeps_its_head_and_uses_the_one_adapter(parts: list[Path], tmp_path: Path) -> None:
    alter.merge(parts, adapters="merge", method="ties", settings={"density": 0.5}, output_dir=tmp_path / "out")
    config, model = load_config(tmp_path / "out"), load_model(tmp_path / "out").model
    assert (config.router, config.mta.num_adapters, config.mta.num_shared, config.parts) == ("selector", 1, 0, [])
    assert [path.name for path in (tmp_path / "out" / "adapters").iterdir()] == ["adapter-0"]
    assert not (tmp_path / "out" / "shared").exists()
    assert config.scales == {"score": (4.0, 0.5)}
    assert model.heads is not None
    heads = [load_model(part).model.heads for part in parts]
    theirs = [head for bank in heads if bank is not None for head in bank.heads]
    for ours, other in zip(model.heads.heads, theirs, strict=True):
        assert torch.equal(ours.weight, other.weight)  # type: ignore[arg-type]
        assert torch.equal(ours.bias, other.bias)  # type: ignore[arg-type]
    predicted = alter.load(tmp_path / "out").predict(["intent", "score"], ["good day", "good day"])
    assert predicted[0].label in ("yes", "no")
    assert predicted[1].value is not None


def test_peft_can_read_the_adapter(parts: list[Path], tmp_path: Path) -> None:
    alter.merge(parts, adapters="merge", method="average", rank=5, output_dir=tmp_path / "out")
    told = json.loads((tmp_path / "out" / "adapters" / "adapter-0" / "adapter_config.json").read_text())
    assert (told["peft_type"], told["r"], told["lora_alpha"]) == ("LORA", 5, 5.0)


def test_tasks_of_one_model_can_share_an_adapter(parts: list[Path], tmp_path: Path) -> None:
    report = alter.merge([parts[1]], adapters="merge", method="metagpt", output_dir=tmp_path / "out")
    assert list(report.tasks) == ["mood", "score"]
    assert set(report.lengths) == {"mood", "score"}
    model = load_model(parts[1]).model
    for task, name in enumerate(model.task_names):
        length = sum(float(change.double().square().sum()) for change in changes_by_formula(model, task).values()) ** 0.5
        assert report.lengths[name] == pytest.approx(length, rel=1e-4)


def test_what_was_put_together_by_parts_can_become_one_adapter(parts: list[Path], tmp_path: Path) -> None:
    alter.merge(parts, output_dir=tmp_path / "union")
    alter.merge([tmp_path / "union"], adapters="merge", method="average", rank=FULL, output_dir=tmp_path / "out")
    for path, change in change_of(load_model(tmp_path / "out").model).items():
        torch.testing.assert_close(change, mean_of(parts)[path], atol=1e-6, rtol=1e-4)


def test_regmean_of_adapters_with_equal_inputs_is_their_mean(parts: list[Path], tmp_path: Path) -> None:
    names = changes_by_formula(load_model(parts[0]).model, 0)
    grams = {f"backbone.{path}.weight": torch.eye(change.shape[1]) for path, change in names.items()}
    alter.merge(parts, adapters="merge", method="regmean", rank=FULL, statistics=[grams] * 3, output_dir=tmp_path / "out")
    for path, change in change_of(load_model(tmp_path / "out").model).items():
        torch.testing.assert_close(change, mean_of(parts)[path], atol=1e-6, rtol=1e-4)


def test_a_task_that_taps_switched_off_changes_nothing(base: Path, tmp_path: Path) -> None:
    part = save_part(
        tmp_path / "part", base, ["mood", "score"], mta={**LORA, "selector": {"kind": "taps"}}, router="selector", seed=4
    )
    gates = load_file(part / "gates.safetensors")
    gates |= {name: torch.tensor(0.0 if name.endswith(".1") else 0.5) for name in gates if ".selector.scores." in name}
    save_file(gates, part / "gates.safetensors")
    alter.merge([part], adapters="merge", method="average", rank=FULL, output_dir=tmp_path / "out")
    found, whole = change_of(load_model(tmp_path / "out").model), load_model(part).model
    for ffn, mta in zip(whole.ffns, whole.mtas, strict=True):
        own = mta.bank.adapters[0]  # type: ignore[union-attr,index]
        for position, path in enumerate(ffn.paths):
            expected = 0.5 * (12.0 / RANK) * own.lora_B[position] @ own.lora_A[position]  # type: ignore[union-attr,index,operator]
            torch.testing.assert_close(found[path], expected.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("variant", ["t5", "gpt2"])
def test_models_that_write_share_an_adapter(tmp_path: Path, variant: str) -> None:
    base = save_tiny_lm(tmp_path / "base", variant)
    parts = [save_part(tmp_path / name, base, [f"text-{name}"], mta=LORA, router="selector", seed=ord(name)) for name in "ab"]
    alter.merge(parts, adapters="merge", method="task_arithmetic", settings={"scale": 0.5}, rank=8, output_dir=tmp_path / "out")
    model = load_model(tmp_path / "out").model
    assert outputs(model, "text-a").isfinite().all()
    # rank 8 holds the mean of two adapters of rank 4 whole
    first, second = (load_model(part).model for part in parts)
    for path, change in change_of(model).items():
        mean = (changes_by_formula(first, 0)[path] + changes_by_formula(second, 0)[path]) / 2
        torch.testing.assert_close(change, mean, atol=1e-5, rtol=1e-4)


def test_a_cut_is_the_nearest_matrix_of_its_rank() -> None:
    matrix = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    b_OR, a_RI = cut(matrix, 2)
    assert (b_OR.shape, a_RI.shape) == ((3, 2), (2, 3))
    torch.testing.assert_close(b_OR @ a_RI, torch.diag(torch.tensor([3.0, 2.0, 0.0], dtype=torch.float64)))
    torch.testing.assert_close(b_OR.norm(dim=0), a_RI.norm(dim=1))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        (
            {"mta": {"adapter": {"kind": "bottleneck"}}},
            "its adapters are of kind bottleneck, and --adapters merge is for lora alone",
        ),
        (
            {"mta": {**LORA, "gate": {"kind": "outputs"}}},
            "its gate is of kind outputs, which weighs adapters by the text.*one_hot, selector",
        ),
        ({"mta": {**LORA, "selector": {"kind": "linear"}}}, "its selector is of kind linear, which weighs adapters by the text"),
        ({"mta": LORA, "preset": "alter"}, "its backbone was trained with its adapters, and --adapters merge needs a frozen one"),
    ],
)
def test_adapters_that_change_no_weights_are_refused(base: Path, tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    part = save_part(tmp_path / "part", base, ["a", "b"], **changed)
    with pytest.raises(ConfigError, match=f"part: {says}"):
        alter.merge([part], adapters="merge", method="average", output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gate_that_was_not_released_may_be_of_any_kind(base: Path, tmp_path: Path) -> None:
    part = save_part(tmp_path / "part", base, ["a", "b"], mta={**LORA, "gate": {"kind": "outputs"}}, router="selector")
    alter.merge([part], adapters="merge", method="average", output_dir=tmp_path / "out")
    assert load_model(tmp_path / "out").model.task_names == ["a", "b"]


def test_impossible_ranks_and_too_few_tasks_are_refused(parts: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--rank is 33, and the smallest projection has 32 inputs or outputs; allowed: 1 to 32"):
        alter.merge(parts, adapters="merge", method="average", rank=33, output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="--rank is 0; it must be at least 1"):
        alter.merge(parts, adapters="merge", method="average", rank=0, output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="--rank is 4, and only --adapters merge reads it"):
        alter.merge(parts, rank=4, output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="one: has one task, and there is nothing to merge its adapter with"):
        alter.merge(parts[:1], adapters="merge", method="average", output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match="--adapters merge needs a method; add --method, one of average, dare"):
        alter.merge(parts, adapters="merge", output_dir=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"fisher needs .*, one for each of the 3 to merge; seen: 0"):
        alter.merge(parts, adapters="merge", method="fisher", output_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()
