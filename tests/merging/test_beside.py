"""What lies beside the weights of a plain model folder: what must be the same in all, and what is copied."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.merging.models import change_config, save_stock
from tests.tiny import tiny_lm

import alter
from alter.errors import ConfigError

KEPT = [
    "LICENSE",
    "chat_template.jinja",
    "merges.txt",
    "modules.json",
    "qwen.tiktoken",
    "sentence_bert_config.json",
    "spiece.model",
    "spm.spm",
    "vocab.txt",
    "1_Pooling/config.json",
    "additional_chat_templates/tool_use.jinja",
    "target_tokenizer/tokenizer.json",
]
LEFT = [
    ".cache/huggingface/one.json",
    ".gitattributes",
    ".ipynb_checkpoints/config.json",
    "2_Dense/model.safetensors",
    "__pycache__/modeling.pyc",
    "checkpoint-500/trainer_state.json",
    "events.out.tfevents.1",
    "flax_model.msgpack",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "onnx/model.onnx",
    "onnx/model.onnx_data",
    "openvino/openvino_model.bin",
    "openvino/openvino_model.xml",
    "optimizer.pt",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "rng_state.pth",
    "runs/events.out.tfevents.2",
    "tf_model.h5",
    "trainer_state.json",
    "training_args.bin",
]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """Return a folder with two models, `one` and `two`."""
    for seed, name in enumerate(("one", "two"), start=1):
        save_stock(tmp_path / "stock" / name, seed=seed)
    return tmp_path / "stock"


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_everything_but_weights_and_traces_of_training_is_copied(own: Path, tmp_path: Path) -> None:
    before = files(own / "one")
    for name in [*KEPT, *LEFT]:
        path = own / "one" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"from": name}))
    alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "out")
    assert files(tmp_path / "out") == {*before, *KEPT, "README.md"}
    for name in KEPT:
        assert json.loads((tmp_path / "out" / name).read_text()) == {"from": name}
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir() and not files(path)]


def test_the_card_of_the_first_model_is_not_that_of_the_merged_one(own: Path, tmp_path: Path) -> None:
    (own / "one" / "README.md").write_text("the best of all models")
    alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "README.md").read_text().startswith("---\nbase_model:")


def test_links_that_lead_above_or_nowhere_are_not_followed(own: Path, tmp_path: Path) -> None:
    (own / "one" / "all").symlink_to(own, target_is_directory=True)
    (own / "one" / "gone.json").symlink_to(own / "nowhere.json")
    alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name in ("all", "gone.json")]


@pytest.fixture
def composed(tmp_path: Path) -> Path:
    """Return a folder with two models whose configurations hold one for the encoder and one for the decoder."""
    for name in ("one", "two"):
        tiny_lm("encoder_decoder").save_pretrained(tmp_path / "stock" / name)
    return tmp_path / "stock"


def change_nested(folder: Path, part: str, **keys: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, **{part: {**config[part], **keys}})


def test_what_does_not_matter_does_not_matter_in_a_part_either(composed: Path, tmp_path: Path) -> None:
    change_nested(composed / "two", "encoder", dtype="float16", _name_or_path="elsewhere", transformers_version="4.0.0")
    change_nested(composed / "two", "decoder", hidden_dropout_prob=0.3, use_cache=False, architectures=["BertModel"])
    alter.merge([composed / "one", composed / "two"], method="average", output_dir=tmp_path / "out")
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_what_matters_in_a_part_is_told_by_its_place(composed: Path, tmp_path: Path) -> None:
    change_nested(composed / "two", "decoder", num_attention_heads=2)
    with pytest.raises(
        ConfigError, match=r"two: config.json says decoder.num_attention_heads: 2, and .*one says 4; only models of one"
    ):
        alter.merge([composed / "one", composed / "two"], method="average", output_dir=tmp_path / "out")


def test_a_label_may_be_called_like_a_setting(own: Path, tmp_path: Path) -> None:
    for name, ids in (("one", [0, 1]), ("two", [1, 0])):
        change_config(own / name, label2id=dict(zip(("dropped", "dtype"), ids, strict=True)))
    with pytest.raises(ConfigError, match=r"two: config.json says label2id: {'dropped': 1, 'dtype': 0}"):
        alter.merge([own / "one", own / "two"], method="average", output_dir=tmp_path / "out")
