"""The model, its tokenizers and what it is asked: everything about a run that depends on the kind of model.

recipe.model_name_or_path   a base, gone on with
recipe.model                a configuration, from scratch
recipe.encoder_decoder      a pretrained encoder, frozen or not, and a decoder from scratch with a tokenizer of its own
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    EncoderDecoderModel,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING

from alter.backbones._compose import first_layers, is_composed, read_encoder
from alter.backbones._load import LOAD_ERRORS, TARGET_TOKENIZER, base_fingerprint, load_base, load_target_tokenizer, resolve_base
from alter.errors import ConfigError, ModelError, did_you_mean
from alter.pretraining.corrupt import Noise
from alter.pretraining.objectives import NextToken, Objective, SpanCorruption, TextInfilling
from alter.pretraining.positions import positions
from alter.pretraining.quiet import first_line, quiet
from alter.pretraining.reading import NUM_TEXTS, start_reading
from alter.pretraining.recipe import ArchitectureSettings, EncoderDecoderSettings, PretrainRecipe
from alter.pretraining.tokens import sentinel
from alter.pretraining.warm import sizes_of, warm_start
from alter.pretraining.words import WordInfilling, WordSpans

__all__ = ["TARGET_TOKENIZER", "Design", "build_design", "wants_ends"]

NUM_SENTINELS = 100
"""Sentinels for a base that has none."""
BUILD_ERRORS = (*LOAD_ERRORS, TypeError, AttributeError, AssertionError)
"""What transformers raises for a configuration that makes no sense."""


@dataclass(frozen=True)
class Design:
    """A model that is ready to learn."""

    model: PreTrainedModel
    objective: Objective
    base: str | None
    """What it started from, if not from scratch."""
    encoder: dict[str, str | None] | None = None
    """Name, revision and fingerprint of an encoder that the finished model leaves out, if it does."""
    fingerprint: str = ""
    """Of the model before anything was computed on this machine: a resumed run must have started from the same."""


def wants_ends(recipe: PretrainRecipe) -> bool:
    """Return whether texts end with the end token for this recipe's model: the targets of encoder-decoder models do."""
    if recipe.model is not None:
        return bool(_config(recipe.model, where="model").is_encoder_decoder)
    return True


def build_design(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase | None, texts: Iterable[str] = ()) -> Design:
    """Build or load the model of a recipe.

    Args:
        recipe: the recipe.
        tokenizer: the one of a model from scratch; None where the model brings its own.
        texts: some of the text, from which a warm decoder starts to read.

    Raises:
        ModelError: an unknown architecture, a configuration that does not fit, or a base that cannot be loaded.
        ConfigError: the objective or the length of blocks does not fit the model.
    """
    torch.manual_seed(recipe.seed)
    with quiet():
        design = _design(recipe, tokenizer)
        design = replace(design, fingerprint=base_fingerprint(design.model))
        if recipe.encoder_decoder is not None and recipe.encoder_decoder.warm_start:
            spoken = {"source": design.objective.source, "target": design.objective.target}
            start_reading(
                cast("EncoderDecoderModel", design.model), list(itertools.islice(texts, NUM_TEXTS)), seed=recipe.seed, **spoken
            )
        if recipe.train.attn_implementation is not None:
            _set_attention(design.model, recipe.train.attn_implementation)
    return design


def _set_attention(model: PreTrainedModel, implementation: str) -> None:
    try:
        for part in [model, *(getattr(model, name) for name in ("encoder", "decoder") if isinstance(model, EncoderDecoderModel))]:
            part.set_attn_implementation(implementation)
    except (ValueError, ImportError) as error:
        raise ModelError(
            f"train.attn_implementation: '{model.config.model_type}' has no {implementation} here ({first_line(error)}); leave it out"
        ) from error


def _design(recipe: PretrainRecipe, tokenizer: PreTrainedTokenizerBase | None) -> Design:
    if recipe.encoder_decoder is not None:
        assert tokenizer is not None
        return _composed(recipe, recipe.encoder_decoder, tokenizer)
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
        config = AutoConfig.for_model(settings.architecture, **{**more, **settings.config})
    except BUILD_ERRORS as error:
        raise ModelError(f"{where}.config: {first_line(error)}; correct it") from error
    embedded = getattr(config, "vocab_size", None)
    if isinstance(embedded, int) and embedded < more.get("vocab_size", 0):
        raise ModelError(
            f"{where}.config.vocab_size is {embedded}, but the tokenizer has {more['vocab_size']} tokens; leave it out"
        )
    return config


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
    except BUILD_ERRORS as error:
        raise ModelError(
            f"{where}: '{config.model_type}' cannot be built so ({first_line(error)}); correct {where}.config"
        ) from error
    assert isinstance(model, PreTrainedModel)
    return model


