"""What happens where no family fits, or a family's sites do not fit the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from tests.tiny import seeded, tiny_config, tiny_model
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, MistralConfig, MixtralConfig, PreTrainedModel

from alter.backbones import FAMILIES, _find
from alter.backbones._find import family_for, family_for_config, family_of, is_covered, sites_of
from alter.errors import ModelError, PluginError
from alter.nn.site import FFNSite

MISTRAL: dict[str, Any] = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}


def test_an_unknown_model_type_lists_the_known_ones_and_the_page() -> None:
    with pytest.raises(ModelError) as error:
        family_for("rwkv")
    for word in ("model type 'rwkv' is not supported", "bert", "deberta-v2", "gpt2", "t5", "docs/how-to/add-a-family.md"):
        assert word in str(error.value)


def test_an_unknown_model_type_is_judged_by_its_config() -> None:
    family = family_of(seeded(AutoModel, MistralConfig(**MISTRAL)))
    assert (family.kind, family.model_types) == ("decoder", ("mistral",))
    assert not is_covered("mistral")
    assert is_covered("llama")
    for model_type in ("bert", "t5", "gpt2"):
        config = AutoConfig.for_model(model_type)
        assert family_for_config(config) is family_for(model_type)


def test_an_unknown_model_whose_structure_does_not_tell_lists_what_it_has() -> None:
    experts = seeded(AutoModel, MixtralConfig(**MISTRAL, num_local_experts=2))
    with pytest.raises(ModelError) as error:
        sites_of(experts)
    for word in (
        "model type 'mixtral' is not supported; allowed: bart, bert",
        "layers.0.self_attn.q_proj (16 -> 16)",
        "layers.0.mlp.experts.down_proj (2, 16, 24)",
        "docs/how-to/add-a-family.md",
    ):
        assert word in str(error.value)
    assert "\n" not in str(error.value)


def test_a_misspelt_model_type_gets_the_nearest_name() -> None:
    with pytest.raises(ModelError, match="Did you mean 'distilbert'"):
        family_for("distillbert")


def test_a_module_without_config_is_refused() -> None:
    with pytest.raises(ModelError, match="Linear has no config; pass a transformers model"):
        family_of(nn.Linear(2, 2))  # type: ignore[arg-type]


def test_a_bert_that_is_a_decoder_is_refused() -> None:
    config = tiny_config("bert")
    config.is_decoder = True
    with pytest.raises(ModelError, match="configured as a decoder"):
        family_of(seeded(AutoModelForMaskedLM, config))


def test_two_families_for_one_model_type_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rival_family.py").write_text("from alter.backbones.bert import FAMILY\n")
    package = tmp_path / "rival-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text("[alter.backbones]\nrival = rival_family\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert "rival" in FAMILIES.names()
    with pytest.raises(PluginError, match=r"'bert' is claimed by the families \['bert', 'rival'\]"):
        family_for("bert")


def test_layers_that_were_replaced_are_missed() -> None:
    model = tiny_model("bert")
    model.set_submodule("encoder.layer", nn.ModuleList([nn.Identity()]))
    with pytest.raises(ModelError, match="BertModel has no FFN that its family knows"):
        sites_of(model)


def test_a_pruned_model_has_fewer_sites() -> None:
    model = tiny_model("bert", num_layers=3)
    model.set_submodule("encoder.layer", nn.ModuleList(list(model.get_submodule("encoder.layer").children())[1:]))
    assert [site.owner for site in sites_of(model)] == ["encoder.layer.0", "encoder.layer.1"]


def test_a_projection_wrapped_by_another_library_is_refused() -> None:
    model = tiny_model("bert")
    inject_adapter_in_model(LoraConfig(target_modules=["intermediate.dense"]), model)
    with pytest.raises(ModelError, match=r"intermediate.dense is a peft\.tuners\.lora\.layer\.Linear; .*merge_and_unload"):
        sites_of(model)


def test_projections_of_the_wrong_shape_are_refused() -> None:
    model = tiny_model("modernbert")
    model.set_submodule("layers.1.mlp.Wo", nn.Linear(128, 32))  # reads both halves, as if Wi were not fused
    with pytest.raises(ModelError, match=r"site layers.1.mlp: .* do not fit the form fused_gated: layers.1.mlp.Wi 32 -> 128"):
        sites_of(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"down": "encoder.layer.0.output.dance"}, "BertModel has no module 'encoder.layer.0.output.dance'"),
        ({"owner": "encoder.layers.0"}, "BertModel has no module 'encoder.layers.0'"),
        ({"form": "gated"}, r"form gated has 2 input projection\(s\)"),
        ({"down": "encoder.layer.0.output.LayerNorm"}, "LayerNorm; allowed: torch's Linear, transformers' Conv1D"),
        ({"down": "encoder.layer.0.attention.output.dense"}, "do not fit the form plain"),
        ({"inputs": ("encoder.layer.0.output.dense",)}, "do not fit the form plain"),
    ],
)
def test_a_family_that_names_wrong_modules_is_caught(
    change: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = FAMILIES.get("bert")

    def wrong_sites(model: PreTrainedModel) -> list[FFNSite]:
        return [dataclasses.replace(site, **change) for site in family.find_sites(model)]

    wrong = dataclasses.replace(family, find_sites=wrong_sites)
    monkeypatch.setattr(_find, "family_of", lambda model: wrong)
    with pytest.raises(ModelError, match=message):
        sites_of(tiny_model("bert"))


def test_finding_sites_changes_nothing() -> None:
    model = tiny_model("electra")
    names = [name for name, _ in model.named_modules()]
    values = [parameter.clone() for parameter in model.parameters()]
    sites_of(model)
    assert names == [name for name, _ in model.named_modules()]
    assert all(torch.equal(old, new) for old, new in zip(values, model.parameters(), strict=True))
