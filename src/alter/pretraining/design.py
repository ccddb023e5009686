"""The model, its tokenizers and what it is asked: everything about a run that depends on the kind of model.

recipe.model_name_or_path   a base, gone on with
recipe.model                a configuration, from scratch
recipe.encoder_decoder      a pretrained encoder, frozen or not, and a decoder from scratch with a tokenizer of its own
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    EncoderDecoderModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from alter.backbones._package import resolve_base
from alter.errors import ConfigError, ModelError, did_you_mean
from alter.pretraining.corrupt import Noise
from alter.pretraining.objectives import NextToken, Objective, SpanCorruption
from alter.pretraining.quiet import first_line, quiet
from alter.pretraining.recipe import ArchitectureSettings, EncoderDecoderSettings, PretrainRecipe
from alter.pretraining.tokens import load_tokenizer, sentinel
from alter.pretraining.words import WordSpans

TARGET_TOKENIZER = "target_tokenizer"
"""Folder inside a model folder with the decoder's tokenizer, where it is not the encoder's."""
LOAD_ERRORS = (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError, SafetensorError, StrictDataclassError)
NUM_SENTINELS = 100
NO_LIMIT = 10**9


@dataclass(frozen=True)
class Design:
    """A model that is ready to learn."""

    model: PreTrainedModel
    objective: Objective
    base: str | None
    """What it started from, if not from scratch."""


def wants_ends(recipe: PretrainRecipe) -> bool:
    """Return whether texts end with the end token for this recipe's model: the targets of encoder-decoder models do."""
    if recipe.model is not None:
        return bool(_config(recipe.model, where="model").is_encoder_decoder)
    return True


def build_design(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase | None) -> Design:
    """Build or load the model of a recipe.

    Args:
        recipe: the recipe.
        tokenizer: the one of a model from scratch; None where the model brings its own.

    Raises:
        ModelError: an unknown architecture, a configuration that does not fit, or a base that cannot be loaded.
        ConfigError: the objective or the length of blocks does not fit the model.
    """
    torch.manual_seed(recipe.seed)
    with quiet():
        if recipe.encoder_decoder is not None:
            assert tokenizer is not None
            model, source = _composed(recipe.encoder_decoder, tokenizer)
            return Design(model, _words(recipe, model, source, tokenizer), recipe.encoder_decoder.encoder)
        if recipe.model is not None:
            assert tokenizer is not None
            model = _from_scratch(recipe.model, tokenizer)
            return Design(model, _objective(recipe, model, tokenizer), None)
        assert recipe.model_name_or_path is not None
        return _continued(recipe, recipe.model_name_or_path)


def _config(settings: ArchitectureSettings, *, where: str, **more: Any) -> PreTrainedConfig:
    if settings.architecture not in CONFIG_MAPPING:
        hint = did_you_mean(settings.architecture, CONFIG_MAPPING.keys())
        raise ModelError(f"{where}.architecture: unknown model type '{settings.architecture}'; {hint}")
    plain = AutoConfig.for_model(settings.architecture)
    known = {*plain.to_dict(), *plain.attribute_map, "tie_word_embeddings"}
    for key in settings.config:
        if key not in known:  # transformers would keep any key and read none
            raise ModelError(f"{where}.config: '{settings.architecture}' has no '{key}'; {did_you_mean(key, known)}")
    try:
        return AutoConfig.for_model(settings.architecture, **{**more, **settings.config})
    except LOAD_ERRORS as error:
        raise ModelError(f"{where}.config: {first_line(error)}; correct it") from error


