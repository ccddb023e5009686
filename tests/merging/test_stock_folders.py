"""Plain model folders: what transformers loads from the result, what is copied beside it, what does not fit together."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.merging.models import IDS_BS, change_config, save_stock
from tests.tiny import save_tiny, tiny_lm
from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoTokenizer

import alter
from alter.combining.statistics import diagonal_fisher, gram_matrices
from alter.errors import CheckpointError, ConfigError
from alter.merging import MERGE_METHODS


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `base` and what was made of it: `one`, `two`, `three`; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("stock")
    save_stock(folder / "base")
    for seed, name in enumerate(("one", "two", "three"), start=1):
        save_stock(folder / name, seed=seed)
    return folder


@pytest.fixture
def own(stock: Path, tmp_path: Path) -> Path:
    """Copy the folders, for tests that spoil them."""
    return Path(shutil.copytree(stock, tmp_path / "stock"))


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_transformers_loads_the_merged_folder(stock: Path, tmp_path: Path) -> None:
    report = alter.merge(
        [stock / "one", stock / "two"],
        method="task_arithmetic",
        settings={"scale": 0.5},
        base=stock / "base",
        output_dir=tmp_path / "out",
    )
    assert (report.kind, report.method, report.settings) == ("checkpoint", "task_arithmetic", {"scale": 0.5})
    base, one, two = (tensors(stock / name) for name in ("base", "one", "two"))
    found = AutoModel.from_pretrained(tmp_path / "out")
    for name, tensor in found.state_dict().items():
        if name in base:
            expected = base[name] + 0.5 * (one[name] - base[name] + two[name] - base[name])
            torch.testing.assert_close(tensor, expected, atol=1e-6, rtol=0)
    assert found(IDS_BS).last_hidden_state.isfinite().all()
    assert AutoTokenizer.from_pretrained(tmp_path / "out")("good day").input_ids
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {"config.json", "tokenizer.json", "README.md"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("name", [name for name in MERGE_METHODS.names() if name not in ("fisher", "regmean")])
def test_every_method_without_statistics_merges_folders(stock: Path, tmp_path: Path, name: str) -> None:
    models = [stock / "one", stock / "two", stock / "three"]
    alter.merge(models, method=name, base=stock / "base", output_dir=tmp_path / "out")
    found, base = tensors(tmp_path / "out"), tensors(stock / "base")
    assert found.keys() == base.keys()
    assert any(not torch.equal(found[key], base[key]) for key in base)
    assert all(found[key].dtype == base[key].dtype for key in base)


def test_an_average_needs_no_base_and_is_the_same_with_one(stock: Path, tmp_path: Path) -> None:
    models = [stock / "one", stock / "two"]
    without = alter.merge(models, method="average", output_dir=tmp_path / "without")
    given = alter.merge(models, method="average", base=stock / "base", output_dir=tmp_path / "with")
    assert without.lengths == {}
    # `scale` was 0.02 a parameter: about as far from the base, the two models
    assert set(given.lengths) == {str(model) for model in models}
    assert all(0.01 < length < 1 for length in given.lengths.values())
    one, two = tensors(stock / "one"), tensors(stock / "two")
    for key, tensor in tensors(tmp_path / "without").items():
        torch.testing.assert_close(tensor, (one[key] + two[key]) / 2)
        torch.testing.assert_close(tensor, tensors(tmp_path / "with")[key])


def test_half_precision_stays_and_shards_are_read(stock: Path, tmp_path: Path) -> None:
    for seed, name in ((1, "one"), (2, "two")):
        save_stock(tmp_path / name, seed=seed, dtype=torch.bfloat16)
    whole = tensors(tmp_path / "two")
    names = sorted(whole)
    shards = {"model-00001-of-00002.safetensors": names[:5], "model-00002-of-00002.safetensors": names[5:]}
    for file, members in shards.items():
        save_file({name: whole[name] for name in members}, tmp_path / "two" / file)
    index = {"weight_map": {name: file for file, members in shards.items() for name in members}}
    (tmp_path / "two" / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "two" / "model.safetensors").unlink()
    alter.merge([tmp_path / "one", tmp_path / "two"], method="average", output_dir=tmp_path / "out")
    one = tensors(tmp_path / "one")
    for name, tensor in tensors(tmp_path / "out").items():
        assert tensor.dtype == torch.bfloat16
        torch.testing.assert_close(tensor, ((one[name].double() + whole[name].double()) / 2).bfloat16())
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()
    assert AutoModel.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_a_model_that_writes_is_merged_with_its_tied_weights(tmp_path: Path) -> None:
    for seed in range(3):
        tiny_lm("t5", seed=seed).save_pretrained(tmp_path / str(seed))
    alter.merge([tmp_path / "1", tmp_path / "2"], method="ties", base=tmp_path / "0", output_dir=tmp_path / "out")
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight.data_ptr() == model.shared.weight.data_ptr()


def test_whole_numbers_are_kept_where_they_are_the_same(own: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_file({**tensors(own / name), "positions": torch.arange(4)}, own / name / "model.safetensors")
    alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "out")
    assert tensors(tmp_path / "out")["positions"].tolist() == [0, 1, 2, 3]
    save_file({**tensors(own / "two"), "positions": torch.arange(4) + 1}, own / "two" / "model.safetensors")
    with pytest.raises(ConfigError, match="two: 'positions' holds whole numbers that differ from those of"):
        alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "other")


def test_statistics_of_stock_models_are_computed_written_and_used(stock: Path, tmp_path: Path) -> None:
    class WithLoss(torch.nn.Module):
        """A model whose parameters are the folder's, by their names there, and which gives a loss."""

        def __init__(self, folder: Path) -> None:
            super().__init__()
            self.inner = AutoModel.from_pretrained(folder)

        def named_parameters(self, *args: object, **kwargs: object):  # type: ignore[no-untyped-def]
            return self.inner.named_parameters()

        def forward(self, input_ids: torch.Tensor) -> object:
            out = self.inner(input_ids)
            out["loss"] = out.last_hidden_state.square().mean() + out.pooler_output.square().mean()
            return out

    rows = [{"input_ids": ids} for ids in IDS_BS[:3].split(1)]
    for name in ("one", "two"):
        save_file(diagonal_fisher(WithLoss(stock / name), rows), tmp_path / f"{name}-fisher.safetensors")
        grams = gram_matrices(AutoModel.from_pretrained(stock / name), rows)
        save_file(grams, tmp_path / f"{name}-regmean.safetensors")
    for method in ("fisher", "regmean"):
        statistics = [tmp_path / f"{name}-{method}.safetensors" for name in ("one", "two")]
        alter.merge([stock / "one", stock / "two"], method=method, statistics=statistics, output_dir=tmp_path / method)
        found, one, two = tensors(tmp_path / method), tensors(stock / "one"), tensors(stock / "two")
        key = "encoder.layer.0.intermediate.dense.weight"
        assert not torch.allclose(found[key], (one[key] + two[key]) / 2)
        if method == "fisher":  # between the two, entry by entry
            low, high = torch.minimum(one[key], two[key]), torch.maximum(one[key], two[key])
            assert ((found[key] >= low - 1e-6) & (found[key] <= high + 1e-6)).all()


