"""The model directory: what ships. Readable without our code; adapters of kind `lora` are in PEFT's own layout.

    model/
        alter_config.json            the base, the MTA, the tasks with labels, templates and metrics
        adapters/<task>/             adapter_config.json, adapter_model.safetensors
        shared/<j>/                  the same for each shared adapter
        adapters/peft/               instead of both, where a method of peft was trained; X-LoRA's LoRAs are in experts/<name>/
        gates.safetensors            selector and gate of every site
        heads.safetensors            one head per task
        backbone.safetensors         only where training changed the backbone (preset alter)
        README.md                    model card

Shapes: L sites.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from alter.backbones._codec import codec_for
from alter.backbones._load import base_fingerprint, load_base
from alter.data.codec import Codec
from alter.data.encode import Scale
from alter.errors import CheckpointError, ConfigError, did_you_mean
from alter.model import MTAModel
from alter.model_config import CHANGED, CONFIG, AlterConfig, load_config, model_folder, write_config
from alter.peers.injected import read_settings, write_folders
from alter.peers.settings import need_peft
from alter.results import write_json, write_text
from alter.tensors import load_tensors, save_tensors, whole_folder


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model directory, loaded."""

    config: AlterConfig
    model: MTAModel
    codec: Codec
    scales: Mapping[str, Scale]


def adapter_folder(names: Sequence[str], position: int, num_adapters: int) -> str:
    """Return where an adapter lies: `adapters/<task>` for task adapters, `shared/<j>` for shared ones."""
    if position >= num_adapters:
        return f"shared/{position - num_adapters}"
    return f"adapters/{names[position] if num_adapters == len(names) else f'adapter-{position}'}"


def save_model(model: MTAModel, config: AlterConfig, folder: Path, *, card: str, resumable: bool = True) -> None:
    """Write a model directory whole or not at all; one that is there already is replaced.

    Args:
        model: the model.
        config: what alter_config.json says.
        folder: where it goes.
        card: what README.md says.
        resumable: whether the remedy for a failed write is `--resume`.

    Raises:
        TrainingError: the disk is full; what was there before is untouched.
    """
    groups = model.parameter_groups()
    with whole_folder(folder, resumable=resumable) as draft:
        for position in _adapters_of(model):
            _save_adapter(model, config, position, draft / adapter_folder(model.task_names, position, model.num_adapters))
        if model.injected is not None:
            write_folders(
                model.injected, model.backbone, draft, base=config.base.name, revision=config.base.revision, kind=model.kind
            )
        save_tensors(_router_tensors(model), draft / "gates.safetensors")
        if groups["heads"]:
            save_tensors(groups["heads"], draft / "heads.safetensors")
        if config.base.trained:
            save_tensors(groups["backbone"], draft / "backbone.safetensors")
        write_config(config, draft)
        write_text(card, draft / "README.md")


def _router_tensors(model: MTAModel) -> dict[str, torch.nn.Parameter]:
    """Return the parameters of selectors and gates; those of a method of peft lie with it."""
    groups = model.parameter_groups()
    return {**groups["selector"], **groups["gate"]} if model.injected is None else {}


def _adapters_of(model: MTAModel) -> range:
    """Return the adapters that a model directory holds: all, or none where no site carries any."""
    return range(model.num_adapters + model.settings.num_shared if model.mtas else 0)


def _adapter_tensors(model: MTAModel, position: int) -> dict[str, torch.nn.Parameter]:
    """Return one adapter's parameters at all sites, by the names they have on disk."""
    found: dict[str, torch.nn.Parameter] = {}
    for ffn, mta in zip(model.ffns, model.mtas, strict=True):
        adapters = mta.bank.adapters
        assert isinstance(adapters, torch.nn.ModuleList)
        for name, parameter in adapters[position].named_parameters():
            if model.settings.adapter.kind == "lora":
                matrix, _, projection = name.partition(".")
                found[f"base_model.model.{ffn.paths[int(projection)]}.{matrix}.weight"] = parameter
            else:
                found[f"{ffn.site.owner}.{name}"] = parameter
    return found


def _save_adapter(model: MTAModel, config: AlterConfig, position: int, folder: Path) -> None:
    folder.mkdir(parents=True)
    save_tensors(_adapter_tensors(model, position), folder / "adapter_model.safetensors")
    write_json(_adapter_config(model, config), folder / "adapter_config.json")


