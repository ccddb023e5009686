"""What a backbone family tells: which models it covers and where their FFNs are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alter.nn.site import FFNSite, Kind

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel

__all__ = ["Family", "Kind", "layers_of"]


@dataclass(frozen=True, kw_only=True)
class Family:
    """One family of pretrained models.

    Attributes:
        model_types: the values of `config.model_type` that belong to the family.
        kind: how a model of the family reads and writes text.
        find_sites: returns the FFN sites of a model, bare or with a head, first layer first; an encoder-decoder's encoder sites come
            before its decoder sites (`FFNSite.stack` says which is which).
    """

    model_types: tuple[str, ...]
    kind: Kind
    find_sites: Callable[[PreTrainedModel], list[FFNSite]]


def layers_of(model: PreTrainedModel, *class_names: str) -> list[tuple[str, nn.Module]]:
    """Return (dotted path, module) of every layer whose class is one of `class_names`, in the model's order.

    A search by class needs no prefix, so it finds the same layers in a bare model and under any head. Base classes count, because
    wrappers (FSDP2 for one) change a module's class to a subclass.
    """
    wanted = set(class_names)
    return [
        (path, module)
        for path, module in model.named_modules()
        if not wanted.isdisjoint(parent.__name__ for parent in type(module).__mro__)
    ]
