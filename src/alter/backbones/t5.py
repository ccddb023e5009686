"""T5 and mT5: v1.0 has a plain FFN (`wi`), v1.1 and Flan-T5 a gated one (`wi_0`, `wi_1`); dropout sits before `wo`.

The FFN is the last of a block's sub-layers; a decoder block has cross-attention before it, so its number differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from alter.backbones._family import Family, layers_of
from alter.nn.site import FFNSite

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def find_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return one site per layer, the encoder's first."""
    return [_site(path, block) for path, block in layers_of(model, "T5Block", "MT5Block")]


def _site(path: str, block: nn.Module) -> FFNSite:
    sublayers = block.get_submodule("layer")
    assert isinstance(sublayers, nn.ModuleList)
    inner = f"layer.{len(sublayers) - 1}.DenseReluDense"
    ffn, owner = block.get_submodule(inner), f"{path}.{inner}"
    gated = hasattr(ffn, "wi_0")
    dropout = ffn.get_submodule("dropout")
    assert isinstance(dropout, nn.Dropout)
    return FFNSite(
        owner=owner,
        inputs=(f"{owner}.wi_0", f"{owner}.wi_1") if gated else (f"{owner}.wi",),
        down=f"{owner}.wo",
        activation=ffn.get_submodule("act"),
        form="gated" if gated else "plain",
        dropout=float(dropout.p),
        stack="decoder" if block.is_decoder else "encoder",
    )


FAMILY = Family(model_types=("t5", "mt5"), kind="encoder-decoder", find_sites=find_sites)
