"""How text becomes tokens for one base model, and tokens become text again.

encoder             <input>                            -> a head answers
encoder-decoder     <input>  |  <target> eos           two stacks, and sometimes two tokenizers
decoder             <input> separator <target> eos     one sequence; the loss counts the target alone
chat                what the tokenizer's chat template makes of the messages, then <target> eos

A text that spells a special token says its letters (`special.py`). Chat templates write special tokens, so there the messages' own are
broken by a space; and a separator may be one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from alter.data.special import as_text, broken, special_tokens
from alter.errors import DataError, ModelError
from alter.nn.site import Kind
from alter.tasks.example import Example

Columns = dict[str, list[list[int]]]


@dataclass(frozen=True, kw_only=True)
class Codec:
    """How text becomes tokens for one base model, and back.

    Attributes:
        tokenizer: of inputs.
        kind: how the model reads and writes.
        target_tokenizer: of what the model writes, where it is another one; None: the same.
        max_length: longest input in tokens.
        max_target_length: longest text to write in tokens, its end included.
        separator: between input and target (decoder-only models).
    """

    tokenizer: PreTrainedTokenizerBase
    kind: Kind = "encoder"
    target_tokenizer: PreTrainedTokenizerBase | None = None
    max_length: int = 128
    max_target_length: int = 64
    separator: str = "\n"

    @property
    def writer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of what the model writes."""
        return self.tokenizer if self.target_tokenizer is None else self.target_tokenizer

    def inputs(self, examples: Sequence[Example]) -> tuple[Columns, list[bool]]:
        """Return the tokenizer's columns, a list of ids per example, and which examples were longer than `max_length` and cut."""
        if self.kind == "encoder":
            return self._whole_and_cut(examples)
        if self.kind == "decoder":
            rows = [self._prompt(example) for example in examples]
            return {"input_ids": [ids for ids, _ in rows]}, [cut for _, cut in rows]
        texts = [Example(task=example.task, text=self._text(example), messages=example.messages) for example in examples]
        return self._whole_and_cut(texts)

    def _whole_and_cut(self, examples: Sequence[Example]) -> tuple[Columns, list[bool]]:
        columns = tokenise(examples, self.tokenizer, max_length=None)
        too_long = [len(ids) > self.max_length for ids in columns["input_ids"]]
        rows = [row for row, long in enumerate(too_long) if long]
        if rows:
            cut = tokenise([examples[row] for row in rows], self.tokenizer, max_length=self.max_length)
            for name, values in cut.items():
                for row, value in zip(rows, values, strict=True):
                    columns[name][row] = value
        return columns, too_long

    @cached_property
    def _special(self) -> re.Pattern[str]:
        return special_tokens(self.tokenizer)

    @cached_property
    def _separator_ids(self) -> list[int]:
        return list(self.tokenizer(self.separator, add_special_tokens=False, verbose=False).input_ids)

    def _text(self, example: Example) -> str:
        """Return the whole input as one text."""
        if example.messages:
            return self._chat(example)
        return example.text if example.text_pair is None else f"{example.text}\n{example.text_pair}"

    def _chat(self, example: Example) -> str:
        """Return the conversation in the tokenizer's own chat template, up to where the assistant begins to answer.

        Raises:
            ModelError: the tokenizer has no chat template.
            DataError: the template does not take these messages.
        """
        if not getattr(self.tokenizer, "chat_template", None):
            raise ModelError(
                f"task '{example.task}' is a chat, but the tokenizer of this base model has no chat template; drop `chat`, or choose a "
                f"base model that was made for chats"
            )
        messages = [{"role": role, "content": broken(content, self._special)} for role, content in example.messages]
        try:
            text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            # A template's expressions can fail in any of these ways, e.g. {{ content + 1 }}.
            raise DataError(
                f"{example.place or 'a row'}: task '{example.task}': the base model's chat template refuses the messages ({error}); "
                f"allowed: what its model card says, usually user and assistant in turn"
            ) from None
        assert isinstance(text, str)
        return text

    def _prompt(self, example: Example) -> tuple[list[int], bool]:
        """Return the ids of input and separator; an input that is too long loses its end, a conversation its beginning."""
        if example.messages:
            ids = list(self.tokenizer(self._chat(example), add_special_tokens=False, verbose=False).input_ids)
            return ids[-self.max_length :], len(ids) > self.max_length
        apart = self._special.search(self.separator) is not None  # it is read as what it is, and the text as text
        text = self._text(example) if apart else f"{self._text(example)}{self.separator}"
        ids = list(self.tokenizer(text, verbose=False, **as_text(self.tokenizer)).input_ids)
        # Tokenizers of models that also read may close a text; what follows here must not follow an end.
        if ids and ids[-1] == self.end_id and self.end_id != self.tokenizer.bos_token_id:
            ids.pop()
        tail = self._separator_ids[-self.max_length :]
        if apart:
            ids += tail
        if len(ids) <= self.max_length:
            return ids, False
        return [*ids[: self.max_length - len(tail)], *tail], True

    def targets(self, texts: Sequence[str]) -> tuple[list[list[int]], list[bool]]:
        """Return the ids of texts to write, each with its end, and which were longer than `max_target_length` and cut."""
        if not texts:
            return [], []
        whole = self._written(texts, cut=False)
        too_long = [len(ids) > self.max_target_length for ids in whole]
        if any(too_long):
            rows = [row for row, long in enumerate(too_long) if long]
            for row, ids in zip(rows, self._written([texts[row] for row in rows], cut=True), strict=True):
                whole[row] = ids
        return whole, too_long

    def _written(self, texts: Sequence[str], *, cut: bool) -> list[list[int]]:
        """Return the ids of texts to write: an encoder-decoder's tokenizer frames them itself, a decoder's knows no answers."""
        room: dict[str, Any] = {}
        if cut:
            room = {"truncation": True, "max_length": self.max_target_length - (self.kind == "decoder")}
        own = self.target_tokenizer is not None or self.kind == "decoder"
        encoded: Any = self.writer(
            **{"text" if own else "text_target": list(texts)},
            add_special_tokens=self.kind != "decoder",
            return_attention_mask=False,
            verbose=False,
            **as_text(self.writer),
            **room,
        )
        found = [list(ids) for ids in encoded["input_ids"]]
        last = self.max_target_length - 1 if cut else None
        return [ids if self.end_id in ids[-2:] else [*ids[:last], self.end_id] for ids in found]

    @property
    def start_id(self) -> int:
        """Id that a decoder begins with where the model does not say: a multilingual tokenizer's mark of the language, its texts' last."""
        return self._written(["a"], cut=False)[0][-1]

    @property
    def end_id(self) -> int:
        """Id of the token that ends what the model writes.

        Raises:
            ModelError: the tokenizer has none.
        """
        for found in (self.writer.eos_token_id, self.writer.sep_token_id):
            if isinstance(found, int):
                return found
        raise ModelError(
            "the tokenizer has no eos_token, so nothing can end an answer; set eos_token in its tokenizer_config.json"
        )

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of what a model wrote, up to its end."""
        kept = list(ids)
        if self.end_id in kept:
            kept = kept[: kept.index(self.end_id)]
        text = self.writer.decode(kept, skip_special_tokens=True)
        assert isinstance(text, str)
        return text.strip()


def tokenise(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None) -> Columns:
    """Return the tokenizer's columns. Pairs go apart from single texts: an empty second segment would still cost a separator.

    The texts of chats are a template's, whose special tokens are meant.
    """
    columns: Columns = {}
    kinds = [(example.text_pair is not None, bool(example.messages)) for example in examples]
    for kind in sorted(set(kinds)):
        chosen = [row for row, own in enumerate(kinds) if own == kind]
        part = _tokenise_alike([examples[row] for row in chosen], tokenizer, max_length=max_length)
        for name, values in part.items():
            column = columns.setdefault(name, [[] for _ in examples])
            for row, value in zip(chosen, values, strict=True):
                column[row] = value
    return columns


def _tokenise_alike(examples: Sequence[Example], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None) -> Columns:
    read = {} if examples[0].messages else as_text(tokenizer)
    encoding: Mapping[str, Any] = tokenizer(
        [example.text for example in examples],
        [example.text_pair for example in examples] if examples[0].text_pair is not None else None,
        truncation="longest_first" if max_length is not None else False,
        max_length=max_length,
        return_attention_mask=False,
        verbose=False,
        **read,
    )
    return {name: list(values) for name, values in encoding.items()}
