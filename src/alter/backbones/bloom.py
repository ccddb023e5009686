"""BLOOM. Its `slow_but_exact` mode multiplies slices of `down` by hand and never calls it, so no adapter could be heard there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alter.backbones._family import Family
from alter.backbones._h_to_4h import h_to_4h_sites
from alter.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alter.nn.site import FFNSite


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer.

    Raises:
        ModelError: the model is configured to compute its FFNs slice by slice.
    """
    if model.config.slow_but_exact and model.config.pretraining_tp > 1:
        raise ModelError(
            f"this BLOOM is configured to compute its FFNs in slices (slow_but_exact: true, pretraining_tp: "
            f"{model.config.pretraining_tp}), which passes adapters by; set slow_but_exact: false in its config"
        )
    return h_to_4h_sites(model, "BloomBlock", activation="gelu_impl", stack="decoder")


FAMILY = Family(model_types=("bloom",), kind="decoder", find_sites=find_sites)