# ---- what does not fit together --------------------------------------------------------------------------------------


def no_config(own: Path) -> None:
    (own / "two" / "config.json").unlink()


def no_weights(own: Path) -> None:
    (own / "two" / "model.safetensors").unlink()


def pickled(own: Path) -> None:
    (own / "two" / "model.safetensors").rename(own / "two" / "pytorch_model.bin")


def peft(own: Path) -> None:
    no_weights(own)
    (own / "two" / "adapter_config.json").write_text("{}")


def truncated(own: Path) -> None:
    path = own / "two" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def bad_index(own: Path) -> None:
    no_weights(own)
    (own / "two" / "model.safetensors.index.json").write_text("{}")


def half_config(own: Path) -> None:
    (own / "two" / "config.json").write_text("{")


def list_config(own: Path) -> None:
    (own / "two" / "config.json").write_text("[]")


def other_heads(own: Path) -> None:
    change_config(own / "two", num_attention_heads=2)


def other_labels(own: Path) -> None:
    for name, label in (("one", "good"), ("two", "bad")):
        change_config(own / name, id2label={"0": label})


def other_shape(own: Path) -> None:
    found = tensors(own / "two")
    found["pooler.dense.bias"] = torch.zeros(7)
    save_file(found, own / "two" / "model.safetensors")


def missing_tensor(own: Path) -> None:
    found = tensors(own / "two")
    del found["pooler.dense.bias"]
    save_file(found, own / "two" / "model.safetensors")


def other_words(own: Path) -> None:
    path = own / "two" / "tokenizer.json"
    content = json.loads(path.read_text())
    words = content["model"]["vocab"]
    words["good"], words["bad"] = words["bad"], words["good"]
    path.write_text(json.dumps(content))


