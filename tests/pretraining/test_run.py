"""From text to a model folder that transformers loads and that the next run starts from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.pretraining.conftest import GPT2, LLAMA, T5, prose, recipe_of
from tests.tiny import save_tiny
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer, EncoderDecoderModel

from alter.backbones._load import load_base
from alter.errors import AlterError, ConfigError, DataError, ModelError, TrainingError
from alter.pretraining.design import TARGET_TOKENIZER, build_design
from alter.pretraining.recipe import load_pretrain_recipe
from alter.pretraining.run import PretrainRun, pretrain
from alter.pretraining.tokens import load_tokenizer, train_tokenizer
from alter.tensors import load_tensors

LONGER = {"max_steps": 60, "eval_steps": 60, "save_steps": 60, "learning_rate": 1e-2, "per_device_train_batch_size": 8}


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> PretrainRun:
    folder = tmp_path_factory.mktemp("t5")
    return pretrain(recipe_of(folder, train=LONGER, licence="mit"), output_dir=folder / "run")


def losses(run: PretrainRun) -> tuple[float, float]:
    curve = run.results["curve"]
    return curve[0][2], curve[-1][2]


def test_a_t5_learns_and_its_folder_is_an_ordinary_model(t5: PretrainRun) -> None:
    first, last = losses(t5)
    assert last < first - 2
    model: Any = AutoModelForSeq2SeqLM.from_pretrained(t5.model)
    tokenizer: Any = AutoTokenizer.from_pretrained(t5.model)
    assert model.dtype == torch.float32
    assert model.config.vocab_size == len(tokenizer) == 320
    assert model.generation_config.decoder_start_token_id == tokenizer.pad_token_id
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    written = model.generate(**tokenizer("Ada <extra_id_0> the red house.", return_tensors="pt"), max_new_tokens=8)
    assert tokenizer.decode(written[0]).startswith("<pad><extra_id_0>")
    card = (t5.model / "README.md").read_text(encoding="utf-8")
    assert "license: mit" in card
    assert "train.txt" in card


def test_the_results_say_what_was_reached(t5: PretrainRun) -> None:
    results = json.loads((t5.folder / "results.json").read_text(encoding="utf-8"))
    assert results == t5.results
    assert results["schema"] == 1
    assert results["steps"] == results["best_step"] == 60
    assert results["blocks"] == 60 * 8
    assert results["tokens"] > 60 * 8 * 32
    assert results["held_out"]["loss"] == pytest.approx(results["curve"][-1][2], abs=1e-4)
    assert 0 < results["held_out"]["bits_per_character"] < results["curve"][0][3]
    assert results["parameters"] == results["trainable_parameters"]
    assert {"torch", "precision"} <= results["environment"].keys()
    lines = [json.loads(line) for line in (t5.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines if line["event"] == "held_out"] == [0, 60]
    steps = [line for line in lines if line["event"] == "step"]
    assert steps[-1]["loss"] < steps[0]["loss"]
    assert steps[-1]["tokens_per_second"] > 0


def test_the_finished_model_has_the_loss_that_is_told(t5: PretrainRun, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(t5.model), train={"max_steps": 1})
    again = pretrain(recipe, output_dir=tmp_path / "run")
    assert again.results["curve"][0][2] == pytest.approx(t5.results["held_out"]["loss"], abs=2e-4)
    assert again.results["base"] == str(t5.model)


@pytest.mark.parametrize("model", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_decoder_learns_the_next_token(model: dict[str, Any], tmp_path: Path) -> None:
    run = pretrain(recipe_of(tmp_path, model=model, train=LONGER), output_dir=tmp_path / "run")
    first, last = losses(run)
    assert last < first - 2
    tokenizer: Any = AutoTokenizer.from_pretrained(run.model)
    model_read: Any = AutoModelForCausalLM.from_pretrained(run.model)
    written = model_read.generate(**tokenizer("Ada sees", return_tensors="pt"), max_new_tokens=4)
    assert tokenizer.decode(written[0]).startswith("Ada sees")
    # Going on from it brings the loss down further.
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(run.model), train={**LONGER, "max_steps": 20})
    further = pretrain(recipe, output_dir=tmp_path / "further")
    assert losses(further)[0] == pytest.approx(last, abs=2e-4)
    assert losses(further)[1] < last


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoder")
    save_tiny(folder, "bert")
    return folder


def composed(encoder: Path) -> dict[str, Any]:
    config = {
        "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32, "max_position_embeddings": 48,
    }  # fmt: skip
    return {"encoder": str(encoder), "decoder": {"architecture": "bert", "config": config}}


def test_a_decoder_learns_to_read_a_frozen_encoder(encoder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, model=None, encoder_decoder=composed(encoder), train=LONGER)
    run = pretrain(recipe, output_dir=tmp_path / "run")
    first, last = losses(run)
    assert last < first - 1
    assert run.results["trainable_parameters"] < run.results["parameters"]
    model = AutoModelForSeq2SeqLM.from_pretrained(run.model)
    assert isinstance(model, EncoderDecoderModel)
    before = load_tensors(encoder / "model.safetensors")
    after = model.encoder.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items() if name in after)
    source, target = AutoTokenizer.from_pretrained(run.model), AutoTokenizer.from_pretrained(run.model / TARGET_TOKENIZER)
    assert source.mask_token_id is not None
    whole: Any = model
    assert whole.config.decoder.vocab_size == len(target) == 320
    written = whole.generate(**source("the old [MASK] bridge", return_tensors="pt"), max_new_tokens=4)
    assert written.shape[1] > 1
    # The folder can be gone on with, and starts where it ended.
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(run.model), train={"max_steps": 1})
    again = pretrain(recipe, output_dir=tmp_path / "again")
    assert losses(again)[0] == pytest.approx(last, abs=2e-4)


INFILLING = {"objective": "text_infilling", "noise_density": 0.3, "mean_noise_span_length": 1.0, "permute_sentences": True}


def test_text_infilling_teaches_to_write_the_whole_text(encoder: Path, tmp_path: Path) -> None:
    t5 = build_design(load_pretrain_recipe(recipe_of(tmp_path, **INFILLING)), learned(tmp_path)).objective
    [units] = t5.cut(["Ada sees the red house. Ben likes the old bridge. Cleo finds two grey cats."])
    example = t5.example(units, np.random.default_rng(1))
    assert t5.target.decode(example.labels) == f"{t5.source.decode(units)}</s>"
    read = t5.source.decode(example.input_ids)
    assert 1 <= read.count("<extra_id_0>") <= 15
    assert len(example.input_ids) <= len(example.labels)

    longer = composed(encoder)
    longer["decoder"]["config"]["max_position_embeddings"] = 96
    words = build_design(
        load_pretrain_recipe(recipe_of(tmp_path, model=None, encoder_decoder=longer, max_length=64, **INFILLING)),
        learned(tmp_path),
    ).objective
    text = "Ada sees the red house. Ben likes the old bridge. Cleo finds two grey cats."
    [units] = words.cut([text])
    example = words.example(units, np.random.default_rng(1))
    assert words.target.decode(example.labels) == f" {text}</s>"
    masked = example.input_ids.count(words.source.mask_token_id)
    assert 1 <= masked <= 5
    kept = [token for token in example.input_ids[1:-1] if token != words.source.mask_token_id]
    whole = [token for word in units for token in word.source]
    assert set(kept) < set(whole)
    assert len(kept) < len(whole)
    orders = {tuple(words.example(units, np.random.default_rng(seed)).input_ids) for seed in range(20)}
    assert len(orders) > 15


def learned(folder: Path) -> Any:
    """Learn the tokenizer of the recipe in a folder."""
    recipe = load_pretrain_recipe(folder / "tiny.yaml")
    assert recipe.tokenizer is not None
    assert recipe.tokenizer.train is not None
    return train_tokenizer([(folder / "train.txt").read_text(encoding="utf-8")], recipe.tokenizer.train, ends_texts=True)


@pytest.mark.parametrize("model", ["t5", "composed"])
def test_text_infilling_is_learned(model: str, encoder: Path, tmp_path: Path) -> None:
    settings = {**INFILLING, "train": LONGER}
    if model == "composed":
        settings |= {"model": None, "encoder_decoder": composed(encoder)}
    first, last = losses(pretrain(recipe_of(tmp_path, **settings), output_dir=tmp_path / "run"))
    assert last < first - 2


@pytest.mark.parametrize("objective", ["text_infilling", "span_corruption"])
def test_blocks_as_long_as_the_model_has_positions_leave_room_for_the_end(objective: str, tmp_path: Path) -> None:
    config = {
        "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_position_embeddings": 32,
    }  # fmt: skip
    bart = {"architecture": "bart", "config": config}
    recipe = recipe_of(tmp_path, model=bart, max_length=32, objective=objective, mean_noise_span_length=1.0)
    assert pretrain(recipe, output_dir=tmp_path / "run").results["steps"] == 4


def warm(encoder: Path, **config: Any) -> dict[str, Any]:
    return {
        "encoder": str(encoder),
        "warm_start": True,
        "decoder": {"architecture": "bert", "config": {"max_position_embeddings": 48, **config}},
    }


def test_a_warm_decoder_begins_with_the_encoders_weights(encoder: Path, tmp_path: Path) -> None:
    recipe = load_pretrain_recipe(recipe_of(tmp_path, model=None, encoder_decoder=warm(encoder, num_hidden_layers=1)))
    tokenizer = learned(tmp_path)
    design = build_design(recipe, tokenizer, [prose(20, seed=3)])
    whole: Any = design.model
    theirs, own = whole.encoder.state_dict(), whole.decoder.bert.state_dict()
    for name in (
        "attention.self.query.weight",
        "attention.output.LayerNorm.weight",
        "intermediate.dense.bias",
        "output.dense.weight",
    ):
        assert torch.equal(own[f"encoder.layer.0.{name}"], theirs[f"encoder.layer.0.{name}"])
        assert own[f"encoder.layer.0.{name}"].data_ptr() != theirs[f"encoder.layer.0.{name}"].data_ptr()
    assert torch.equal(own["embeddings.position_embeddings.weight"], theirs["embeddings.position_embeddings.weight"][:48])
    words, pretrained = own["embeddings.word_embeddings.weight"], theirs["embeddings.word_embeddings.weight"]
    spelled = 0
    for token in range(len(tokenizer)):
        text = tokenizer.decode([token])
        if text.startswith(" ") and text.strip().isalpha():
            pieces = design.objective.source(text, add_special_tokens=False)["input_ids"]
            torch.testing.assert_close(words[token], pretrained[pieces].mean(0))
            spelled += 1
    assert spelled > 10
    fresh = {**warm(encoder, num_hidden_layers=1), "warm_start": False}
    sizes = {key: getattr(whole.encoder.config, key) for key in ("hidden_size", "num_attention_heads", "intermediate_size")}
    fresh["decoder"] = {"architecture": "bert", "config": {**fresh["decoder"]["config"], **sizes}}
    cold: Any = build_design(load_pretrain_recipe(recipe_of(tmp_path, model=None, encoder_decoder=fresh)), tokenizer).model
    assert not torch.equal(
        cold.decoder.bert.state_dict()["encoder.layer.0.output.dense.weight"], theirs["encoder.layer.0.output.dense.weight"]
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"hidden_size": 16, "num_attention_heads": 2},
            r"the decoder's .* is \(\d+, 16\), the encoder's .* leave hidden_size, .* out",
        ),
        (
            {"max_position_embeddings": 4096},
            r"positions for 4096 tokens, the encoder for 160; set .*max_position_embeddings to at most 160",
        ),
    ],
)
def test_a_warm_decoder_of_other_sizes_is_refused(change: dict[str, Any], message: str, encoder: Path, tmp_path: Path) -> None:
    settings = warm(encoder, num_hidden_layers=1, **change)
    with pytest.raises(ModelError, match=message):
        pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")


def test_a_warm_decoder_of_another_architecture_is_refused(encoder: Path, tmp_path: Path) -> None:
    settings = warm(encoder)
    settings["decoder"] = {"architecture": "roberta", "config": {"num_hidden_layers": 1, "max_position_embeddings": 48}}
    with pytest.raises(ModelError, match=r"the decoder is a 'roberta', the encoder a 'bert'; set decoder.architecture: bert"):
        pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")


def test_a_decoder_can_be_saved_without_its_encoder(encoder: Path, tmp_path: Path) -> None:
    settings = {**composed(encoder), "save_encoder": False}
    run = pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings), output_dir=tmp_path / "run")
    assert not any(name.startswith("encoder.") for name in load_tensors(run.model / "model.safetensors"))
    model, _ = load_base(str(run.model))
    assert isinstance(model, EncoderDecoderModel)
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(run.model), train={"max_steps": 1})
    again = pretrain(recipe, output_dir=tmp_path / "again")
    assert losses(again)[0] == pytest.approx(losses(run)[1], abs=2e-4)
    assert (again.model / "encoder.json").read_text() == (run.model / "encoder.json").read_text()


def test_a_damaged_folder_without_its_encoder_is_told(encoder: Path, tmp_path: Path) -> None:
    settings = {**composed(encoder), "save_encoder": False}
    run = pretrain(recipe_of(tmp_path, model=None, encoder_decoder=settings, train={"max_steps": 1}), output_dir=tmp_path / "run")
    config = json.loads((run.model / "config.json").read_text())
    (run.model / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match=r"the model cannot be put together .*config.json and the weights belong together"):
        load_base(str(run.model))
    (run.model / "config.json").write_text(json.dumps(config))
    told = json.loads((run.model / "encoder.json").read_text())
    (run.model / "encoder.json").write_text(json.dumps({**told, "name": str(run.model)}))
    with pytest.raises(ModelError, match=r"its encoder.json names .*, which is a decoder that needs an encoder itself"):
        load_base(str(run.model))


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    whole = pretrain(recipe_of(tmp_path), output_dir=tmp_path / "whole")
    half = pretrain(recipe_of(tmp_path, save_dtype="float16"), output_dir=tmp_path / "half")
    sizes = [(run.model / "model.safetensors").stat().st_size for run in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    assert AutoModelForSeq2SeqLM.from_pretrained(half.model, dtype=torch.float32).dtype == torch.float32


def test_accumulated_micro_batches_are_one_large_batch(tmp_path: Path) -> None:
    large = pretrain(recipe_of(tmp_path), output_dir=tmp_path / "large")
    train = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}
    small = pretrain(recipe_of(tmp_path, train=train), output_dir=tmp_path / "small")
    one, two = (load_tensors(run.model / "model.safetensors") for run in (large, small))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-4)


def test_bf16_dropout_and_every_schedule_work(tmp_path: Path) -> None:
    for shape in ("linear", "cosine", "constant", "inverse_sqrt"):
        train = {"lr_scheduler_type": shape, "mixed_precision": "bf16", "dropout": True}
        run = pretrain(recipe_of(tmp_path, train=train), output_dir=tmp_path / shape)
        assert run.results["environment"]["precision"] == "bf16"


def test_a_scaled_rate_moves_each_tensor_by_a_like_share_of_itself(tmp_path: Path) -> None:
    train = {"optimizer": "adamw_scaled", "learning_rate": 0.01, "max_steps": 1, "warmup_steps": 0, "weight_decay": 0.0}
    recipe = load_pretrain_recipe(recipe_of(tmp_path, train=train))
    run = pretrain(recipe, output_dir=tmp_path / "run")
    after = load_tensors(run.folder / "checkpoints" / "stage1-000001" / "model.safetensors")
    before = dict(build_design(recipe, load_tokenizer(str(run.folder / "tokenizer"))).model.named_parameters())
    for name in ("shared.weight", "encoder.block.0.layer.1.DenseReluDense.wi.weight"):
        old = before[name].detach()
        moved = (after[name] - old).abs().max() / old.square().mean().sqrt()
        assert float(moved) == pytest.approx(0.01, rel=0.01)


def test_a_run_of_some_seconds_ends_by_the_clock_with_a_rate_near_nothing(tmp_path: Path) -> None:
    train = {"max_steps": None, "max_seconds": 1.5, "logging_steps": 1, "save_steps": 1000, "eval_steps": 1000}
    run = pretrain(recipe_of(tmp_path, train=train), output_dir=tmp_path / "run")
    assert run.results["seconds"] >= 1.5
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rates = [line["learning_rate"] for line in lines if line["event"] == "step"]
    assert rates[-1] < 0.2 * max(rates)


def test_the_best_weights_are_kept_where_training_makes_it_worse(t5: PretrainRun, tmp_path: Path) -> None:
    train = {"learning_rate": 1.0, "warmup_steps": 0, "lr_scheduler_type": "constant", "max_steps": 3, "eval_steps": 1}
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(t5.model), train=train)
    run = pretrain(recipe, output_dir=tmp_path / "run")
    assert run.results["best_step"] == 0
    before, after = (load_tensors(folder / "model.safetensors") for folder in (t5.model, run.model))
    assert all(torch.equal(before[name], after[name]) for name in after)


def test_a_base_without_sentinels_gets_them(t5: PretrainRun, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(t5.model, base)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        text = (base / file).read_text(encoding="utf-8")
        (base / file).write_text(text.replace("<extra_id_", "<other_"), encoding="utf-8")
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(base))
    run = pretrain(recipe, output_dir=tmp_path / "run")
    tokenizer = AutoTokenizer.from_pretrained(run.model)
    assert tokenizer.convert_tokens_to_ids("<extra_id_99>") == len(tokenizer) - 1
    assert AutoModelForSeq2SeqLM.from_pretrained(run.model).config.vocab_size == len(tokenizer) == 420


def test_a_loss_that_is_no_number_ends_the_run_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alter.pretraining.loop.rate_at", lambda *_, **__: float("nan"))
    with pytest.raises(TrainingError, match=r"(?s)step \d: .*nan.*Lower train\.learning_rate"):
        pretrain(recipe_of(tmp_path), output_dir=tmp_path / "run")


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    recipe = recipe_of(tmp_path)
    monkeypatch.setattr("alter.training.state.save_tensors", full)
    with pytest.raises(TrainingError, match="the disk is full"):
        pretrain(recipe, output_dir=tmp_path / "run")
    monkeypatch.undo()
    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    with pytest.raises(TrainingError, match="the disk is full"):
        pretrain(recipe, output_dir=tmp_path / "other")
    assert not (tmp_path / "other" / "model").exists()
    monkeypatch.undo()
    assert pretrain(recipe, output_dir=tmp_path / "other", resume=True).results["steps"] == 4


WRONG: list[tuple[dict[str, Any], type[AlterError], str]] = [
    ({"model": {"architecture": "t6"}}, ModelError, r"unknown model type 't6'; .*Did you mean 't5'"),
    ({"model": {"architecture": "t5", "config": {"d_modle": 8}}}, ModelError, r"'t5' has no 'd_modle'; .*Did you mean 'd_model'"),
    ({"model": {"architecture": "t5", "config": {"feed_forward_proj": "no-such-thing"}}}, ModelError, "feed_forward_proj"),
    ({"model": {**GPT2, "config": {"n_embd": 33, "n_head": 4}}}, ModelError, "cannot be built"),
    ({"model": {**T5, "config": {"vocab_size": 300}}}, ModelError, "but the tokenizer has 320 tokens"),
    ({"model": {"architecture": "bert"}}, ModelError, "is an encoder"),
    ({"model": {"architecture": "vit"}}, ModelError, "cannot be built"),
    ({"objective": "next_token"}, ConfigError, "a 't5' model learns span_corruption or text_infilling"),
    ({"model": GPT2, "max_length": 65}, ConfigError, "positions for 64 tokens"),
    ({"max_length": 512}, ConfigError, r"tokenizer has 20; lower max_length"),
    ({"tokenizer": {"train": {"vocab_size": 50_000}}}, DataError, "too large for the text"),
    ({"tokenizer": {"path": "no/such/folder"}}, ModelError, "the tokenizer cannot be loaded"),
    ({"source": {"train": ["none.txt"], "validation": ["valid.txt"]}}, DataError, "no such text file"),
    ({"source": {"train": ["train.txt"], "validation": ["no-*.txt"]}}, DataError, "no such text file"),
    ({"model": None, "tokenizer": None, "model_name_or_path": "./no/such"}, ModelError, "no such folder"),
]


@pytest.mark.parametrize(("settings", "error", "message"), WRONG, ids=[str(number) for number in range(len(WRONG))])
def test_what_cannot_be_trained_is_one_clear_error(
    settings: dict[str, Any], error: type[AlterError], message: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        pretrain(recipe_of(tmp_path, **settings), output_dir=tmp_path / "run")


def test_a_base_that_only_encodes_is_refused(encoder: Path, tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, model=None, tokenizer=None, model_name_or_path=str(encoder))
    with pytest.raises(ModelError, match="an encoder"):
        pretrain(recipe, output_dir=tmp_path / "run")


def test_text_that_is_not_utf_8_is_told_with_its_file(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    (tmp_path / "train.txt").write_bytes(prose(20, seed=0).encode() + "naïve".encode("latin-1"))
    with pytest.raises(DataError, match=r"train\.txt: not UTF-8 text"):
        pretrain(recipe, output_dir=tmp_path / "run")
