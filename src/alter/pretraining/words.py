"""Span corruption and text infilling on words, for an encoder and a decoder that do not share a tokenizer.

    block    The cat sat on the mat          mask        . . x x . .
    input    [CLS] the cat [MASK] the mat [SEP]          in the encoder's tokens
    target   <0> sat on <1> </s>                         in the decoder's; span corruption
             The cat sat on the mat </s>                 text infilling

A masked span is the encoder's own mask token, which it understands without training; spans are told apart by their order. Blocks
are measured in the encoder's tokens. Consecutive documents join without a separator, for encoders of this kind have none.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from alter.errors import ConfigError
from alter.pretraining.blocks import Units
from alter.pretraining.corrupt import Example, Noise, noise_mask, permuted, spans_of
from alter.pretraining.objectives import SENTENCE_ENDS, check_sentinels
from alter.pretraining.spelling import Spelling
from alter.pretraining.tokens import PlainText, sentinel_ids

LONGEST_WORD = 64
"""Characters; what is longer (an address, a row of dashes) is read as several words."""


@dataclass(frozen=True)
class Word:
    """A word and the tokens that it has, behind another one, for the encoder and for the decoder."""

    source: tuple[int, ...]
    target: tuple[int, ...]
    ends: bool = False
    """Whether a sentence ends with it."""


class _Words:
    """Blocks of words.

    Args:
        source: the encoder's tokenizer.
        target: the decoder's.
        noise: how much is masked, in words.
        length: the encoder's tokens in a block.
        longest_target: tokens the decoder has positions for; a longer target is cut.

    Raises:
        ConfigError: a tokenizer lacks a token that this needs.
    """

    def __init__(
        self, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, *, noise: Noise, length: int, longest_target: int
    ) -> None:
        if not isinstance(source.mask_token_id, int):
            raise ConfigError(
                "the encoder's tokenizer has no mask token to stand for masked words; choose an encoder that has one"
            )
        if not isinstance(target.eos_token_id, int):
            raise ConfigError("the decoder's tokenizer has no eos_token; set it in its tokenizer_config.json")
        self.source, self.target = source, target
        self.noise = noise
        self.mask_id: int = source.mask_token_id
        self.eos: int = target.eos_token_id
        self._before, self._after = _ends(source)
        self.length = length - len(self._before) - len(self._after)
        self.longest_target = longest_target
        self._source, self._target = Spelling(source), Spelling(target)

    def cut(self, documents: list[str]) -> list[Units]:
        """Return each document's words."""
        words = [_words(document) for document in documents]
        flat = [word for document in words for word in document]
        sources, targets = iter(self._source.words(flat)), iter(self._target.words(flat))
        return [
            [Word(tuple(next(sources)), tuple(next(targets)), word.endswith(SENTENCE_ENDS)) for word in document]
            for document in words
        ]

    def fits(self, units: Units, start: int, room: int) -> tuple[int, int]:
        """Return how many words fit, each as wide as its tokens for the encoder."""
        taken = 0
        for count, word in enumerate(units[start:]):
            width = min(max(1, len(word.source)), self.length)
            if taken + width > room:
                return count, taken
            taken += width
        return len(units) - start, taken

    def _read(self, words: Units, spans: list[tuple[int, int]]) -> list[int]:
        """Return what the encoder reads: its tokens, with one mask token for each span."""
        text: list[int] = []
        done = 0
        for start, end in spans:
            text += [token for word in words[done:start] for token in word.source]
            text.append(self.mask_id)
            done = end
        text += [token for word in words[done:] for token in word.source]
        return [*self._before, *text[: self.length], *self._after]


class WordSpans(_Words):
    """Restore masked spans of words.

    Raises:
        ConfigError: as above, or the decoder's tokenizer has too few sentinels for blocks of this length.
    """

    def __init__(
        self, source: PreTrainedTokenizerBase, target: PreTrainedTokenizerBase, *, noise: Noise, length: int, longest_target: int
    ) -> None:
        super().__init__(source, target, noise=noise, length=length, longest_target=longest_target)
        self.sentinels = sentinel_ids(target)
        check_sentinels(len(self.sentinels), noise, length)

    def example(self, units: Units, rng: np.random.Generator) -> Example:
        """Return the block with spans of words masked, and the spans."""
        spans = spans_of(noise_mask(len(units), self.noise, rng))
        target: list[int] = []
        for sentinel, (start, end) in zip(self.sentinels, spans, strict=False):
            target += [sentinel, *(token for word in units[start:end] for token in word.target)]
        labels = [*target[: self.longest_target - 2], self.sentinels[len(spans)], self.eos]
        return Example(input_ids=self._read(units, spans), labels=labels)


class WordInfilling(_Words):
    """Write the whole text of which the input shows a part: spans are masked and, if wished, sentences shuffled."""

    def __init__(
        self,
        source: PreTrainedTokenizerBase,
        target: PreTrainedTokenizerBase,
        *,
        noise: Noise,
        length: int,
        longest_target: int,
        permute_sentences: bool,
    ) -> None:
        super().__init__(source, target, noise=noise, length=length, longest_target=longest_target)
        self.permute_sentences = permute_sentences

    def example(self, units: Units, rng: np.random.Generator) -> Example:
        """Return the block with spans of words masked and sentences shuffled, and the block."""
        read = [units[place] for place in permuted([word.ends for word in units], rng)] if self.permute_sentences else units
        spans = spans_of(noise_mask(len(read), self.noise, rng))
        target = [token for word in units for token in word.target]
        return Example(input_ids=self._read(read, spans), labels=[*target[: self.longest_target - 1], self.eos])


def _ends(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the tokens that a tokenizer puts before and after a text."""
    bare: list[int] = PlainText(tokenizer).ids(["a"])[0]
    whole: list[int] = tokenizer("a", verbose=False)["input_ids"]
    start = next(position for position in range(len(whole)) if whole[position : position + len(bare)] == bare)
    return whole[:start], whole[start + len(bare) :]


def _words(document: str) -> list[str]:
    return [word[start : start + LONGEST_WORD] for word in document.split() for start in range(0, len(word), LONGEST_WORD)]