def _composed(recipe: PretrainRecipe, settings: EncoderDecoderSettings, tokenizer: PreTrainedTokenizerBase) -> Design:
    encoder, source = load_base(settings.encoder, revision=settings.revision)
    special = {**(sizes_of(encoder.config) if settings.warm_start else {}), **_special(tokenizer)}
    config = _config(settings.decoder, where="encoder_decoder.decoder", **special, is_decoder=True, add_cross_attention=True)
    if not (getattr(config, "is_decoder", False) and getattr(config, "add_cross_attention", False)):
        raise ModelError(
            f"encoder_decoder.decoder: '{settings.decoder.architecture}' cannot look at an encoder's output; choose bert, roberta or gpt2"
        )
    if encoder.can_generate():
        raise ModelError(f"encoder_decoder.encoder: '{settings.encoder}' writes text itself; go on with it as model_name_or_path")
    named = {"name": settings.encoder, "revision": settings.revision, "fingerprint": base_fingerprint(encoder)}
    if settings.encoder_layers is not None:
        first_layers(encoder, settings.encoder_layers)
    encoder.config.name_or_path = settings.encoder  # config.json travels: the folder of this machine has no place in it
    decoder = _made(AutoModelForCausalLM, config, where="encoder_decoder.decoder")
    if settings.warm_start:
        warm_start(decoder, encoder, source=source, target=tokenizer)
    try:
        model = EncoderDecoderModel(encoder=encoder, decoder=decoder)
    except BUILD_ERRORS as error:
        raise ModelError(f"encoder_decoder: encoder and decoder do not go together ({first_line(error)})") from error
    for part in (model.config, model.generation_config):
        part.decoder_start_token_id = tokenizer.pad_token_id
        part.pad_token_id, part.eos_token_id = special["pad_token_id"], special["eos_token_id"]
    model.config.vocab_size = config.vocab_size
    if settings.freeze_encoder:
        model.encoder.requires_grad_(False)
    objective = _words(recipe, model, source, tokenizer)
    return Design(model, objective, settings.encoder, None if settings.save_encoder else named)


def _continued(recipe: PretrainRecipe, name: str) -> Design:
    model, tokenizer = load_base(name, revision=recipe.revision)
    if not model.can_generate():
        kind = model.config.model_type
        raise ModelError(f"{name}: an encoder ('{kind}') cannot be pretrained here; choose an encoder-decoder or a decoder")
    if isinstance(model, EncoderDecoderModel):
        target = load_target_tokenizer(name, revision=recipe.revision) or tokenizer
        folder = resolve_base(name)
        encoder = read_encoder(folder) if is_composed(folder) else None
        if encoder is not None:  # it stays what its name says
            model.encoder.requires_grad_(False)
        return Design(model, _words(recipe, model, tokenizer, target), name, encoder)
    if model.config.is_encoder_decoder and sentinel(0) not in tokenizer.get_vocab():
        tokenizer.add_tokens([sentinel(number) for number in range(NUM_SENTINELS)], special_tokens=True)
        if len(tokenizer) > model.config.vocab_size:
            model.resize_token_embeddings(len(tokenizer))
    return Design(model, _objective(recipe, model, tokenizer), name)


def _objective(recipe: PretrainRecipe, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Objective:
    fits = ("span_corruption", "text_infilling") if model.config.is_encoder_decoder else ("next_token",)
    wanted = recipe.objective or fits[0]
    if wanted not in fits:
        raise ConfigError(
            f"objective is {wanted}, but a '{model.config.model_type}' model learns {' or '.join(fits)}; leave it out"
        )
    _check_length(recipe, model.config)
    if wanted == "next_token":
        return NextToken(tokenizer, length=recipe.max_length)
    noise = Noise(recipe.noise_density, recipe.mean_noise_span_length)
    length = min(recipe.max_length, positions(model.config) - 1)  # the end has a place too
    if wanted == "text_infilling":
        return TextInfilling(tokenizer, noise=noise, length=length, permute_sentences=recipe.permute_sentences)
    return SpanCorruption(tokenizer, noise=noise, length=length)


def _words(
    recipe: PretrainRecipe, model: EncoderDecoderModel, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> Objective:
    _check_length(recipe, model.encoder.config)
    noise = Noise(recipe.noise_density, recipe.mean_noise_span_length)
    shape: dict[str, Any] = {"noise": noise, "length": recipe.max_length, "longest_target": positions(model.decoder.config)}
    if recipe.objective == "text_infilling":
        return WordInfilling(source, target, permute_sentences=recipe.permute_sentences, **shape)
    return WordSpans(source, target, **shape)


def _check_length(recipe: PretrainRecipe, config: PreTrainedConfig) -> None:
    most = positions(config)
    if recipe.max_length > most:
        raise ConfigError(f"max_length is {recipe.max_length}, but the model has positions for {most} tokens; lower it")
