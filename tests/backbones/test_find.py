"""What happens where no family fits, or a family's sites do not fit the model."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from tests.tiny import seeded, tiny_config, tiny_model
from torch import nn
from transformers import AutoModel, AutoModelForMaskedLM, GPT2Config, PreTrainedModel

from alter.backbones import FAMILIES, _find
from alter.backbones._find import family_for, family_of, sites_of
from alter.errors import ModelError, PluginError
from alter.nn.site import FFNSite


def test_an_unknown_model_type_lists_the_known_ones_and_the_page() -> None:
    model = seeded(AutoModel, GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=20, bos_token_id=1, eos_token_id=2))
    with pytest.raises(ModelError) as error:
        family_of(model)
    for word in ("'gpt2'", "bert", "deberta-v2", "xlm-roberta", "modernbert", "docs/how-to/add-a-family.md"):
        assert word in str(error.value)


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
