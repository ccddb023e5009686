"""The way with text of a base model that has been loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._find import family_of
from alter.backbones._load import load_target_tokenizer
from alter.data.codec import Codec

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alter.checkpoint import AlterConfig
    from alter.recipe import Recipe


def codec_for(
    base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: Recipe | AlterConfig, *, name: str, revision: str | None
) -> Codec:
    """Return the codec of a base model.

    Args:
        base: from `load_base`.
        tokenizer: from `load_base`.
        settings: how long texts may be, and what stands between input and answer.
        name: the base model's name.
        revision: of a hub model.
    """
    return Codec(
        kind=family_of(base).kind,
        tokenizer=tokenizer,
        target_tokenizer=load_target_tokenizer(name, revision=revision),
        max_length=settings.max_length,
        max_target_length=settings.max_target_length,
        separator=settings.prompt_separator,
    )
