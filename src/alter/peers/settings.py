"""From a recipe's block `peft` to a config of the library peft, with a message that names the key where something is wrong."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from alter.errors import ConfigError, did_you_mean

METHODS = {
    "LORA": "LoraConfig",
    "POLY": "PolyConfig",
    "XLORA": "XLoraConfig",
    "IA3": "IA3Config",
    "LOHA": "LoHaConfig",
    "LOKR": "LoKrConfig",
    "HRA": "HRAConfig",
    "OFT": "OFTConfig",
}
"""peft_type -> its config class: the methods that live in single modules, so that they work inside any base model."""
OURS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "modules_to_save", "peft_version", "revision", "task_type",
}  # fmt: skip
"""Settings that alter itself makes; `adapter_config.json` has them."""
FIXED = {
    "bias": "the base's biases are trained by backbone in stages.stage1.trains",
    "arrow_config": "Arrow trains nothing; it is an arm of alter compare",
    "layer_replication": "the base keeps its layers",
    "trainable_token_indices": "the base's embeddings are trained by backbone in stages.stage1.trains",
    "target_parameters": "alter reaches modules only",
    "alora_invocation_tokens": "alter has no such tokens",
    "monteclora_config": "its loss is not alter's",
    "megatron_config": "alter trains transformers' models",
}
"""Settings of peft that must stay as they are by default, and why."""
STARTS = (True, False, "gaussian", "orthogonal")
"""LoRA's starting values that leave the base's own weights alone and need no rows."""
COUNTS = ("n_skills", "n_splits")
"""Poly's numbers of things, which peft does not look at: with none of them it would train nothing, or fail."""
LAYERS = ("layers_to_transform", "layers_pattern")
"""Settings that peft reads only where `target_modules` are parts of names, and alter's own choice is of whole names."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def is_installed() -> bool:
    """Return whether the library peft is there."""
    return importlib.util.find_spec("peft") is not None


def need_peft(what: str) -> Any:
    """Return the library peft.

    Raises:
        ConfigError: it is not installed; `what` needs it.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(
            f"{what} needs the library peft, which cannot be imported ({error}); pip install 'alter-mta[peft]'"
        ) from None
    return peft


def method_of(settings: Mapping[str, Any], *, backbone: nn.Module, paths: Sequence[str], num_tasks: int) -> Any:
    """Return the config of peft that a recipe's block describes.

    Args:
        settings: the block.
        backbone: the base model.
        paths: dotted paths of all FFN projections, which a method sits on where the block does not say.
        num_tasks: number of tasks.

    Raises:
        ConfigError: peft is not installed, or a setting is unknown or does not fit.
    """
    peft = need_peft("the setting peft")
    kind = settings.get("peft_type")
    if kind not in METHODS:
        raise ConfigError(f"peft.peft_type is {kind!r}; {did_you_mean(str(kind), METHODS)}")
    config_class = getattr(peft, METHODS[kind])
    fields = {one.name: one for one in dataclasses.fields(config_class) if one.init and one.name not in OURS | {"peft_type"}}
    given = {name: value for name, value in settings.items() if name != "peft_type"}
    for name, value in given.items():
        _check(name, value, fields, kind)
    if kind == "XLORA":
        _check_experts(given.get("adapters"))
        given.setdefault("hidden_size", _width(backbone))
    elif chosen := [name for name in LAYERS if given.get(name) is not None and given.get("target_modules") is None]:
        raise ConfigError(
            f"peft.{chosen[0]} is {given[chosen[0]]!r}, which peft reads only beside target_modules; add them by the ends of their names, "
            f"e.g. [output.dense]"
        )
    elif kind != "IA3":  # which scales some modules' inputs and others' outputs: only its user can say
        given.setdefault("target_modules", list(paths))
    if kind == "POLY" and given.setdefault("n_tasks", num_tasks) != num_tasks:
        raise ConfigError(f"peft.n_tasks is {given['n_tasks']}, but the recipe has {num_tasks} tasks; leave it out")
    if "fan_in_fan_out" in fields:
        given.setdefault("fan_in_fan_out", any(isinstance(module, Conv1D) for module in backbone.modules()))
    try:
        return config_class(**given)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"peft does not take these settings of {kind} ({error}); change the block peft") from None


def _check(name: str, value: Any, fields: Mapping[str, dataclasses.Field[Any]], kind: str) -> None:
    """Refuse a setting that peft does not know, that alter makes itself, or whose value is of another type than peft's default."""
    if name in OURS:
        raise ConfigError(f"peft.{name} is made by alter; leave it out of the block peft")
    if name not in fields:
        raise ConfigError(f"peft has no setting '{name}' for {kind}; {did_you_mean(name, fields)}")
    standard = fields[name].default
    if name in FIXED and value != standard:
        raise ConfigError(f"peft.{name} is {value!r}; {FIXED[name]}. Leave it out")
    if name == "init_lora_weights" and value not in STARTS:
        raise ConfigError(
            f"peft.init_lora_weights is {value!r}, which changes the base's own weights or needs rows; allowed: "
            f"{', '.join(str(start).lower() for start in STARTS)}"
        )
    wanted = next((kind for kind in (bool, int, float, str) if type(standard) is kind), None)
    fits = (
        isinstance(value, int | float) and not isinstance(value, bool)
        if wanted in (int, float)
        else isinstance(value, wanted or object)
    )
    if not fits and name != "init_lora_weights":
        raise ConfigError(f"peft.{name} is {value!r}; peft takes a value like {standard!r}")
    if name in COUNTS and value < 1:
        raise ConfigError(f"peft.{name} is {value!r}; it must be at least 1")


def _check_experts(adapters: Any) -> None:
    if not isinstance(adapters, dict) or len(adapters) < 2:
        raise ConfigError(
            f"peft.adapters is {adapters!r}; X-LoRA weighs trained LoRAs: name at least two, e.g. {{intent: FOLDER, area: FOLDER}}, each "
            f"a folder in peft's layout (adapters/<task>/ of a model directory is one)"
        )
    wrong = [name for name in adapters if not isinstance(name, str) or not _NAME.fullmatch(name)]
    if wrong:
        raise ConfigError(f"peft.adapters names {wrong}; allowed: letters, digits, '_', '.' and '-', as in the names of tasks")


def _width(backbone: Any) -> int:
    """Return the width of the states that X-LoRA's gate reads."""
    return int(backbone.config.get_text_config().hidden_size)
