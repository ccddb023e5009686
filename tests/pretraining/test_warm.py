"""What a warm decoder takes over: positions token by token, and words by their letters in every kind of tokenizer."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from tests.tiny import tiny_lm, tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoModel, AutoModelForCausalLM, BertConfig, PreTrainedTokenizerFast, RobertaConfig

from alter.errors import ModelError
from alter.pretraining.positions import before_first_position
from alter.pretraining.warm import warm_start, words_of

SIZES: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
IDS = torch.tensor([[11, 12, 13, 14, 15, 16]])


def encoder_of(kind: type[Any], **settings: Any) -> Any:
    torch.manual_seed(0)
    return AutoModel.from_config(kind(vocab_size=200, **{**SIZES, "max_position_embeddings": 40, **settings}))


def decoder_of(kind: type[Any], **settings: Any) -> Any:
    torch.manual_seed(1)
    told = {
        **SIZES,
        "max_position_embeddings": 24,
        "is_decoder": True,
        "add_cross_attention": True,
        "pad_token_id": 0,
        **settings,
    }
    return AutoModelForCausalLM.from_config(kind(**{"vocab_size": 200, **told}))


def positions_read(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Return the position vectors that a model adds to the tokens of a text without padding."""
    seen: list[torch.Tensor] = []
    handle = model.base_model.embeddings.position_embeddings.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    try:
        model(ids)
    finally:
        handle.remove()
    return seen[0].reshape(-1, SIZES["hidden_size"])


@pytest.mark.parametrize(("kind", "paddings"), [(BertConfig, (0, 0)), (RobertaConfig, (1, 0)), (RobertaConfig, (0, 3))])
def test_each_token_gets_its_own_position(kind: type[Any], paddings: tuple[int, int]) -> None:
    encoder, decoder = encoder_of(kind, pad_token_id=paddings[0]), decoder_of(kind, pad_token_id=paddings[1])
    warm_start(decoder, encoder, source=tiny_tokenizer(), target=tiny_tokenizer())
    theirs, own = positions_read(encoder, IDS), positions_read(decoder, IDS)
    assert theirs.shape == own.shape == (6, 32)
    torch.testing.assert_close(own, theirs)
    assert len({tuple(row.tolist()) for row in own}) == 6


def test_the_last_position_counts() -> None:
    # 40 rows behind a padding of 1 are 38 positions; so are 39 rows behind a padding of 0.
    encoder = encoder_of(RobertaConfig, pad_token_id=1)
    warm_start(decoder_of(RobertaConfig, max_position_embeddings=39), encoder, source=tiny_tokenizer(), target=tiny_tokenizer())
    with pytest.raises(
        ModelError,
        match=r"the decoder has positions for 39 tokens, the encoder for 38; set .*max_position_embeddings to at most 39",
    ):
        warm_start(
            decoder_of(RobertaConfig, max_position_embeddings=40), encoder, source=tiny_tokenizer(), target=tiny_tokenizer()
        )


@pytest.mark.parametrize(
    ("name", "table", "rows"), [("bart", "decoder.embed_positions", 2), ("opt", "decoder.embed_positions", 2)]
)
def test_rows_before_the_first_position_are_counted(name: str, table: str, rows: int) -> None:
    model: Any = tiny_lm(name)
    assert before_first_position(len(model.base_model.get_submodule(table).weight), model.config) == rows


# ---- words by their letters ------------------------------------------------------------------------------------------

TEXT = ["the bathe lathe in cabin robin her other heron inner thin then weather ingot sing king thing ring there"] * 20
MARKS = {
    "word_piece": ("", "##"),
    "metaspace": ("▁", ""),
    "metaspace_first": ("▁", ""),
    "prepended": ("▁", ""),
    "bytes": ("Ġ", ""),
}
MARKS |= {"bytes_with_space": ("Ġ", ""), "unigram": ("▁", "")}
"""Kind of tokenizer -> how it marks what begins a word, and what goes on with one."""
UNLIKELY = {f"▁{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"}
"""Pieces that a unigram tokenizer has and does not use: mark and letter apart are likelier."""
SHARED: dict[str, Any] = {"vocab_size": 90, "special_tokens": ["<pad>", "</s>", "<unk>"], "show_progress": False}


