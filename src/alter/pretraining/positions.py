"""How many tokens a model has positions for."""

from __future__ import annotations

from transformers import PreTrainedConfig

NO_LIMIT = 10**9
AFTER_PADDING = (
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
    "camembert",
    "data2vec-text",
    "mpnet",
    "longformer",
)
"""Model types that count positions from behind the padding token's id on, and so have fewer than their configuration says."""


def positions(config: PreTrainedConfig) -> int:
    """Return how many tokens a model reads or writes; one with relative positions has no limit."""
    limit = getattr(config, "max_position_embeddings", None)
    if not isinstance(limit, int) or limit <= 0:
        return NO_LIMIT
    padding = getattr(config, "pad_token_id", None)
    if config.model_type in AFTER_PADDING and isinstance(padding, int):
        return limit - padding - 1
    return limit


def before_first_position(rows: int, config: PreTrainedConfig) -> int:
    """Return how many rows of a table of positions come before that of a text's first token: RoBERTa's and BART's begin later.

    Args:
        rows: of the table.
        config: of its model.
    """
    return max(rows - positions(config), 0)
