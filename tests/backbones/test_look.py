"""A look at a base model finds what loading it finds, and reads no weights."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub.constants
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError
from tests.tiny import FAMILY_NAMES, GENERATIVE, save_tiny, save_tiny_lm, tiny_tokenizer
from transformers import ErnieConfig, ErnieModel

from alter.backbones._find import family_of, sites_of
from alter.backbones._load import load_base
from alter.backbones._look import is_out_of_reach, look_at
from alter.errors import ModelError


@pytest.mark.parametrize("name", [*FAMILY_NAMES, *GENERATIVE])
def test_it_finds_what_loading_finds(name: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, name) if name in FAMILY_NAMES else save_tiny_lm(tmp_path, name)
    look = look_at(str(folder))
    model, tokenizer = load_base(str(folder))
    assert look.kind == family_of(model).kind
    assert look.model_type == model.config.model_type
    assert look.sites is not None
    assert [(site.owner, site.down) for site in look.sites] == [(site.owner, site.down) for site in sites_of(model)]
    assert look.tokenizer.get_vocab() == tokenizer.get_vocab()
    shapes = {key: parameter.shape for key, parameter in model.named_parameters()}
    assert {key: parameter.shape for key, parameter in look.skeleton.named_parameters()} == shapes
    assert all(parameter.is_meta for parameter in look.skeleton.parameters())


@pytest.mark.parametrize(("name", "family"), [("bert", "bert"), ("electra", "electra"), ("mt5", "t5"), ("opt_350m", "opt")])
def test_the_family_is_named(name: str, family: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path, name) if name in FAMILY_NAMES else save_tiny_lm(tmp_path, name)
    assert look_at(str(folder)).family == family


def test_a_model_of_no_family_is_left_to_the_search(tmp_path: Path) -> None:
    sizes = {"vocab_size": 200, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    ErnieModel(ErnieConfig(**sizes)).save_pretrained(tmp_path)
    tiny_tokenizer("bert").save_pretrained(tmp_path)
    look = look_at(str(tmp_path))
    assert (look.kind, look.family, look.sites) == ("encoder", None, None)


def test_a_base_that_leaves_its_encoder_elsewhere_is_seen_whole() -> None:
    pytest.importorskip("alter_mini")
    look = look_at("package:alter_mini")
    assert (look.kind, look.family) == ("encoder-decoder", "encoder_decoder")
    assert [site.stack for site in look.sites or []] == ["encoder"] * 3 + ["decoder"] * 3


def no_words(base: Path) -> None:
    for path in base.glob("tokenizer*"):
        path.unlink()


def half(base: Path) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def pointer(base: Path) -> None:
    (base / "model.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")


def other_words(base: Path) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "vocab_size": 20}))


def other_type(base: Path) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": "nothing-known"}))


def odd_sizes(base: Path) -> None:
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_attention_heads": 5}))


BROKEN = {
    "no tokenizer": (no_words, "tokenizer"),
    "half the weights": (half, "the weights cannot be read ("),
    "a pointer of Git LFS": (pointer, "or a pointer left by Git LFS; copy or download it again"),
    "another tokenizer": (other_words, "but the model embeds 20 tokens"),
    "an unknown type": (other_type, "model type 'nothing-known' is not supported"),
    "sizes that do not fit": (odd_sizes, "no model can be built from its config.json ("),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_loading_refuses_is_refused(case: str, tmp_path: Path) -> None:
    spoil, says = BROKEN[case]
    base = save_tiny(tmp_path / "base")
    spoil(base)
    with pytest.raises(ModelError) as caught:
        look_at(str(base))
    assert str(caught.value).startswith(f"{base}: ")
    assert says in str(caught.value)
    assert not is_out_of_reach(caught.value)
    with pytest.raises(ModelError):
        load_base(str(base))


def test_no_connection_is_told_from_a_wrong_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelError, match="the hub does not give it") as caught:
        look_at("nobody/no-such-model")
    assert is_out_of_reach(caught.value)
    for name in ("./nowhere", "package:no_such_package"):
        with pytest.raises(ModelError) as caught:
            look_at(name)
        assert not is_out_of_reach(caught.value)


def test_causes_count_and_what_happened_before_does_not() -> None:
    def raised(*, cause: bool) -> ModelError:
        try:
            try:
                raise LocalEntryNotFoundError("not in the cache")
            except OSError as error:
                raise ModelError("refused") from (error if cause else None)
        except ModelError as error:
            return error

    assert is_out_of_reach(raised(cause=True))
    assert not is_out_of_reach(raised(cause=False))
