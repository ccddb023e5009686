"""The search by structure: right on models whose FFNs are known, of use on unknown ones, and silent about none it cannot do."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, inject_adapter_in_model
from tests.tiny import FAMILY_NAMES, GENERATIVE, seeded, tiny_config, tiny_lm, tiny_lm_config
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BertConfig, PreTrainedModel

from alter.backbones._find import family_of, sites_of
from alter.backbones._heuristic import guess_kind, guess_sites
from alter.errors import ModelError

LLAMA_LIKE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
ENCODER_LIKE = {key: value for key, value in LLAMA_LIKE.items() if key != "num_key_value_heads"}
FALCON = {**ENCODER_LIKE, "ffn_hidden_size": 24}
GPT_LIKE = {"vocab_size": 40, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 1, "eos_token_id": 2}
BART_LIKE = {
    "vocab_size": 40,
    "d_model": 16,
    **{f"{stack}_layers": 2 for stack in ("encoder", "decoder")},
    **{f"{stack}_ffn_dim": 24 for stack in ("encoder", "decoder")},
    **{f"{stack}_attention_heads": 2 for stack in ("encoder", "decoder")},
    "dropout": 0.25,
    "activation_dropout": 0.125,
}
T5_LIKE = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
RWKV = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "attention_hidden_size": 16}

# case -> config class, its settings, the kind, the first site's owner, its projections, the form
UNKNOWN: dict[str, tuple[str, dict[str, Any], str, str, tuple[str, ...], str]] = {
    "mistral": ("MistralConfig", LLAMA_LIKE, "decoder", "layers.0.mlp", ("gate_proj", "up_proj", "down_proj"), "gated"),
    "stablelm": ("StableLmConfig", LLAMA_LIKE, "decoder", "layers.0.mlp", ("gate_proj", "up_proj", "down_proj"), "gated"),
    "cohere": ("CohereConfig", LLAMA_LIKE, "decoder", "layers.0.mlp", ("gate_proj", "up_proj", "down_proj"), "gated"),
    "phi3": ("Phi3Config", LLAMA_LIKE, "decoder", "layers.0.mlp", ("gate_up_proj", "down_proj"), "fused_gated"),
    "starcoder2": ("Starcoder2Config", LLAMA_LIKE, "decoder", "layers.0.mlp", ("c_fc", "c_proj"), "plain"),
    "falcon": ("FalconConfig", FALCON, "decoder", "h.0.mlp", ("dense_h_to_4h", "dense_4h_to_h"), "plain"),
    "ctrl": ("CTRLConfig", {**GPT_LIKE, "dff": 24}, "decoder", "h.0", ("ffn.0", "ffn.2"), "plain"),
    "mpnet": ("MPNetConfig", ENCODER_LIKE, "encoder", "encoder.layer.0", ("intermediate.dense", "output.dense"), "plain"),
    "esm": ("EsmConfig", ENCODER_LIKE, "encoder", "encoder.layer.0", ("intermediate.dense", "output.dense"), "plain"),
    "blenderbot": ("BlenderbotConfig", BART_LIKE, "encoder-decoder", "encoder.layers.0", ("fc1", "fc2"), "plain"),
    "umt5": (
        "UMT5Config",
        T5_LIKE,
        "encoder-decoder",
        "encoder.block.0.layer.1.DenseReluDense",
        ("wi_0", "wi_1", "wo"),
        "gated",
    ),
}
# case -> config class, its settings, what the refusal says
IMPOSSIBLE: dict[str, tuple[str, dict[str, Any], tuple[str, ...]]] = {
    "experts": (
        "MixtralConfig",
        {**LLAMA_LIKE, "num_local_experts": 2},
        (
            "found none with projections outside attention",
            "layers.0.self_attn.q_proj (16 -> 16)",
            "experts.down_proj (2, 16, 24)",
        ),
    ),
    "experts beside a shared one": (
        "Qwen2MoeConfig",
        {**LLAMA_LIKE, "num_experts": 2, "shared_expert_intermediate_size": 24},
        (
            "outside attention, layers.0 must hold 2 or 3 projections",
            "shared_expert.gate_proj (16 -> 24)",
            "experts.gate_up_proj",
        ),
    ),
    "no transformer": ("RwkvConfig", RWKV, ("blocks.0.feed_forward.receptance (16 -> 16)", "time_mix_key")),
    "a norm between": (
        "BitNetConfig",
        LLAMA_LIKE,
        ("no form and activation give what layers.0.mlp.down_proj reads", "layers.0.mlp.gate_proj (16 -> 24)"),
    ),
    "tokens before rows": (
        "FSMTConfig",
        {**{key: value for key, value in BART_LIKE.items() if key != "vocab_size"}, "src_vocab_size": 40, "tgt_vocab_size": 40},
        ("does not read (rows, tokens, width), but (6, 2, 16)", "encoder.layers.0"),
    ),
    "no text": (
        "ViTConfig",
        {**ENCODER_LIKE, "image_size": 32, "patch_size": 16},
        ("cannot be run on token ids alone", "outside attention, ", "(16 -> 24)"),
    ),
}


def build(name: str, settings: dict[str, Any], head: Any = AutoModel) -> PreTrainedModel:
    return seeded(head, getattr(transformers, name)(**settings))


def same(model: PreTrainedModel) -> None:
    assert guess_sites(model) == sites_of(model)  # the very activation object, too
    assert guess_kind(model.config, class_name=type(model).__name__) == family_of(model).kind


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_it_finds_what_the_encoder_families_find(family: str) -> None:
    same(seeded(AutoModel, tiny_config(family, dropout=0.25)))


@pytest.mark.parametrize("name", GENERATIVE)
def test_it_finds_what_the_families_of_writing_models_find(name: str) -> None:
    same(tiny_lm(name, dropout=0.25))


@pytest.mark.parametrize("name", ["llama", "gpt2", "opt", "t5", "bart"])
def test_it_finds_them_in_the_bare_model_too(name: str) -> None:
    same(seeded(AutoModel, tiny_lm_config(name)))


@pytest.mark.parametrize("case", UNKNOWN)
def test_models_without_a_family_are_found(case: str) -> None:
    config, settings, kind, owner, projections, form = UNKNOWN[case]
    model = build(config, settings)
    sites = sites_of(model)
    first = sites[0]
    assert family_of(model).kind == kind
    assert (first.owner, first.form) == (owner, form)
    assert (*first.inputs, first.down) == tuple(f"{owner}.{path}" for path in projections)
    per_stack = {"encoder": ["encoder"] * 2, "decoder": ["decoder"] * 2}
    assert [site.stack for site in sites] == (per_stack.get(kind) or per_stack["encoder"] + per_stack["decoder"])


@pytest.mark.parametrize(("case", "head"), [("mistral", AutoModelForCausalLM), ("umt5", AutoModelForSeq2SeqLM)])
def test_a_head_changes_only_the_path(case: str, head: Any) -> None:
    config, settings, *_ = UNKNOWN[case]
    bare, headed = sites_of(build(config, settings)), sites_of(build(config, settings, head))
    assert [site.down.removeprefix("model.") for site in headed] == [site.down for site in bare]
    assert [site.stack for site in headed] == [site.stack for site in bare]


def test_dropout_is_measured() -> None:
    config, settings, *_ = UNKNOWN["blenderbot"]
    assert {site.dropout for site in sites_of(build(config, settings))} == {0.125}


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_what_it_cannot_do_is_refused_with_names(case: str) -> None:
    config, settings, says = IMPOSSIBLE[case]
    with pytest.raises(ModelError) as error:
        sites_of(build(config, settings))
    for words in ("is not supported; allowed: bart", "docs/how-to/add-a-family.md", *says):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


@pytest.fixture
def mistral() -> PreTrainedModel:
    return build("MistralConfig", LLAMA_LIKE)


def test_a_model_with_adapters_of_another_library_is_refused(mistral: PreTrainedModel) -> None:
    inject_adapter_in_model(LoraConfig(target_modules=["up_proj"]), mistral)
    with pytest.raises(ModelError, match=r"up_proj\.base_layer \(16 -> 24\)"):
        sites_of(mistral)


def test_an_activation_that_the_model_does_not_use_is_not_believed(mistral: PreTrainedModel) -> None:
    for layer in mistral.get_submodule("layers").children():
        mlp = layer.get_submodule("mlp")
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(torch.cos(mlp.gate_proj(x)) * mlp.up_proj(x))
    with pytest.raises(ModelError, match=r"no form and activation give what layers\.0\.mlp\.down_proj reads"):
        sites_of(mistral)


def test_two_readings_that_both_fit_are_refused(mistral: PreTrainedModel) -> None:
    for layer in mistral.get_submodule("layers").children():
        layer.get_submodule("mlp").act_fn = transformers.activations.ACT2FN["linear"]  # gate and up are alike then
    with pytest.raises(ModelError, match=r"several forms give what layers\.0\.mlp\.down_proj reads"):
        sites_of(mistral)


def test_gate_and_up_are_told_apart_without_names(mistral: PreTrainedModel) -> None:
    for layer in mistral.get_submodule("layers").children():
        mlp = layer.get_submodule("mlp")
        mlp.one, mlp.two = mlp.up_proj, mlp.gate_proj
        del mlp.up_proj, mlp.gate_proj
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.one(x) * mlp.act_fn(mlp.two(x)))
    assert [site.inputs for site in sites_of(mistral)] == [(f"layers.{n}.mlp.two", f"layers.{n}.mlp.one") for n in range(2)]


def test_a_projection_that_is_never_called_is_told(mistral: PreTrainedModel) -> None:
    mlp = mistral.get_submodule("layers.1.mlp")
    mlp.forward = lambda x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)))  # type: ignore[operator]
    with pytest.raises(ModelError, match=r"layers\.1 never calls layers\.1\.mlp\.up_proj"):
        sites_of(mistral)


def test_two_lists_of_layers_are_one_too_many_for_a_decoder(mistral: PreTrainedModel) -> None:
    mistral.add_module("more", nn.ModuleList([nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16))]))
    with pytest.raises(ModelError, match=r"expected one list of layers per stack \(decoder\); found 2: layers\.0 with .*more\.0"):
        sites_of(mistral)


def test_training_that_changes_more_than_dropout_is_refused(mistral: PreTrainedModel) -> None:
    for layer in mistral.get_submodule("layers").children():
        mlp = layer.get_submodule("mlp")
        mlp.forward = lambda x, mlp=mlp: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x) + mlp.training)
    with pytest.raises(ModelError, match="reads something else in training than in evaluation, and it is not dropout"):
        sites_of(mistral)


def test_the_search_changes_nothing(mistral: PreTrainedModel) -> None:
    mistral.train()
    mistral.get_submodule("layers.0").eval()
    modes = [module.training for module in mistral.modules()]
    values = [parameter.clone() for parameter in mistral.parameters()]
    state = torch.get_rng_state()
    sites_of(mistral)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in mistral.modules()] == modes
    assert all(torch.equal(old, new) for old, new in zip(values, mistral.parameters(), strict=True))
    assert not any(module._forward_hooks for module in mistral.modules())


@pytest.mark.parametrize("case", ["mistral", "blenderbot", "umt5"])
def test_half_precision_is_measured_too(case: str) -> None:
    config, settings, *_ = UNKNOWN[case]
    model = build(config, settings)
    before = [dataclasses.replace(site, dropout=round(site.dropout, 2)) for site in sites_of(model)]
    assert sites_of(model.bfloat16()) == before


@pytest.mark.parametrize(
    ("model_type", "class_name", "settings", "kind"),
    [
        ("mistral", "", {}, "decoder"),
        ("mistral", "", {"architectures": ["MistralForSequenceClassification"]}, "decoder"),
        ("ernie", "", {}, "encoder"),
        ("ernie", "ErnieForCausalLM", {}, "decoder"),
        ("ernie", "", {"architectures": ["ErnieForCausalLM"]}, "decoder"),
        ("ernie", "", {"is_decoder": True}, "decoder"),
        ("made-up", "OwnLMHeadModel", {}, "decoder"),
        ("made-up", "OwnModel", {}, "encoder"),
        ("led", "", {"is_encoder_decoder": True}, "encoder-decoder"),
    ],
)
def test_the_kind_is_judged_from_the_config(model_type: str, class_name: str, settings: dict[str, Any], kind: str) -> None:
    config = BertConfig(**settings)
    config.model_type = model_type
    assert guess_kind(config, class_name=class_name) == kind