def not_finite(own: Path) -> None:
    found = tensors(own / "two")
    found["pooler.dense.bias"][0] = float("inf")
    save_file(found, own / "two" / "model.safetensors")


def other_encoder(own: Path) -> None:
    for name in ("one", "two"):
        told = {"name": "package:somewhere", "revision": None, "fingerprint": f"of {name}"}
        (own / name / "encoder.json").write_text(json.dumps(told))


def a_file(own: Path) -> None:
    shutil.rmtree(own / "two")
    (own / "two").write_text("")


SPOILT: dict[str, tuple[Callable[[Path], None], type[Exception], str]] = {
    "no config.json": (no_config, CheckpointError, "two: no config.json in it; give a folder that save_pretrained wrote"),
    "no weights": (no_weights, CheckpointError, r"two: no weights \(model.safetensors is missing\)"),
    "pickled weights": (pickled, CheckpointError, "two: the weights are in pickle format only.*save them as safetensors"),
    "a PEFT adapter": (peft, CheckpointError, "two: a single PEFT adapter, which alter merge does not read"),
    "half a file": (truncated, CheckpointError, r"two/model.safetensors: not a whole safetensors file \(1000 bytes"),
    "a damaged index": (bad_index, CheckpointError, "two/model.safetensors.index.json: cannot be read"),
    "a damaged config": (half_config, CheckpointError, "two/config.json: cannot be read"),
    "a config of something else": (list_config, CheckpointError, "two/config.json: holds no mapping"),
    "other heads": (
        other_heads,
        ConfigError,
        "two: config.json says num_attention_heads: 2, and .*one says 4; only models of one",
    ),
    "other labels": (other_labels, ConfigError, "two: config.json says id2label: {'0': 'bad'}, and .*one says {'0': 'good'}"),
    "another shape": (other_shape, ConfigError, r"two: 'pooler.dense.bias' has the shape \(7,\), and in .*one it has \(32,\)"),
    "a missing tensor": (missing_tensor, ConfigError, "two: has no tensor 'pooler.dense.bias', which .*one has .1 such tensors"),
    "other words": (
        other_words,
        ConfigError,
        "two: its tokenizer has other words, or the same words with other ids, than that of",
    ),
    "another encoder": (
        other_encoder,
        ConfigError,
        r"two: encoder.json says that its decoder .*\(fingerprints of two and of one\)",
    ),
    "numbers without end": (
        not_finite,
        CheckpointError,
        "two: 'pooler.dense.bias' holds numbers that are not finite",
    ),
    "a file": (a_file, CheckpointError, "two: no such folder"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_folders_that_cannot_be_merged_are_refused_and_nothing_is_left(own: Path, tmp_path: Path, case: str) -> None:
    spoil, kind, says = SPOILT[case]
    spoil(own)
    with pytest.raises(kind, match=says):
        alter.merge([own / "one", own / "two"], method="ties", base=own / "base", output_dir=tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["stock"]


def test_a_folder_that_leaves_its_encoder_to_a_package_keeps_saying_so(own: Path, tmp_path: Path) -> None:
    told = json.dumps({"name": "package:somewhere", "revision": None, "fingerprint": "the same"})
    for name in ("one", "two"):
        (own / name / "encoder.json").write_text(told)
    alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "encoder.json").read_text() == told


def test_one_path_is_no_list_of_models(stock: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"merge got one model, '.*one'; give a list of them"):
        alter.merge(stock / "one", method="average", output_dir=tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no models are given; give at least two"):
        alter.merge([], method="average", output_dir=tmp_path / "out")


def test_a_base_of_another_shape_is_refused(stock: Path, tmp_path: Path) -> None:
    save_tiny(tmp_path / "other", num_layers=3)
    with pytest.raises(ConfigError, match=r"other: config.json says num_hidden_layers: 3, and .*one says 2"):
        alter.merge([stock / "one", stock / "two"], method="ties", base=tmp_path / "other", output_dir=tmp_path / "out")


def test_a_method_that_needs_a_base_asks_for_it(stock: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="method ties merges what the models changed of their base; add --base BASE"):
        alter.merge([stock / "one", stock / "two"], method="ties", output_dir=tmp_path / "out")


def test_a_base_that_is_not_there(stock: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"owner/base: no such folder; .*hf download owner/base --local-dir FOLDER"):
        alter.merge([stock / "one", stock / "two"], method="ties", base="owner/base", output_dir=tmp_path / "out")
