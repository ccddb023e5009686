"""What a model is asked: to restore masked spans, to write a damaged text anew, or to go on.

An objective cuts documents into units and makes examples of blocks.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from alter.errors import ConfigError
from alter.pretraining.blocks import Cutter, Units
from alter.pretraining.corrupt import Example, Noise, corrupt, infill, noise_mask, permuted
from alter.pretraining.tokens import PlainText, sentinel_ids

SENTENCE_ENDS = (".", "!", "?", "</s>")
"""What a sentence's last word or token ends with."""


class Objective(Cutter, Protocol):
    """Makes examples of text."""

    source: PreTrainedTokenizerBase
    """Spells what the model reads."""
    target: PreTrainedTokenizerBase
    """Spells what the model writes."""

    def example(self, units: Units, rng: np.random.Generator) -> Example:
        """Return the example of a block."""


def target_characters(objective: Objective, example: Example) -> int:
    """Return how many characters of text an example asks for; sentinels and ends are none."""
    special = set(objective.target.all_special_ids) | set(sentinel_ids(objective.target))
    kept = [token for token in example.labels if token not in special]
    return len(objective.target.decode(kept))


class _Tokens:
    """Blocks of token ids, documents separated by the end token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, length: int) -> None:
        if not isinstance(tokenizer.eos_token_id, int):
            raise ConfigError("the tokenizer has no eos_token, which ends documents; set it in its tokenizer_config.json")
        self.source = self.target = tokenizer
        self.length = length
        self.eos: int = tokenizer.eos_token_id
        self._plain = PlainText(tokenizer)

    def cut(self, documents: list[str]) -> list[Units]:
        return [[*ids, self.eos] if ids else [] for ids in self._plain.ids(documents)]

    def fits(self, units: Units, start: int, room: int) -> tuple[int, int]:
        count = min(room, len(units) - start)
        return count, count


class NextToken(_Tokens):
    """Go on: every token is predicted from those before it."""

    def example(self, units: Units, rng: np.random.Generator) -> Example:
        """Return the block, both to read and to write: the model itself looks one token ahead."""
        return Example(input_ids=list(units), labels=list(units))


class SpanCorruption(_Tokens):
    """Restore masked spans of tokens.

    Raises:
        ConfigError: the tokenizer has too few sentinels for blocks of this length.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, noise: Noise, length: int) -> None:
        super().__init__(tokenizer, length=length)
        self.noise = noise
        self.sentinels = sentinel_ids(tokenizer)
        check_sentinels(len(self.sentinels), noise, length)

    def example(self, units: Units, rng: np.random.Generator) -> Example:
        """Return the block with spans masked, and the spans."""
        mask = noise_mask(len(units), self.noise, rng)
        return corrupt(list(units), mask, sentinels=self.sentinels, eos=self.eos)


class TextInfilling(_Tokens):
    """Write the whole text of which the input shows a part: spans are masked and, if wished, sentences shuffled.

    Every token is learned from, and to copy is learned with it. A masked span is the tokenizer's mask token or, without one,
    `<extra_id_0>`.

    Raises:
        ConfigError: the tokenizer has neither.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, *, noise: Noise, length: int, permute_sentences: bool) -> None:
        super().__init__(tokenizer, length=length)
        self.noise = noise
        self.permute_sentences = permute_sentences
        masks = [tokenizer.mask_token_id] if isinstance(tokenizer.mask_token_id, int) else sentinel_ids(tokenizer)
        if not masks:
            raise ConfigError("the tokenizer has no mask token and no <extra_id_0> to stand for masked text; add one")
        self.mask_id: int = masks[0]
        spelled = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
        self.ends = [str(token).endswith(SENTENCE_ENDS) for token in spelled]

    def example(self, units: Units, rng: np.random.Generator) -> Example:
        """Return the block with spans masked and sentences shuffled, and the block."""
        read = (
            [units[place] for place in permuted([self.ends[token] for token in units], rng)] if self.permute_sentences else units
        )
        mask = noise_mask(len(read), self.noise, rng)
        return Example(input_ids=[*infill(list(read), mask, mask_id=self.mask_id), self.eos], labels=[*units, self.eos])


def check_sentinels(have: int, noise: Noise, length: int) -> None:
    """Refuse a tokenizer with fewer sentinels than a block has masked spans, and one to close the target."""
    need = noise.counts(length)[1] + 1
    if have < need:
        raise ConfigError(
            f"blocks of max_length {length} have up to {need - 1} masked spans, which needs {need} sentinels <extra_id_0>, ..., but "
            f"the tokenizer has {have}; lower max_length or noise_density, raise mean_noise_span_length, or raise "
            f"tokenizer.train.num_sentinels"
        )
