"""An encoder of which only the first layers are used: its configuration says so too, and what is saved is what is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.tiny import FAMILY_NAMES, seeded, tiny_config, tiny_model
from transformers import AutoModel, LongformerConfig

from alter.backbones._compose import first_layers
from alter.errors import ModelError

IDS_BS = torch.tensor([[2, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 3]])


@torch.no_grad()
def states(model: Any) -> torch.Tensor:
    return model(IDS_BS).last_hidden_state  # type: ignore[no-any-return]


@pytest.mark.parametrize("family", FAMILY_NAMES)
def test_what_is_left_is_saved_and_loaded_whole(family: str, tmp_path: Path) -> None:
    model: Any = tiny_model(family, num_layers=3)
    first_layers(model, 2)
    expected = states(model)
    model.save_pretrained(tmp_path)
    again, told = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]
    torch.testing.assert_close(states(again.eval()), expected)


def test_kinds_of_layers_are_cut_with_the_layers() -> None:
    whole: Any = tiny_model("modernbert", num_layers=4)
    model: Any = tiny_model("modernbert", num_layers=4)
    assert model.config.layer_types == ["full_attention", "sliding_attention"] * 2
    first_layers(model, 3)
    assert model.config.layer_types == ["full_attention", "sliding_attention", "full_attention"]
    with torch.no_grad():
        # A ModernBERT's last norm stands behind whatever layer is its last.
        expected = whole.final_norm(whole(IDS_BS, output_hidden_states=True).hidden_states[3])
    torch.testing.assert_close(states(model), expected)


def test_windows_of_layers_are_cut_with_the_layers() -> None:
    config = LongformerConfig(
        vocab_size=200,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        attention_window=[4, 8, 8, 4],
    )
    model = seeded(AutoModel, config)
    first_layers(model, 2)
    assert model.config.attention_window == [4, 8]
    assert config.attention_window == [4, 8]


def test_a_list_that_is_only_as_long_as_the_layers_are_many_stays() -> None:
    model = tiny_model("deberta_v2", num_layers=2)
    first_layers(model, 1)
    assert model.config.pos_att_type == ["p2c", "c2p"]
    assert states(model).isfinite().all()


def test_a_model_that_its_configuration_would_not_build_again_is_refused() -> None:
    model: Any = tiny_model("bert", num_layers=4)
    model.norms = torch.nn.ModuleList(torch.nn.LayerNorm(32) for _ in range(4))  # a second list, one for each layer
    with pytest.raises(ModelError, match=r"an encoder of type 'bert' cannot be shortened: .*norms.*; leave encoder_layers out"):
        first_layers(model, 2)


def test_no_random_number_is_drawn() -> None:
    model = tiny_model("bert", num_layers=4)
    before = torch.get_rng_state()
    first_layers(model, 2)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_configuration_of_a_cut_model_is_its_own() -> None:
    config = tiny_config("modernbert", num_layers=4)
    layer_types = config.layer_types
    first_layers(seeded(AutoModel, config), 2)
    assert len(layer_types) == 4