def metaspace(model: Any, scheme: Any = "always") -> Tokenizer:
    made = Tokenizer(model)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    made.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return made


def bytes_of(*, add_prefix_space: bool) -> Tokenizer:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    made.decoder = decoders.ByteLevel()
    return made


def word_pieces() -> Tokenizer:
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made


def prepended() -> Tokenizer:
    """Return one as LLaMA's: a mark in front of the text and for every space, before words are told apart."""
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return made


def learned(kind: str, *, vocab_size: int = 90) -> PreTrainedTokenizerFast:
    shared = {**SHARED, "vocab_size": vocab_size}
    made: Tokenizer
    trainer: Any = trainers.BpeTrainer(**shared)
    if kind == "word_piece":
        made, trainer = word_pieces(), trainers.WordPieceTrainer(**shared)
    elif kind == "unigram":
        made, trainer = metaspace(models.Unigram()), trainers.UnigramTrainer(unk_token="<unk>", **shared)
    elif kind.startswith("bytes"):
        made = bytes_of(add_prefix_space=kind == "bytes_with_space")
    elif kind == "prepended":
        made = prepended()
    else:
        made = metaspace(models.BPE(unk_token="<unk>"), "first" if kind == "metaspace_first" else "always")
    made.train_from_iterator(TEXT, trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=made, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )


def parts(token: str, kind: str) -> tuple[bool, str] | None:
    """Return whether a token begins a word, and its letters; None for a mark alone."""
    start, inside = MARKS[kind]
    begins = token.startswith(start) if start else not token.startswith(inside)
    letters = token.removeprefix(start if begins else inside)
    return (begins, letters) if letters.isascii() and letters.isalpha() else None


@pytest.mark.parametrize(("source", "target"), list(itertools.product(MARKS, MARKS)))
def test_a_token_is_read_as_the_same_letters_at_the_same_place_of_a_word(source: str, target: str) -> None:
    reads, writes = learned(source), learned(target, vocab_size=80)
    encoder, decoder = encoder_of(BertConfig), decoder_of(BertConfig, vocab_size=len(writes))
    warm_start(decoder, encoder, source=reads, target=writes)
    words, pretrained, known = words_of(decoder), words_of(encoder), reads.get_vocab()
    found = {True: 0, False: 0}
    told_apart = 0
    for token, row in writes.get_vocab().items():
        said = parts(token, target)
        if said is None:
            continue
        begins, letters = said
        here, there = (MARKS[source][0 if place else 1] + letters for place in (begins, not begins))
        if here not in known or (source == "unigram" and here in UNLIKELY):
            continue
        torch.testing.assert_close(words[row], pretrained[known[here]], msg=lambda told, token=token: f"{token}: {told}")
        found[begins] += 1
        told_apart += there in known
    assert found[True] >= 5
    assert found[False] >= 10
    assert told_apart >= 3


def test_what_goes_on_with_a_word_may_be_several_pieces_and_end_it() -> None:
    reads, writes = tiny_tokenizer(), learned("bytes", vocab_size=80)
    writes.add_tokens(["ingly", "ing.", ".the", "Ġ"])
    encoder, decoder = encoder_of(BertConfig), decoder_of(BertConfig, vocab_size=len(writes))
    words_before = words_of(decoder).detach().clone()
    warm_start(decoder, encoder, source=reads, target=writes)
    words, pretrained = words_of(decoder), words_of(encoder)
    for token, pieces in {"ingly": ["##ing", "##ly"], "ing.": ["##ing", "."], ".the": [".", "the"]}.items():
        expected = pretrained[reads.convert_tokens_to_ids(pieces)].mean(0)
        torch.testing.assert_close(words[writes.convert_tokens_to_ids(token)], expected)
    for token in ("<pad>", "</s>", "<unk>", "Ġ"):  # nothing that is read as letters: as it was
        row = writes.convert_tokens_to_ids(token)
        torch.testing.assert_close(words[row], words_before[row])
