"""The rank at which one LoRA is as large as a whole Mixture-of-Task-Adapters, the fair single adapter; and bottlenecks' width likewise.

"One higher-rank LoRA matches multi-adapter systems" (Align-LoRA, arXiv 2508.05078) is a claim that a comparison must be able to see.
"""

from __future__ import annotations

from transformers import PreTrainedModel

from alter.backbones._find import sites_of
from alter.comparing.changes import lora_sites
from alter.mta_settings import ADAPTERS
from alter.nn.ffn import FFN, find_ffn
from alter.nn.site import choose_sites, projection_shape
from alter.recipe import Recipe


def matched_rank(base: PreTrainedModel, recipe: Recipe) -> int:
    """Return the rank of one LoRA with as many parameters as all adapters of the recipe together, rounded, at least 1."""
    ffns = [find_ffn(base, site) for site in sites_of(base)]
    per_rank = sum(_lora_size(ffn) for ffn in chosen(ffns, lora_sites(recipe)))
    return max(1, round(size_of_mta(ffns, recipe) / per_rank))


def matched_width(base: PreTrainedModel, recipe: Recipe) -> int:
    """Return the inner width of bottlenecks, one a task and one for all, as large as all adapters of the recipe together.

    Rounded, and at least 1: weights of adapters by task, a number each, are not counted.
    """
    ffns = [find_ffn(base, site) for site in sites_of(base)]
    sites = chosen(ffns, lora_sites(recipe))
    per_unit = sum(ffn.dim + ffn.output_dim + 1 for ffn in sites)  # a column of U, a row of D and its bias
    outputs = sum(ffn.output_dim for ffn in sites)  # U's bias
    return max(1, round((size_of_mta(ffns, recipe) / (len(recipe.tasks) + 1) - outputs) / per_unit))


def size_of_mta(ffns: list[FFN], recipe: Recipe) -> int:
    """Return the parameters of all adapters of the recipe together."""
    adapters = (recipe.mta.num_adapters or len(recipe.tasks)) + recipe.mta.num_shared
    return sum(_adapter_size(ffn, recipe) for ffn in chosen(ffns, recipe.mta.sites)) * adapters


def chosen(ffns: list[FFN], sites: str | list[int]) -> list[FFN]:
    """Return the FFNs that a recipe's `sites` names."""
    num_encoder = sum(ffn.site.stack == "encoder" for ffn in ffns)
    return [ffns[position] for position in choose_sites(sites, num_encoder, num_decoder_layers=len(ffns) - num_encoder)]


def _adapter_size(ffn: FFN, recipe: Recipe) -> int:
    """Return the parameters of one adapter at a site, of whatever kind."""
    bank = ADAPTERS.get(recipe.mta.adapter.kind)(ffn, recipe.mta.adapter, num_adapters=1)
    return sum(parameter.numel() for parameter in bank.parameters())


def _lora_size(ffn: FFN) -> int:
    """Return the parameters of one rank of LoRA on a site's projections: a row of A and a column of B each."""
    return sum(sum(projection_shape(projection)) for projection in ffn.projections)