def _special(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    eos = tokenizer.eos_token_id
    return {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": eos,
        "bos_token_id": tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos,
    }


def _from_scratch(settings: ArchitectureSettings, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config = _config(settings, where="model", **_special(tokenizer))
    if config.is_encoder_decoder:
        config.decoder_start_token_id = tokenizer.pad_token_id
    elif type(config) in MODEL_FOR_MASKED_LM_MAPPING and not getattr(config, "is_decoder", False):
        raise ModelError(
            f"model.architecture: '{settings.architecture}' is an encoder, which cannot be pretrained here; choose an encoder-decoder "
            f"(t5, bart) or a decoder (gpt2, llama)"
        )
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    return _made(kind, config, where="model")


def _made(kind: Any, config: PreTrainedConfig, *, where: str) -> PreTrainedModel:
    try:
        model = kind.from_config(config)
    except LOAD_ERRORS as error:
        raise ModelError(f"{where}: '{config.model_type}' cannot be built so ({first_line(error)}); correct {where}.config") from error
    assert isinstance(model, PreTrainedModel)
    return model


def _composed(
    settings: EncoderDecoderSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[EncoderDecoderModel, PreTrainedTokenizerBase]:
    special = _special(tokenizer)
    config = _config(
        settings.decoder, where="encoder_decoder.decoder", **special, is_decoder=True, add_cross_attention=True
    )
    if not (getattr(config, "is_decoder", False) and getattr(config, "add_cross_attention", False)):
        raise ModelError(
            f"encoder_decoder.decoder: '{settings.decoder.architecture}' cannot look at an encoder's output; choose bert, roberta or gpt2"
        )
    folder = resolve_base(settings.encoder)
    encoder = _loaded(AutoModel, settings.encoder, folder, settings.revision)
    decoder = _made(AutoModelForCausalLM, config, where="encoder_decoder.decoder")
    try:
        model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    except LOAD_ERRORS as error:
        raise ModelError(f"encoder_decoder: encoder and decoder do not go together ({first_line(error)})") from error
    for part in (model.config, model.generation_config):
        part.decoder_start_token_id = tokenizer.pad_token_id
        part.pad_token_id, part.eos_token_id = special["pad_token_id"], special["eos_token_id"]
    model.config.vocab_size = config.vocab_size
    if settings.freeze_encoder:
        model.encoder.requires_grad_(False)
    return model, load_tokenizer(folder)


def _continued(recipe: PretrainRecipe, name: str) -> Design:
    folder = resolve_base(name)
    try:
        config = AutoConfig.from_pretrained(folder, revision=recipe.revision, trust_remote_code=False)
    except LOAD_ERRORS as error:
        raise ModelError(f"{name}: config.json cannot be read ({first_line(error)}); give a local folder or a hub id") from error
    masked = type(config) in MODEL_FOR_MASKED_LM_MAPPING and not config.is_encoder_decoder
    if masked and not getattr(config, "is_decoder", False):
        raise ModelError(f"{name}: an encoder ('{config.model_type}') cannot be pretrained here; choose an encoder-decoder or a decoder")
    kind = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = _loaded(kind, name, folder, recipe.revision)
    tokenizer = load_tokenizer(folder)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if isinstance(model, EncoderDecoderModel):
        target = load_tokenizer(str(Path(folder) / TARGET_TOKENIZER)) if (Path(folder) / TARGET_TOKENIZER).is_dir() else tokenizer
        return Design(model, _words(recipe, model, tokenizer, target), name)
    if config.is_encoder_decoder and sentinel(0) not in tokenizer.get_vocab():
        tokenizer.add_tokens([sentinel(number) for number in range(NUM_SENTINELS)], special_tokens=True)
        if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(tokenizer))
    return Design(model, _objective(recipe, model, tokenizer), name)


def _loaded(kind: Any, name: str, folder: str, revision: str | None) -> PreTrainedModel:
    try:
        model, info = kind.from_pretrained(
            folder,
            revision=revision,
            dtype=torch.float32,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except LOAD_ERRORS as error:
        raise ModelError(f"{name}: the model cannot be loaded ({first_line(error)}); check config.json and model.safetensors") from error
    missing = sorted(key for key in info["missing_keys"] if "pooler." not in key)
    if missing:
        raise ModelError(f"{name}: {len(missing)} tensors are missing from the weights, e.g. {missing[0]}; copy the model again")
    assert isinstance(model, PreTrainedModel)
    return model


def _objective(recipe: PretrainRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Objective:
    wanted = "span_corruption" if model.config.is_encoder_decoder else "next_token"
    if recipe.objective not in (None, wanted):
        raise ConfigError(f"objective is {recipe.objective}, but a '{model.config.model_type}' model learns {wanted}; leave it out")
    _check_length(recipe, model.config)
    if wanted == "next_token":
        return NextToken(tokenizer, length=recipe.max_length)
    noise = Noise(recipe.noise_density, recipe.mean_noise_span_length)
    return SpanCorruption(tokenizer, noise=noise, length=recipe.max_length)


def _words(
    recipe: PretrainRecipe, model: EncoderDecoderModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> Objective:
    _check_length(recipe, model.config.encoder)
    noise = Noise(recipe.noise_density, recipe.mean_noise_span_length)
    return WordSpans(source, target, noise=noise, length=recipe.max_length, longest_target=_positions(model.config.decoder))


def _check_length(recipe: PretrainRecipe, config: PreTrainedConfig) -> None:
    most = _positions(config)
    if recipe.max_length > most:
        raise ConfigError(f"max_length is {recipe.max_length}, but the model has positions for {most} tokens; lower it")


def _positions(config: PreTrainedConfig) -> int:
    """Return how many tokens a model reads; one with relative positions has no limit."""
    limit = getattr(config, "max_position_embeddings", None)
    return limit if isinstance(limit, int) and limit > 0 else NO_LIMIT
