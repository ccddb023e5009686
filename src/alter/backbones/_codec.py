"""The way with text of a base model that has been loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._find import family_of
from alter.backbones._load import TARGET_TOKENIZER, load_target_tokenizer
from alter.data.codec import Codec
from alter.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from alter.model_config import AlterConfig
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
    target_tokenizer = load_target_tokenizer(name, revision=revision)
    if target_tokenizer is not None:
        _check_writer(target_tokenizer, base, name)
    return Codec(
        kind=family_of(base).kind,
        tokenizer=tokenizer,
        target_tokenizer=target_tokenizer,
        max_length=settings.max_length,
        max_target_length=settings.max_target_length,
        separator=settings.prompt_separator,
    )


def _check_writer(tokenizer: PreTrainedTokenizerBase, base: PreTrainedModel, name: str) -> None:
    """Refuse a tokenizer of what is written that is not the decoder's."""
    decoder = base.get_submodule("decoder") if hasattr(base, "decoder") else base
    rows = int(decoder.get_input_embeddings().weight.shape[0])  # type: ignore[operator]
    highest = max(tokenizer.get_vocab().values())
    if highest >= rows or tokenizer.pad_token_id is None:
        raise ModelError(
            f"{name}/{TARGET_TOKENIZER}: has ids up to {highest} and {'a' if tokenizer.pad_token_id is not None else 'no'} pad_token, but "
            f"the decoder embeds {rows} tokens and needs one; it belongs to another model, copy the model folder again"
        )