def _adapter_config(model: MTAModel, config: AlterConfig) -> dict[str, Any]:
    """Return PEFT's adapter_config.json for LoRA; for the other kinds a plain description that PEFT refuses to load."""
    adapter = model.settings.adapter
    common = {"base_model_name_or_path": config.base.name, "revision": config.base.revision, "alter_kind": adapter.kind}
    if adapter.kind != "lora":
        return {**common, "peft_type": None, "sites": [ffn.site.owner for ffn in model.ffns], "r": adapter.r}
    return {
        "base_model_name_or_path": config.base.name,
        "bias": "none",
        "fan_in_fan_out": any(isinstance(module, Conv1D) for ffn in model.ffns for module in ffn.projections),
        "inference_mode": True,
        "lora_alpha": adapter.lora_alpha,
        "lora_dropout": adapter.dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": adapter.r,
        "revision": config.base.revision,
        "target_modules": sorted(path for ffn in model.ffns for path in ffn.paths),
        "task_type": {"encoder": "FEATURE_EXTRACTION", "encoder-decoder": "SEQ_2_SEQ_LM", "decoder": "CAUSAL_LM"}[model.kind],
        "use_rslora": False,
    }


def choose_device(device: torch.device | str | None = None) -> torch.device:
    """Return the device to answer on: by default a CUDA device where there is one, otherwise the CPU.

    Raises:
        ConfigError: this machine has no such device.
    """
    cuda = [f"cuda:{position}" for position in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    allowed = ["cpu", *(["cuda"] if cuda else []), *cuda, *(["mps"] if torch.backends.mps.is_available() else [])]
    chosen = str(device) if device is not None else "cuda" if cuda else "cpu"
    if chosen not in allowed:
        raise ConfigError(f"this machine has no device '{chosen}'; {did_you_mean(chosen, allowed)}")
    return torch.device(chosen)


def load_model(path: str | Path, *, device: torch.device | str | None = None, base: str | None = None) -> Loaded:
    """Load a model directory onto its base.

    Args:
        path: a model directory, or the run directory above it.
        device: where to put the model; by default a CUDA device where there is one, otherwise the CPU.
        base: where the base is now, if not where the directory says; it must be the same base.

    Raises:
        ConfigError: this machine has no such device.
        CheckpointError: truncated, foreign, or its base is another model now.
        ModelError: the base cannot be loaded.
    """
    chosen = choose_device(device)
    folder = model_folder(path)
    config = load_config(folder)
    name, revision = (config.base.name, config.base.revision) if base is None else (base, None)
    backbone, tokenizer = load_base(name, revision=revision)
    codec = codec_for(backbone, tokenizer, config, name=name, revision=revision)
    fingerprint = base_fingerprint(backbone)
    if fingerprint != config.base.fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on another '{name}' (fingerprint {config.base.fingerprint}) than the one found here "
            f"({fingerprint}); its adapters would give wrong answers. Install the base it was trained on"
        )
    num_outputs = [1 if task.kind == "regression" else len(task.labels or []) for task in config.tasks]
    names = [task.name for task in config.tasks]
    try:
        model = MTAModel(
            backbone,
            task_names=names,
            settings=config.mta,
            num_outputs=num_outputs,
            heads=config.heads,
            parts=config.parts,
            peft=None if config.peft is None else read_settings(folder),
        )
    except ConfigError as error:
        if config.peft is not None:
            need_peft(f"{folder}, trained with a method of it,")
        raise CheckpointError(f"{folder / CONFIG}: {error}. {CHANGED}") from None
    _load_parameters(model, config, folder)
    model.router = config.router
    model.to(chosen)
    model.eval()
    scales = {task: Scale(mean=mean, std=std) for task, (mean, std) in config.scales.items()}
    return Loaded(config=config, model=model, codec=codec, scales=scales)


def _load_parameters(model: MTAModel, config: AlterConfig, folder: Path) -> None:
    groups = model.parameter_groups()
    for position in _adapters_of(model):
        path = folder / adapter_folder(model.task_names, position, model.num_adapters) / "adapter_model.safetensors"
        _fill(_adapter_tensors(model, position), path)
    for name, (_, tensors) in ({} if model.injected is None else model.injected.folders(model.backbone)).items():
        _fill(tensors, folder / name / "adapter_model.safetensors")
    _fill(_router_tensors(model), folder / "gates.safetensors")
    if groups["heads"]:
        _fill(groups["heads"], folder / "heads.safetensors")
    if config.base.trained:
        _fill(groups["backbone"], folder / "backbone.safetensors")


def _fill(parameters: Mapping[str, torch.Tensor], path: Path) -> None:
    """Copy a file's tensors into parameters; every name and shape must fit.

    Raises:
        CheckpointError: one does not.
    """
    tensors = load_tensors(path)
    missing, extra = sorted(parameters.keys() - tensors.keys()), sorted(tensors.keys() - parameters.keys())
    if missing or extra:
        raise CheckpointError(
            f"{path}: does not fit its alter_config.json: missing {missing[:3] or 'none'}, unexpected {extra[:3] or 'none'} "
            f"({len(missing)} and {len(extra)} in all); the directory mixes files of different models, copy it again"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            if tensors[name].shape != parameter.shape:
                shapes = f"{tuple(tensors[name].shape)} in the file, {tuple(parameter.shape)} expected"
                raise CheckpointError(f"{path}: {name} has another shape ({shapes}); the file belongs to another model")
            parameter.copy_(tensors[name])
