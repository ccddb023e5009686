"""A start from which a decoder reads: its attention to a pretrained encoder in closed form, found by least squares on some text.

From random weights such a decoder first learns to write without looking, and by the time it looks, minutes have become hours: what to
look for means nothing until what is found there is of use, and the other way round. Both can be solved for. Of each layer's heads

    the first half look for the place after the token just written    key: token before this place    value: token at this place
    the second half look for the place of the token just written      key: token at this place        value: token after this place

"Token" is its word embedding, which encoder and decoder share by spelling (`warm.py`); each map from a state to an embedding is a ridge
regression on the given text. Every layer's heads see another random rotation of the embedding's directions. The dense layer before the
vocabulary becomes the identity, so that what is found there reaches the logits. From here on all of it is trained as usual.

Worth, on 2 cores: docs/log.md.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import EncoderDecoderModel, PreTrainedTokenizerBase

from alter.errors import ModelError
from alter.pretraining.positions import positions

NUM_TEXTS, NUM_CHARACTERS, NUM_TOKENS = 400, 600, 96
"""Text that the maps are found on: so many texts, cut to so many characters and tokens."""
LEAST_WORDS, LEAST_PLACES = 100, 20
PENALTY = 1e-2
"""Of the ridge regressions, in units of the mean variance of a state's direction."""
SPREAD = 2.0
"""Standard deviation of attention scores over places: some places stand out, none has everything."""
LOUDNESS = 0.5
"""Size of what a layer reads, were all heads to look at one place, in units of the state that it is added to."""
ROWS = 32


@dataclass(frozen=True)
class Map:
    """A linear map from states to centred embeddings."""

    weight_DD: torch.Tensor
    bias_D: torch.Tensor

    def __call__(self, states_ND: torch.Tensor) -> torch.Tensor:
        """Return what the states (N, D) say, of shape (N, D)."""
        return states_ND @ self.weight_DD + self.bias_D


def ridge(states_ND: torch.Tensor, targets_ND: torch.Tensor, *, penalty: float = PENALTY) -> Map:
    """Return the map with the least squared error plus penalty on centred targets."""
    mean_D = states_ND.mean(0)
    centred_ND = states_ND - mean_D
    gram_DD = centred_ND.T @ centred_ND
    gram_DD += penalty * gram_DD.diagonal().mean() * torch.eye(len(gram_DD), dtype=gram_DD.dtype)
    weight_DD = torch.linalg.solve(gram_DD, centred_ND.T @ (targets_ND - targets_ND.mean(0)))
    return Map(weight_DD, -(mean_D @ weight_DD))


@torch.no_grad()
def start_reading(
    model: EncoderDecoderModel,
    texts: Sequence[str],
    *,
    source: PreTrainedTokenizerBase,
    target: PreTrainedTokenizerBase,
    seed: int,
) -> None:
    """Solve for the decoder's attention to the encoder.

    Args:
        model: encoder and decoder of one size, the decoder with the encoder's embeddings (`warm_start`); is changed.
        texts: some text.
        source: the encoder's tokenizer.
        target: the decoder's tokenizer.
        seed: draws the rotations.

    Raises:
        ModelError: the decoder's attention to the encoder is not where BERT has it, or the text is too short.
    """
    model.train(mode=False)
    source, target = copy.deepcopy(source), copy.deepcopy(target)  # cutting and padding would stay on in what is saved
    texts = [text[:NUM_CHARACTERS] for text in texts[:NUM_TEXTS]]
    if sum(len(text.split()) for text in texts) < LEAST_WORDS:
        raise ModelError(
            f"encoder_decoder.warm_start: source.train has fewer than {LEAST_WORDS} words at its start, too few to compute anything from; "
            f"give more text, or warm_start: false"
        )
    seen_ND, before, at, after = _read(model, texts, source)
    if len(seen_ND) < LEAST_PLACES:
        raise ModelError(
            f"encoder_decoder.warm_start: source.train begins with texts of one or two words (only {len(seen_ND)} with a word on either "
            f"side), too short to compute anything from; join them into longer documents (source.documents), or warm_start: false"
        )
    written, states = _write(model, texts, target)
    generator = torch.Generator().manual_seed(seed)
    for layer, states_ND in zip(_layers(model), states, strict=True):
        _solve(layer.crossattention, seen_ND, (before, at, after), states_ND, written, generator)
    base = set(model.decoder.base_model.modules())
    for module in model.decoder.modules():
        if module not in base and isinstance(module, nn.Linear) and module.in_features == module.out_features:
            nn.init.eye_(module.weight)
            nn.init.zeros_(module.bias)


def _layers(model: EncoderDecoderModel) -> list[Any]:
    layers = list(getattr(getattr(model.decoder.base_model, "encoder", None), "layer", ()))
    if not layers or not all(hasattr(layer, "crossattention") for layer in layers):
        raise ModelError(
            f"encoder_decoder.warm_start: a '{model.decoder.config.model_type}' decoder keeps its attention to the encoder elsewhere than "
            f"BERT does; choose decoder.architecture: bert, or warm_start: false"
        )
    return layers


