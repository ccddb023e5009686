"""A decoder that begins with its encoder's weights instead of random ones (Rothe et al. 2020, arXiv 1907.12461).

    layers              the encoder's, evenly chosen: 3 of 6 are numbers 0, 2 and 5
    word embeddings     by spelling: each of the decoder's tokens takes the mean of the encoder's for the same letters at the same place
                        of a word (`spelling.py`)
    positions           the encoder's first ones, from the first token's on

The attention from decoder to encoder has no counterpart: `reading.py`.
"""

from __future__ import annotations

import re
from typing import cast

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from alter.errors import ModelError
from alter.pretraining.positions import before_first_position
from alter.pretraining.spelling import Spelling, place_of

SIZES = ("hidden_size", "intermediate_size", "num_attention_heads", "hidden_act", "layer_norm_eps", "type_vocab_size")
"""What a decoder takes over from its encoder's configuration where the recipe is silent."""
LAYER = re.compile(r"\.layer\.(\d+)\.")


def sizes_of(encoder: PreTrainedConfig) -> dict[str, object]:
    """Return the settings of a decoder that the encoder's weights fit."""
    return {key: getattr(encoder, key) for key in SIZES if hasattr(encoder, key)}


def words_of(model: PreTrainedModel) -> torch.Tensor:
    """Return a model's word embeddings."""
    return cast("nn.Embedding", model.get_input_embeddings()).weight


@torch.no_grad()
def warm_start(
    decoder: PreTrainedModel, encoder: PreTrainedModel, *, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> int:
    """Copy the encoder's weights into the decoder.

    Args:
        decoder: a decoder of the encoder's architecture; is changed.
        encoder: the pretrained encoder.
        source: the encoder's tokenizer.
        target: the decoder's tokenizer.

    Returns:
        How many numbers were copied.

    Raises:
        ModelError: architectures or sizes differ.
    """
    if decoder.config.model_type != encoder.config.model_type:
        raise ModelError(
            f"encoder_decoder.warm_start: the decoder is a '{decoder.config.model_type}', the encoder a "
            f"'{encoder.config.model_type}'; set decoder.architecture: {encoder.config.model_type}, or warm_start: false"
        )
    width = words_of(encoder).shape[1]
    if width != encoder.config.hidden_size:
        raise ModelError(
            f"encoder_decoder.warm_start: '{encoder.config.model_type}' has word embeddings of another width ({width}) than its states "
            f"({encoder.config.hidden_size}), so nothing can be read as a word; set it to false"
        )
    own, theirs = dict(decoder.base_model.named_parameters()), dict(encoder.base_model.named_parameters())
    chosen = np.linspace(0, encoder.config.num_hidden_layers - 1, decoder.config.num_hidden_layers).round().astype(int)
    words, pretrained = words_of(decoder), words_of(encoder)
    copied = 0
    for name, parameter in own.items():
        if parameter is words:
            continue
        found = LAYER.search(name)
        there = name if found is None else name.replace(found.group(0), f".layer.{chosen[int(found.group(1))]}.", 1)
        if there not in theirs:
            continue
        place: torch.Tensor = parameter
        values: torch.Tensor = theirs[there]
        if "position" in name and values.dim() == place.dim() == 2 and values.shape[1] == place.shape[1]:
            place, values = _from_the_first(place, decoder.config, values, encoder.config)
        if values.shape != place.shape:
            raise ModelError(
                f"encoder_decoder.warm_start: the decoder's {name} is {tuple(place.shape)}, the encoder's {tuple(values.shape)}; "
                f"leave {', '.join(SIZES[:3])} out of decoder.config"
            )
        place.copy_(values)
        copied += place.numel()
    if copied == 0:
        raise ModelError(
            f"encoder_decoder.warm_start: a '{encoder.config.model_type}' decoder names none of its encoder's weights; set it to false"
        )
    return copied + _spelled(words, pretrained, source=source, target=target)


def _from_the_first(
    own: torch.Tensor, own_config: PreTrainedConfig, theirs: torch.Tensor, their_config: PreTrainedConfig
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of two tables of positions that are a text's first token's, its second's, and so on."""
    own = own[before_first_position(len(own), own_config) :]
    theirs = theirs[before_first_position(len(theirs), their_config) :]
    if len(own) > len(theirs):
        most = own_config.max_position_embeddings - (len(own) - len(theirs))
        raise ModelError(
            f"encoder_decoder.warm_start: the decoder has positions for {len(own)} tokens, the encoder for {len(theirs)}; set "
            f"encoder_decoder.decoder.config.max_position_embeddings to at most {most}"
        )
    return own, theirs[: len(own)]


def _spelled(
    words: torch.Tensor, pretrained: torch.Tensor, *, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase
) -> int:
    """Give each of the decoder's tokens the mean of the encoder's for its letters; special tokens and lone bytes stay random."""
    special = set(target.all_special_ids)
    tokens = [token for token in range(len(target)) if token not in special]
    places = place_of(target, tokens)
    copied = 0
    for token, (_, text), pieces in zip(tokens, places, Spelling(source).at(places), strict=True):
        ids = [piece for piece in pieces if piece != source.unk_token_id]
        if ids and "\ufffd" not in text:
            words[token] = pretrained[ids].mean(0)
            copied += words.shape[1]
    return copied
