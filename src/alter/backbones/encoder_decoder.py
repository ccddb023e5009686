"""transformers' EncoderDecoderModel: an encoder and a decoder of one's choice, e.g. two BERTs; each half keeps its own family."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedModel

from alter.backbones._family import Family
from alter.backbones._find import family_for
from alter.errors import ModelError
from alter.nn.site import FFNSite, Stack


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer, the encoder's first.

    Raises:
        ModelError: no family covers one of the halves, or the encoder is none.
    """
    encoder, decoder = model.get_submodule("encoder"), model.get_submodule("decoder")
    assert isinstance(encoder, PreTrainedModel)
    assert isinstance(decoder, PreTrainedModel)
    # A decoder may be of an encoder family, configured to read from left to right; an encoder may not.
    first = family_for(encoder.config.model_type, is_decoder=bool(getattr(encoder.config, "is_decoder", False)))
    if first.kind != "encoder":
        raise ModelError(
            f"the encoder of this {type(model).__name__} is a '{encoder.config.model_type}', which is no encoder; use one"
        )
    second = family_for(decoder.config.model_type)
    return [*_below("encoder", first.find_sites(encoder)), *_below("decoder", second.find_sites(decoder))]


def _below(half: Stack, sites: list[FFNSite]) -> list[FFNSite]:
    """Return the sites of one half by their paths in the whole."""
    return [
        replace(
            site,
            owner=f"{half}.{site.owner}",
            inputs=tuple(f"{half}.{path}" for path in site.inputs),
            down=f"{half}.{site.down}",
            stack=half,
        )
        for site in sites
    ]


FAMILY = Family(model_types=("encoder-decoder",), kind="encoder-decoder", find_sites=find_sites)