def _room(model: EncoderDecoderModel) -> int:
    return min(NUM_TOKENS, positions(model.encoder.config), positions(model.decoder.config))


def _read(model: EncoderDecoderModel, texts: list[str], source: PreTrainedTokenizerBase) -> tuple[torch.Tensor, ...]:
    """Return the encoder's states (N, D) and the embeddings (N, D) of the tokens before, at and after each; ends are left out."""
    encoded = source(
        texts, truncation=True, max_length=_room(model), padding=True, return_special_tokens_mask=True, return_tensors="pt"
    )
    ids_BS, mask_BS = encoded["input_ids"], encoded["attention_mask"]
    states_BSD = torch.cat(
        [
            model.encoder(input_ids=ids_BS[row : row + ROWS], attention_mask=mask_BS[row : row + ROWS]).last_hidden_state
            for row in range(0, len(texts), ROWS)
        ]
    )
    word_BS = encoded["special_tokens_mask"] == 0
    inner = word_BS[:, :-2] & word_BS[:, 1:-1] & word_BS[:, 2:]
    embedded_BSD = model.encoder.get_input_embeddings()(ids_BS)
    return (
        states_BSD[:, 1:-1][inner],
        embedded_BSD[:, :-2][inner],
        embedded_BSD[:, 1:-1][inner],
        embedded_BSD[:, 2:][inner],
    )


def _write(
    model: EncoderDecoderModel, texts: list[str], target: PreTrainedTokenizerBase
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return embeddings (N, D) of tokens just written, and, layer by layer, the states (N, D) that look at the encoder after them."""
    encoded = target(texts, truncation=True, max_length=_room(model), padding=True, return_tensors="pt")
    ids_BT, mask_BT = encoded["input_ids"], encoded["attention_mask"].bool()
    held: list[list[torch.Tensor]] = []
    hooks = []
    for layer in _layers(model):
        states: list[torch.Tensor] = []
        held.append(states)
        hooks.append(layer.attention.register_forward_hook(lambda _, __, output, states=states: states.append(output[0])))
    try:
        for row in range(0, len(texts), ROWS):
            model.decoder(input_ids=ids_BT[row : row + ROWS], attention_mask=mask_BT[row : row + ROWS].long())
    finally:
        for hook in hooks:
            hook.remove()
    return model.decoder.get_input_embeddings()(ids_BT)[mask_BT], [torch.cat(states)[mask_BT] for states in held]


def _solve(
    attention: Any,
    seen_ND: torch.Tensor,
    tokens: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    states_ND: torch.Tensor,
    written_ND: torch.Tensor,
    generator: torch.Generator,
) -> None:
    width = seen_ND.shape[1]
    heads = attention.self.num_attention_heads
    looked_DD, given_DD = (torch.linalg.qr(torch.randn(width, width, generator=generator))[0] for _ in range(2))
    half = heads // 2 * (width // heads)
    first, second = slice(0, half), slice(half, width)
    before, at, after = (ridge(seen_ND, token_ND) for token_ND in tokens)
    query = _turned([(ridge(states_ND, written_ND), looked_DD)])
    key = _turned([(before, looked_DD[:, first]), (at, looked_DD[:, second])])
    value = _turned([(at, given_DD[:, first]), (after, given_DD[:, second])])
    # Scores as spread as wished, head by head.
    asked, found = (made(rows).unflatten(1, (heads, -1)) for made, rows in ((query, states_ND[:2000]), (key, seen_ND[:2000])))
    scores_HNN = torch.einsum("qhd,khd->hqk", asked, found) / (width // heads) ** 0.5
    scale_D = (SPREAD / scores_HNN.std(dim=(1, 2))).sqrt().repeat_interleave(width // heads)
    loud = LOUDNESS * states_ND.square().mean().sqrt() / value(seen_ND).square().mean().sqrt()
    for linear, made, factor in ((attention.self.query, query, scale_D), (attention.self.key, key, scale_D)):
        linear.weight.copy_((made.weight_DD * factor).T)
        linear.bias.copy_(made.bias_D * factor)
    # The whole size is in the value: entries of like size everywhere move by like shares under Adam, which is stable at usual rates.
    attention.self.value.weight.copy_(loud * value.weight_DD.T)
    attention.self.value.bias.copy_(loud * value.bias_D)
    attention.output.dense.weight.copy_(given_DD)
    attention.output.dense.bias.zero_()


def _turned(parts: list[tuple[Map, torch.Tensor]]) -> Map:
    """Return maps side by side, each into some directions of a rotated embedding."""
    return Map(
        torch.cat([one.weight_DD @ directions for one, directions in parts], 1),
        torch.cat([one.bias_D @ directions for one, directions in parts]),
    )
