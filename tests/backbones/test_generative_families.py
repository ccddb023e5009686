"""The battery that every family of models that write text must pass: encoder-decoders and decoders."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from tests.tiny import GENERATIVE, MAX_POSITIONS, VOCAB_SIZE, save_tiny_lm, seeded, tiny_lm, tiny_lm_config, tiny_lm_tokenizer
from transformers import (
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    EncoderDecoderConfig,
    GPT2Config,
    PreTrainedModel,
)

from alter.backbones import FAMILIES
from alter.backbones._find import family_of, sites_of
from alter.errors import ModelError
from alter.nn.ffn import find_ffn
from alter.nn.site import FFNSite

NUM_LAYERS = 3
IDS_BS = torch.tensor([[131, 10, 11, 12, 13, 3], [152, 20, 21, 22, 23, 3]])
IDS_BT = torch.tensor([[2, 30, 31, 32], [2, 40, 41, 42]])

every_variant = pytest.mark.parametrize("name", GENERATIVE)
Seen = dict[str, tuple[torch.Tensor, torch.Tensor]]


def run(model: PreTrainedModel) -> Seen:
    """Return what each projection of each site read and wrote, in the order of the calls."""
    seen: Seen = {}

    def watch(path: str) -> None:
        def note(_: object, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> None:
            assert path not in seen, f"{path} was called twice"
            seen[path] = (args[0].detach(), out.detach())

        model.get_submodule(path).register_forward_hook(note)

    for site in sites_of(model):
        for path in (*site.inputs, site.down):
            watch(path)
    more = {"decoder_input_ids": IDS_BT} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        model(input_ids=IDS_BS, **more)
    return seen


def expected(model: PreTrainedModel, site: FFNSite, seen: Seen) -> torch.Tensor:
    return find_ffn(model, site).combine()([seen[path][1] for path in site.inputs])


def relative(sites: list[FFNSite], prefix: str) -> list[tuple[object, ...]]:
    """Return what a site says, with its paths as the bare model has them."""
    return [
        (
            *(path.removeprefix(prefix) for path in (site.owner, *site.inputs, site.down)),
            type(site.activation),
            site.form,
            site.dropout,
            site.stack,
        )
        for site in sites
    ]


@every_variant
def test_a_site_computes_what_its_ffn_computes(name: str) -> None:
    model = tiny_lm(name, num_layers=NUM_LAYERS)
    sites = sites_of(model)
    seen = run(model)
    assert list(seen) == [path for site in sites for path in (*site.inputs, site.down)], "the forward pass has another order"
    for site in sites:
        x, inner = seen[site.inputs[0]][0], seen[site.down][0]
        assert all(torch.equal(seen[path][0], x) for path in site.inputs)
        assert inner.abs().max() > 1e-4
        torch.testing.assert_close(expected(model, site, seen), inner, rtol=0, atol=1e-6)


@every_variant
def test_there_is_one_site_per_layer_in_the_right_stack(name: str) -> None:
    variant = GENERATIVE[name]
    sites = sites_of(tiny_lm(name, num_layers=NUM_LAYERS))
    encoder = ["encoder"] * NUM_LAYERS if variant.kind == "encoder-decoder" else []
    assert [site.stack for site in sites] == encoder + ["decoder"] * NUM_LAYERS
    assert {site.form for site in sites} == {variant.form}
    assert len({site.owner for site in sites}) == len(sites)


@every_variant
def test_a_model_is_found_by_its_model_type(name: str) -> None:
    variant = GENERATIVE[name]
    family = family_of(tiny_lm(name))
    assert family is FAMILIES.get(variant.family)
    assert family.kind == variant.kind


def test_every_model_type_has_a_variant() -> None:
    built = {tiny_lm_config(name).model_type for name in GENERATIVE}
    families = {variant.family for variant in GENERATIVE.values()}
    assert built == {model_type for family in families for model_type in FAMILIES.get(family).model_types}


@pytest.mark.parametrize("name", sorted(set(GENERATIVE) - {"encoder_decoder"}))  # this one has no bare class
def test_the_bare_model_has_the_same_sites(name: str) -> None:
    model = tiny_lm(name, dropout=0.25)
    bare = seeded(AutoModel, tiny_lm_config(name, dropout=0.25))
    prefix = f"{model.base_model_prefix}." if model.base_model is not model and hasattr(model, model.base_model_prefix) else ""
    assert relative(sites_of(model), prefix) == relative(sites_of(bare), "")


@every_variant
def test_dropout_is_the_rate_between_activation_and_down(name: str) -> None:
    model = tiny_lm(name, dropout=0.5).train()
    seen = run(model)
    for site in sites_of(model):
        inner, wanted = seen[site.down][0], expected(model, site, seen)
        kept = inner != 0
        torch.testing.assert_close(inner[kept], wanted[kept] / (1 - site.dropout), rtol=1e-5, atol=1e-6)
        dropped = ((inner == 0) & (wanted != 0)).sum() / (wanted != 0).sum()
        assert dropped.item() == pytest.approx(site.dropout, abs=0.15)


@every_variant
def test_a_site_survives_copies(name: str) -> None:
    x = torch.randn(2, 8)
    for site in sites_of(tiny_lm(name)):
        for copied in (copy.deepcopy(site), pickle.loads(pickle.dumps(site))):  # noqa: S301
            assert torch.equal(copied.activation(x), site.activation(x))
            assert copied.owner == site.owner


@every_variant
def test_only_opt_reads_rows_and_tokens_as_one(name: str) -> None:
    model = tiny_lm(name)
    seen = run(model)
    shapes = {tuple(seen[site.inputs[0]][0].shape[:-1]) for site in sites_of(model)}
    if GENERATIVE[name].family == "opt":
        assert shapes == {(IDS_BS.numel(),)}
    elif GENERATIVE[name].kind == "decoder":
        assert shapes == {tuple(IDS_BS.shape)}
    else:
        assert shapes == {tuple(IDS_BS.shape), tuple(IDS_BT.shape)}


def test_the_halves_of_an_encoder_decoder_keep_their_widths() -> None:
    model = tiny_lm("encoder_decoder")
    widths = {site.stack: model.get_submodule(site.down).weight.shape[0] for site in sites_of(model)}
    assert widths == {"encoder": 16, "decoder": 32}


def halves(encoder: object, decoder: object) -> PreTrainedModel:
    return seeded(AutoModelForSeq2SeqLM, EncoderDecoderConfig(encoder=encoder, decoder=decoder))


def bert(**settings: bool) -> BertConfig:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    return BertConfig(vocab_size=VOCAB_SIZE, max_position_embeddings=MAX_POSITIONS, **sizes, **settings)


def gpt2(**settings: bool) -> GPT2Config:
    return GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=1, n_head=4, bos_token_id=2, eos_token_id=3, **settings)


def test_an_encoder_may_have_a_decoder_of_another_family() -> None:
    sites = sites_of(halves(bert(), gpt2(add_cross_attention=True)))
    assert [site.owner for site in sites] == ["encoder.encoder.layer.0", "decoder.transformer.h.0.mlp"]
    assert [site.stack for site in sites] == ["encoder", "decoder"]


def test_an_encoder_that_is_none_is_refused() -> None:
    decoder = bert(is_decoder=True, add_cross_attention=True)
    with pytest.raises(ModelError, match=r"the encoder of this EncoderDecoderModel is a 'gpt2', which is no encoder"):
        sites_of(halves(gpt2(), decoder))
    with pytest.raises(ModelError, match="configured as a decoder"):
        sites_of(halves(bert(is_decoder=True), decoder))


def test_a_bloom_that_passes_its_projections_by_is_refused() -> None:
    model = tiny_lm("bloom")
    model.config.slow_but_exact, model.config.pretraining_tp = True, 2
    with pytest.raises(ModelError, match=r"slow_but_exact: true, pretraining_tp: 2.*set slow_but_exact: false"):
        sites_of(model)


@every_variant
def test_a_saved_model_writes_what_it_wrote(name: str, tmp_path: Path) -> None:
    variant = GENERATIVE[name]
    folder = save_tiny_lm(tmp_path, name, seed=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.decode(tokenizer("good order")["input_ids"], skip_special_tokens=True) == "good order"
    ends = tokenizer("good order")["input_ids"][-1] == tokenizer.eos_token_id
    assert ends is (variant.kind == "encoder-decoder")
    if variant.family != "qwen2":
        assert tokenizer("Bad day?")["input_ids"] == tiny_lm_tokenizer(variant.kind)("Bad day?")["input_ids"]
    tokenizer.padding_side = "left"
    batch = tokenizer(["good order", "a"], padding=True, return_tensors="pt")
    assert (batch["input_ids"][1, 0], batch["attention_mask"][1, 0]) == (0, 0)
    model = tiny_lm(name, seed=1)
    again = type(model).from_pretrained(folder)
    written = [one.generate(**batch, max_new_tokens=4, do_sample=False) for one in (model, again)]
    assert torch.equal(*written)


def test_an_unknown_variant_is_told_where_to_add_it() -> None:
    with pytest.raises(LookupError, match="no tiny config for 'newcomer'; add an entry to GENERATIVE"):
        tiny_lm("newcomer")


def test_tiny_models_are_the_same_for_the_same_seed() -> None:
    first, again, other = tiny_lm("llama"), tiny_lm("llama"), tiny_lm("llama", seed=1)
    assert not first.training
    assert all(torch.equal(value, again.get_parameter(key)) for key, value in first.named_parameters())
    assert any(not torch.equal(value, other.get_parameter(key)) for key, value in first.named_parameters())
