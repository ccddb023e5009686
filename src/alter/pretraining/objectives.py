"""What a model is asked: to restore masked spans, or to go on. An objective cuts documents into units and makes examples of blocks."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from transformers import PreTrainedTokenizerBase

from alter.errors import ConfigError
from alter.pretraining.blocks import Cutter, Units
from alter.pretraining.corrupt import Example, Noise, corrupt, noise_mask
from alter.pretraining.tokens import PlainText, sentinel_ids


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


def check_sentinels(have: int, noise: Noise, length: int) -> None:
    """Refuse a tokenizer with fewer sentinels than a block has masked spans, and one to close the target."""
    need = noise.counts(length)[1] + 1
    if have < need:
        raise ConfigError(
            f"blocks of max_length {length} have up to {need - 1} masked spans, which needs {need} sentinels <extra_id_0>, ..., but "
            f"the tokenizer has {have}; lower max_length or noise_density, raise mean_noise_span_length, or raise "
            f"tokenizer.train.num_sentinels"
        )
