"""From a model to its family and its checked FFN sites."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D

from alter.backbones import FAMILIES
from alter.backbones._family import Family
from alter.backbones._heuristic import guess_kind, guess_sites
from alter.errors import ModelError, PluginError, did_you_mean
from alter.nn.site import FFNSite, projection_shape

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

NUM_INPUTS = {"plain": 1, "gated": 2, "fused_gated": 1}
HOW_TO_ADD = "to add a family see docs/how-to/add-a-family.md"


def family_of(model: PreTrainedModel) -> Family:
    """Return the family of a model, by its `config.model_type`; where no family covers it, one that searches by structure.

    Raises:
        ModelError: the model has no config, or is configured as something else than its family is.
    """
    config = getattr(model, "config", None)
    if config is None:
        raise ModelError(f"{type(model).__name__} has no config; pass a transformers model, e.g. from AutoModel.from_pretrained")
    return family_for_config(config, class_name=type(model).__name__)


def family_for_config(config: PreTrainedConfig, *, class_name: str = "") -> Family:
    """Return the family of the models that `config` describes.

    For a model type that no family covers the kind is judged from the config, and `find_sites` searches by structure, which
    may fail; nothing but the model itself can tell.

    Args:
        config: a model's whole config.
        class_name: the class of the model, if it is known.

    Raises:
        ModelError: the model is a decoder of an encoder family.
    """
    model_type = getattr(config, "model_type", None)
    if is_covered(model_type):
        return family_for(model_type, is_decoder=bool(getattr(config, "is_decoder", False)))
    return Family(model_types=(str(model_type),), kind=guess_kind(config, class_name=class_name), find_sites=_guessed_sites)


def is_covered(model_type: str | None) -> bool:
    """Return whether a family covers `model_type`."""
    return str(model_type) in _owners()


def family_for(model_type: str | None, *, is_decoder: bool = False) -> Family:
    """Return the family that covers `model_type`.

    Args:
        model_type: as in a model's config.json.
        is_decoder: the config's `is_decoder`: BERT and its kin can be built to read from left to right only. The decoder half of
            an encoder-decoder model may be such a one; there the flag is left out.

    Raises:
        ModelError: none does, or the model is a decoder of an encoder family.
        PluginError: two families do.
    """
    names = _owners().get(str(model_type), [])
    if not names:
        raise ModelError(f"{_not_supported(model_type)} {HOW_TO_ADD}")
    if len(names) > 1:
        raise PluginError(f"model type '{model_type}' is claimed by the families {names}; uninstall one of the two plug-ins")
    found: Family = FAMILIES.get(names[0])
    if found.kind == "encoder" and is_decoder:
        raise ModelError(
            f"this '{model_type}' model is configured as a decoder (is_decoder: true), but the family '{names[0]}' holds "
            f"encoders; set is_decoder: false in its config, or choose another base model"
        )
    return found


def _owners() -> dict[str, list[str]]:
    """Return model type -> the names of the families that cover it."""
    owners: dict[str, list[str]] = {}
    for name in FAMILIES.names():
        for covered in FAMILIES.get(name).model_types:
            owners.setdefault(covered, []).append(name)
    return owners


def _not_supported(model_type: str | None) -> str:
    return f"model type '{model_type}' is not supported; {did_you_mean(str(model_type), _owners())}"


def _guessed_sites(model: PreTrainedModel) -> list[FFNSite]:
    """Return the sites that a model's structure shows."""
    try:
        return guess_sites(model)
    except ModelError as error:
        model_type = getattr(model.config, "model_type", None)
        raise ModelError(
            f"{_not_supported(model_type)} Its structure does not tell where its FFNs are: {error}; {HOW_TO_ADD}"
        ) from None


def sites_of(model: PreTrainedModel) -> list[FFNSite]:
    """Return the FFN sites of a model, first layer first; every path exists and all shapes fit.

    Raises:
        ModelError: no family covers the model and its structure does not show its FFNs either, it has no FFN, or a site does not
            fit the model.
    """
    sites = family_of(model).find_sites(model)
    if not sites:
        raise ModelError(
            f"{type(model).__name__} has no FFN that its family knows; pass a stock transformers model that nothing has wrapped "
            f"or replaced layers of ({HOW_TO_ADD})"
        )
    for site in sites:
        _check(model, site)
    return sites


def _check(model: PreTrainedModel, site: FFNSite) -> None:
    _module_at(model, site.owner)
    if len(site.inputs) != NUM_INPUTS[site.form]:
        raise ModelError(
            f"site {site.owner}: form {site.form} has {NUM_INPUTS[site.form]} input projection(s), "
            f"but the family names {list(site.inputs)}"
        )
    shapes = {path: _shape(model, path) for path in (*site.inputs, site.down)}
    width, inner = shapes[site.inputs[0]]
    activated = inner // 2 if site.form == "fused_gated" else inner
    halves = site.form != "fused_gated" or inner % 2 == 0
    same = all(shapes[path] == (width, inner) for path in site.inputs)
    if not (halves and same and shapes[site.down] == (activated, width)):
        shown = ", ".join(f"{path} {inputs} -> {outputs}" for path, (inputs, outputs) in shapes.items())
        raise ModelError(f"site {site.owner}: the projections do not fit the form {site.form}: {shown}; {HOW_TO_ADD}")


def _shape(model: PreTrainedModel, path: str) -> tuple[int, int]:
    module = _module_at(model, path)
    if not isinstance(module, nn.Linear | Conv1D):
        raise ModelError(
            f"{path} is a {type(module).__module__}.{type(module).__name__}; allowed: torch's Linear, transformers' Conv1D. "
            f"Pass a stock transformers model; merge adapters of other libraries into it first (peft: merge_and_unload())"
        )
    return projection_shape(module)


def _module_at(model: PreTrainedModel, path: str) -> nn.Module:
    try:
        return model.get_submodule(path)
    except AttributeError:
        raise ModelError(f"{type(model).__name__} has no module '{path}', which its family names as part of an FFN") from None
