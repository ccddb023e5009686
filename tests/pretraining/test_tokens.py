from __future__ import annotations

import random
from pathlib import Path
from typing import Literal

import pytest
from tests.pretraining.conftest import prose
from transformers import AutoTokenizer

from alter.errors import ConfigError, DataError, ModelError
from alter.pretraining.recipe import TokenizerTraining
from alter.pretraining.tokens import PlainText, load_tokenizer, sentinel_ids, train_tokenizer

KINDS: tuple[Literal["bpe", "unigram"], ...] = ("bpe", "unigram")
ODD = [
    "",
    " ",
    "\n\n\t two  spaces\r\n",
    "naïve café, e\u0301 and é",
    "漢字かな交じり文 한국어 ไทย עברית",
    "👩‍👩‍👧‍👦🏳️‍🌈 \U0001f9ff",
    "\u0000\u0001\u200b\u2028\ufeff\ufffd\U0010ffff",
    "▁Ġ</s><pad><extra_id_0>",
]


@pytest.fixture(scope="module")
def text() -> list[str]:
    return prose(300, seed=0).split("\n\n")


def learn(text: list[str], kind: Literal["bpe", "unigram"], **settings: int | bool) -> TokenizerTraining:
    return TokenizerTraining.model_validate({"vocab_size": 280, "num_sentinels": 10, "kind": kind, **settings})


@pytest.mark.parametrize("kind", KINDS)
def test_every_text_comes_back_as_it_was(text: list[str], kind: Literal["bpe", "unigram"], tmp_path: Path) -> None:
    train_tokenizer(text, learn(text, kind), ends_texts=True).save_pretrained(str(tmp_path))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path))
    assert len(tokenizer) == 280
    chance = random.Random(0)
    noise = [
        "".join(chr(chance.choice((chance.randrange(0xD800), chance.randrange(0xE000, 0x110000)))) for _ in range(20))
        for _ in range(50)
    ]
    texts = [*ODD, *noise, *text[:20]]
    for given, ids in zip(texts, PlainText(tokenizer).ids(texts), strict=True):
        assert tokenizer.decode(ids) == given
        assert not set(ids) & set(tokenizer.all_special_ids)


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoded_text_ends_where_it_should_and_knows_its_sentinels(text: list[str], kind: Literal["bpe", "unigram"]) -> None:
    ended = train_tokenizer(text, learn(text, kind), ends_texts=True)
    assert ended("Ada <extra_id_9>")["input_ids"][-2:] == [sentinel_ids(ended)[9], ended.eos_token_id]
    assert set(ended("Ada")) == {"input_ids", "attention_mask"}
    plain = train_tokenizer(text, learn(text, kind), ends_texts=False)
    assert plain.eos_token_id not in plain("Ada")["input_ids"]
    assert len(sentinel_ids(plain)) == 10
    assert (plain.pad_token_id, plain.eos_token_id, plain.unk_token_id) == (0, 1, 2)


def test_learning_takes_no_more_text_than_told(text: list[str]) -> None:
    some = train_tokenizer(text, learn(text, "bpe", max_characters=3000), ends_texts=True)
    same = train_tokenizer(iter([*text[:40]]), learn(text, "bpe", max_characters=3000), ends_texts=True)
    assert some.get_vocab() == same.get_vocab()


def test_lower_case_folds(text: list[str]) -> None:
    tokenizer = train_tokenizer(text, learn(text, "bpe", lower_case=True), ends_texts=True)
    assert tokenizer.decode(PlainText(tokenizer).ids(["Ada SEES"])[0]) == "ada sees"


@pytest.mark.parametrize("kind", KINDS)
def test_a_vocabulary_too_large_for_the_text_is_an_error(kind: Literal["bpe", "unigram"]) -> None:
    with pytest.raises(DataError, match=r"vocab_size is 5000, which is too large for the text"):
        train_tokenizer(["a b c"], learn([], kind, vocab_size=5000), ends_texts=True)


def test_a_vocabulary_smaller_than_its_special_tokens_is_an_error() -> None:
    with pytest.raises(ConfigError, match="alone are 359"):
        train_tokenizer(["a b c"], learn([], "bpe", vocab_size=300, num_sentinels=100), ends_texts=True)


def test_a_folder_without_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the tokenizer cannot be loaded"):
        load_tokenizer(str(tmp_path))
