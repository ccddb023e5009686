"""Special tokens that a text only spells: `</s>` in a tweet is four letters, and ends nothing."""

from __future__ import annotations

import re

from transformers import PreTrainedTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast


def as_text(tokenizer: PreTrainedTokenizerBase) -> dict[str, bool]:
    """Return the arguments with which a tokenizer reads a text letter by letter; what it puts around texts stays special."""
    # Tokenizers that are neither (mistral-common's) never read special tokens out of a text, and refuse the argument.
    return {"split_special_tokens": True} if isinstance(tokenizer, PreTrainedTokenizer | PreTrainedTokenizerFast) else {}


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> re.Pattern[str]:
    """Return what finds a tokenizer's special tokens in a text, the longest first; with none of them, it finds nothing."""
    told = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special} | {*tokenizer.all_special_tokens}
    longest_first = sorted((token for token in told if token), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def broken(text: str, special: re.Pattern[str]) -> str:
    """Return a text with a space in each special token that it spells: `< /s>`."""
    return special.sub(lambda found: f"{found[0][:1]} {found[0][1:]}", text)
