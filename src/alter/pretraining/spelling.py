"""The same letters at the same place of a word, in tokenizers of different kinds.

                  begins a word     goes on with one
    byte-level    Ġthe              the
    Metaspace     ▁the              the
    WordPiece     the               ##the

A place is (whether a word begins there, the letters).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from alter.pretraining.tokens import PlainText

Place = tuple[bool, str]


def place_of(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> list[Place]:
    """Return what each token writes behind a word: with a space before it, it begins one."""
    anchor = PlainText(tokenizer).ids(["a"])[0]
    before = _written(tokenizer, anchor)
    found = []
    for token in tokens:
        text = _written(tokenizer, [*anchor, token]).removeprefix(before)
        begins = text.startswith(" ") and not text[1:2].isspace() and len(text) > 1
        found.append((begins, text[1:] if begins else text))
    return found


def _written(tokenizer: PreTrainedTokenizerBase, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), clean_up_tokenization_spaces=False))


class Spelling:
    """How a tokenizer spells words, and what goes on with them.

    Args:
        tokenizer: is not changed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._plain = PlainText(tokenizer)
        self._lead = self._lead_of_words()
        self._bare = self._plain.backend
        self._pieces: dict[str, int] | None = None
        self._prefix = ""
        if self._plain.backend is not None:
            content = json.loads(self._plain.backend.to_str())
            if content["model"]["type"] == "WordPiece":
                self._pieces, self._prefix = tokenizer.get_vocab(), content["model"]["continuing_subword_prefix"]
            for stage in ("normalizer", "pre_tokenizer"):
                content[stage] = _without_lead(content[stage])
            self._bare = Tokenizer.from_str(json.dumps(content))
            self._bare.encode_special_tokens = True

    def words(self, words: Sequence[str]) -> list[list[int]]:
        """Return the ids of each word as it stands behind another one."""
        return self._plain.ids([f"{self._lead}{word}" for word in words])

    def inside(self, text: str) -> list[int]:
        """Return the ids of a text as it goes on with a word; none where a WordPiece has no pieces for it."""
        if self._bare is None:
            return self._plain.ids([text])[0]
        if self._pieces is None:
            return list(self._bare.encode(text, add_special_tokens=False).ids)
        if self._bare.normalizer is not None:
            text = self._bare.normalizer.normalize_str(text)
        split = [(text, (0, len(text)))] if self._bare.pre_tokenizer is None else self._bare.pre_tokenizer.pre_tokenize_str(text)
        if not split or not split[0][0][:1].isalnum():  # a full stop stands alone in any case
            return self._plain.ids([text])[0]
        first, (_, end) = split[0]
        return [*_longest(first, self._prefix, self._pieces), *self._plain.ids([text[end:]])[0]]

    def at(self, places: Sequence[Place]) -> list[list[int]]:
        """Return the ids of the letters at each place."""
        words = iter(self.words([text for begins, text in places if begins]))
        return [next(words) if begins else self.inside(text) for begins, text in places]

    def _lead_of_words(self) -> str:
        """Return what to put before a word, so that it is read as it is behind another one; some tokenizers add a space themselves."""
        one, two = self._plain.ids(["a", "a b"])
        alike = (lead for lead in (" ", "") if [*one, *self._plain.ids([f"{lead}b"])[0]] == two)
        return next(alike, " ")


def _without_lead(stage: Any) -> Any:
    """Return a normaliser or pre-tokeniser as its JSON says it, without the mark that it would put before a text."""
    if stage is None or stage["type"] == "Prepend":
        return None
    changed: dict[str, dict[str, Any]] = {"Metaspace": {"prepend_scheme": "never"}, "ByteLevel": {"add_prefix_space": False}}
    inner = {
        key: [kept for each in stage[key] if (kept := _without_lead(each)) is not None]
        for key in ("normalizers", "pretokenizers")
        if key in stage
    }
    return {**stage, **changed.get(stage["type"], {}), **inner}


def _longest(word: str, prefix: str, pieces: dict[str, int]) -> list[int]:
    """Return WordPiece's pieces for what goes on with a word: the longest first, and none if a letter has none."""
    found: list[int] = []
    while word:
        end = next((end for end in range(len(word), 0, -1) if f"{prefix}{word[:end]}" in pieces), 0)
        if not end:
            return []
        found.append(pieces[f"{prefix}{word[:end]}"])
        word = word[end:]
    return found
