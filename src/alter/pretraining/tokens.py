"""A tokenizer learned from text, in which every text can be spelled and comes back as it was.

Pieces are made of bytes, as GPT-2's are, so there is no unknown character; `lower_case` is the one thing that loses something.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from alter.errors import ConfigError, DataError, ModelError
from alter.pretraining.recipe import TokenizerTraining

PAD, EOS, UNK = "<pad>", "</s>", "<unk>"
NUM_BYTES = 256


def train_tokenizer(documents: Iterable[str], settings: TokenizerTraining, *, ends_texts: bool) -> PreTrainedTokenizerFast:
    """Learn a tokenizer.

    Args:
        documents: the text; only its beginning is read where it is longer than `max_characters`.
        settings: how.
        ends_texts: whether an encoded text ends with `</s>`, which encoder-decoder models want.

    Raises:
        ConfigError: the vocabulary is smaller than its special tokens.
        DataError: the text is too short for such a vocabulary.
    """
    special = [PAD, EOS, UNK, *(sentinel(number) for number in range(settings.num_sentinels))]
    least = len(special) + NUM_BYTES
    if settings.vocab_size < least:
        raise ConfigError(
            f"tokenizer.train.vocab_size is {settings.vocab_size}, but special tokens, {settings.num_sentinels} sentinels and "
            f"{NUM_BYTES} bytes alone are {least}; raise it, or lower tokenizer.train.num_sentinels"
        )
    tokenizer = Tokenizer(models.BPE() if settings.kind == "bpe" else models.Unigram())
    if settings.lower_case:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    _learn(tokenizer, _limited(documents, settings.max_characters), settings, special)
    _check_size(tokenizer, settings)
    if ends_texts:
        eos = (EOS, tokenizer.token_to_id(EOS))
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A {EOS}", pair=f"$A {EOS} $B {EOS}", special_tokens=[eos]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        extra_special_tokens=special[3:],
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def _learn(tokenizer: Tokenizer, documents: Iterator[str], settings: TokenizerTraining, special: list[str]) -> None:
    shared: dict[str, Any] = {
        "vocab_size": settings.vocab_size,
        "special_tokens": [AddedToken(token, special=True, normalized=False) for token in special],
        "initial_alphabet": sorted(pre_tokenizers.ByteLevel.alphabet()),
        "show_progress": False,
    }
    trainer: Any = trainers.BpeTrainer(**shared) if settings.kind == "bpe" else trainers.UnigramTrainer(unk_token=UNK, **shared)
    try:
        tokenizer.train_from_iterator(documents, trainer)
    except (DataError, ConfigError):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception for a text that is too short for it
        raise _too_short(settings, str(error).strip()) from error


def _check_size(tokenizer: Tokenizer, settings: TokenizerTraining) -> None:
    reached = tokenizer.get_vocab_size()
    if reached < settings.vocab_size:
        raise _too_short(settings, f"only {reached} tokens can be learned from it")


def _too_short(settings: TokenizerTraining, why: str) -> DataError:
    return DataError(
        f"tokenizer.train.vocab_size is {settings.vocab_size}, which is too large for the text of source.train ({why}); "
        f"lower it, or give more text"
    )


def _limited(documents: Iterable[str], most: int) -> Iterator[str]:
    left = most
    for document in documents:
        yield document[:left]
        left -= len(document)
        if left <= 0:
            return


def sentinel(number: int) -> str:
    """Return the token that stands for masked span `number`."""
    return f"<extra_id_{number}>"


def sentinel_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the ids of `<extra_id_0>`, `<extra_id_1>`, ... as far as the vocabulary has them."""
    vocabulary = tokenizer.get_vocab()
    return [
        vocabulary[sentinel(number)] for number in itertools.takewhile(lambda n: sentinel(n) in vocabulary, itertools.count())
    ]


def load_tokenizer(path: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer from a folder or the hub.

    Raises:
        ModelError: there is none.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises bare Exception for a file that it cannot parse
        first = (str(error).strip() or type(error).__name__).split("\n", 1)[0]
        raise ModelError(f"{path}: the tokenizer cannot be loaded ({first}); give a folder with tokenizer.json") from error
    assert isinstance(tokenizer, PreTrainedTokenizerBase)
    return tokenizer


class PlainText:
    """Encodes text as text: no token is added, nothing is cut, and `</s>` in a text is four letters and no end.

    Args:
        tokenizer: is not changed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.backend: Tokenizer | None = None
        if isinstance(backend, Tokenizer):
            self.backend = Tokenizer.from_str(backend.to_str())
            self.backend.no_truncation()
            self.backend.no_padding()
            self.backend.encode_special_tokens = True

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Return each text's token ids."""
        if self.backend is not None:
            return [found.ids for found in self.backend.encode_batch_fast(texts, add_special_tokens=False)]
        encoded: list[list[int]] = self.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        return encoded
