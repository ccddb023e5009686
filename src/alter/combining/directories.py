"""Models of alter, trained on one base: what all of them must have in common, and one model that answers the tasks of all.

Each task keeps its head, its adapters and its part's selector, gate and shared adapters (`alter.nn.parts`): a merged model of parts with
a frozen base answers as its parts do, but for texts that one of them would have cut, since `max_length` and `max_target_length` are the
largest of all parts. Backbones that were trained are merged by a method, so there the answers change.

Files are copied, or their tensors renamed; the result is loaded once before it takes its place.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from alter.backbones._load import base_fingerprint, load_base
from alter.checkpoint import adapter_folder, load_model
from alter.combining.finite import all_finite, finite, finite_result
from alter.combining.report import MergeReport, told
from alter.combining.tensor_folder import TensorFolder
from alter.errors import CheckpointError, ConfigError
from alter.merging._method import Method
from alter.merging._vectors import Changed, TaskVector, squared_norms
from alter.model_config import AlterConfig, load_config, model_folder, write_config
from alter.mta_settings import PartSettings
from alter.results import write_text
from alter.tensors import load_tensors, save_tensors, whole_folder
from alter.version import __version__


@dataclass(frozen=True, kw_only=True)
class Directory:
    """A model directory to merge.

    Attributes:
        given: as the caller named it.
        folder: the model directory.
        config: its config, with the base where it is now.
        base: where the base is now; None: where the directory says.
    """

    given: str
    folder: Path
    config: AlterConfig
    base: str | None = None

    @property
    def num_adapters(self) -> int:
        """Task adapters."""
        return self.config.mta.num_adapters or len(self.config.tasks)

    @property
    def parts(self) -> list[PartSettings]:
        """Itself, or what it was merged from."""
        config = self.config
        return list(config.parts) or [
            PartSettings(
                name=config.name,
                num_tasks=len(config.tasks),
                num_adapters=self.num_adapters,
                num_shared=config.mta.num_shared,
                router=config.router,
                selector=config.mta.selector,
                gate=config.mta.gate,
            )
        ]


def read_directories(models: Sequence[str], *, base: str | None) -> list[Directory]:
    """Read the configs of models to merge, and check that they fit together.

    Args:
        models: run directories or model directories.
        base: where the base is now, if not where the models say.

    Raises:
        CheckpointError: a config cannot be read.
        ConfigError: with the first difference between two models, or the task that two of them have.
    """
    found = []
    for model in models:
        folder = model_folder(model)
        config = load_config(folder)
        if config.peft is not None:
            raise ConfigError(
                f"{model}: was trained with {config.peft['peft_type']} of the library peft, and alter merge merges models with an MTA; "
                f"leave it out, or train its tasks with an MTA"
            )
        if base is not None:
            config = config.model_copy(update={"base": config.base.model_copy(update={"name": base, "revision": None})})
        found.append(Directory(given=model, folder=folder, config=config, base=base))
    for other in found[1:]:
        _check_same(found[0], other)
    seen: dict[str, str] = {}
    for directory in found:
        for task in directory.config.tasks:
            if task.name in seen:
                raise ConfigError(
                    f"{directory.given}: the task '{task.name}' is in {seen[task.name]} too, and a merged model has each task once; train "
                    f"one of them under another task name, or leave one model out"
                )
            seen[task.name] = directory.given
    return found


def _check_same(first: Directory, other: Directory) -> None:
    one, two = first.config, other.config
    if one.base.fingerprint != two.base.fingerprint:
        raise ConfigError(
            f"{other.given}: its base is '{two.base.name}' (fingerprint {two.base.fingerprint}), and that of {first.given} is "
            f"'{one.base.name}' ({one.base.fingerprint}); only models trained on one base can be merged"
        )
    adapter = ("kind",) if one.mta.adapter.kind == "ffn_clone" else ("kind", "r", "lora_alpha")
    told = [(f"mta.adapter.{key}", getattr(one.mta.adapter, key), getattr(two.mta.adapter, key)) for key in adapter]
    told += [("mta.sites", one.mta.sites, two.mta.sites)]
    told += [(f"heads.{key}", getattr(one.heads, key), getattr(two.heads, key)) for key in ("kind", "pooling")]
    told += [("prompt_separator", one.prompt_separator, two.prompt_separator)]
    for key, left, right in told:
        if left != right:
            raise ConfigError(
                f"{other.given}: its {key} is {right!r}, and that of {first.given} is {left!r}; a merged model has one for all tasks, so "
                f"only models with the same {key} can be merged"
            )


def load_zero(directories: Sequence[Directory]) -> dict[str, torch.Tensor]:
    """Return the base's parameters by the names that backbone.safetensors has, checked against the models' fingerprint.

    Raises:
        ModelError: the base cannot be loaded.
        CheckpointError: it is another one than the models were trained on.
    """
    info = directories[0].config.base
    base, _ = load_base(info.name, revision=info.revision)
    found = base_fingerprint(base)
    if found != info.fingerprint:
        raise CheckpointError(
            f"{directories[0].given}: was trained on another base (fingerprint {info.fingerprint}) than '{info.name}' ({found}); give the "
            f"base it was trained on: --base BASE"
        )
    return {f"backbone.{name}": parameter.detach() for name, parameter in base.named_parameters()}


def merge_directories(
    directories: Sequence[Directory], *, method: Method | None, statistics: Sequence[TaskVector], output_dir: Path
) -> MergeReport:
    """Put models together, each task with its own adapters; see `alter.combining.run.merge`."""
    trained = [directory for directory in directories if directory.config.base.trained]
    if trained and method is None:
        raise ConfigError(
            f"{trained[0].given}: its backbone was trained, so the backbones must be merged; add --method, e.g. --method ties"
        )
    if not trained and method is not None:
        raise ConfigError(
            f"--method {method.name} has nothing to do: all models share one frozen base, and each task keeps its adapters. Leave --method "
            f"out, or add --adapters merge to make one adapter of all"
        )
    zero = load_zero(directories)
    backbone: dict[str, torch.Tensor] = {}
    lengths: dict[str, float] = {}
    if method is not None:
        vectors = _backbone_vectors(directories, zero)
        whole = sum(float(zero[name].double().square().sum()) for name in vectors[0])
        norms = squared_norms(vectors).tolist()
        lengths = {each.given: (norm / whole) ** 0.5 for each, norm in zip(directories, norms, strict=True)}
        backbone = {
            name: finite_result(name, (zero[name] + change).float())
            for name, change in method.merge(vectors, statistics=statistics)
        }
    config = _whole_config(directories, name=output_dir.name)
    report = MergeReport(
        folder=output_dir,
        kind="model",
        models=[directory.given for directory in directories],
        tasks=[task.name for task in config.tasks],
        lengths=lengths,
        **told(method),
    )
    with whole_folder(output_dir, resumable=False) as draft:
        _copy_adapters(directories, draft)
        save_tensors(dict(_renamed(directories, "gates.safetensors")), draft / "gates.safetensors")
        if (directories[0].folder / "heads.safetensors").exists():
            save_tensors(dict(_renamed(directories, "heads.safetensors")), draft / "heads.safetensors")
        if backbone:
            save_tensors(backbone, draft / "backbone.safetensors")
        write_config(config, draft)
        write_text(report.card(config.base.name), draft / "README.md")
        load_model(draft, device="cpu")  # checks every name and shape
    return report


def _backbone_vectors(directories: Sequence[Directory], zero: Mapping[str, torch.Tensor]) -> list[TaskVector]:
    """Return what each model changed of the base; of one with a frozen base nothing."""
    files = {each.given: TensorFolder(each.folder / "backbone.safetensors") for each in directories if each.config.base.trained}
    first_name, first = next(iter(files.items()))
    for name, other in files.items():
        if odd := sorted((first.keys() ^ other.keys()) | (other.keys() - zero.keys())):
            raise CheckpointError(
                f"{name}: its backbone.safetensors does not fit that of {first_name} or the base, e.g. '{odd[0]}'; copy the models again"
            )
    return [
        Changed(files[each.given], partial(_minus, zero, each)) if each.given in files else Changed(first, _nothing)
        for each in directories
    ]


def _minus(zero: Mapping[str, torch.Tensor], model: Directory, name: str, tensor: torch.Tensor) -> torch.Tensor:
    return finite(name, tensor, of=model.given) - finite(name, zero[name], of=model.config.base.name).double()


def _nothing(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(tensor)


def _whole_config(directories: Sequence[Directory], *, name: str) -> AlterConfig:
    first = directories[0].config
    parts = [part for directory in directories for part in directory.parts]
    tasks = [task for directory in directories for task in directory.config.tasks]
    num_adapters = sum(part.num_adapters for part in parts)
    wholes = {
        "num_adapters": None if num_adapters == len(tasks) else num_adapters,
        "num_shared": sum(p.num_shared for p in parts),
    }
    return first.model_copy(
        update={
            "alter_version": __version__,
            "name": name,
            "base": first.base.model_copy(update={"trained": any(each.config.base.trained for each in directories)}),
            "router": "gate" if any(part.router == "gate" for part in parts) else "selector",
            "max_length": max(each.config.max_length for each in directories),
            "max_target_length": max(each.config.max_target_length for each in directories),
            "mta": first.mta.model_copy(update=wholes),
            "tasks": tasks,
            "scales": {task: scale for each in directories for task, scale in each.config.scales.items()},
            "parts": parts,
        }
    )


def _copy_adapters(directories: Sequence[Directory], draft: Path) -> None:
    if directories[0].config.mta.sites == "none":  # plain fine-tuning: all that it learned is in the backbone and the heads
        return
    names = [task.name for each in directories for task in each.config.tasks]
    num_adapters = sum(each.num_adapters for each in directories)
    task, shared = 0, num_adapters
    for each in directories:
        own = [spec.name for spec in each.config.tasks]
        for position in range(each.num_adapters + each.config.mta.num_shared):
            is_shared = position >= each.num_adapters
            place = adapter_folder(names, shared if is_shared else task, num_adapters)
            source = each.folder / adapter_folder(own, position, each.num_adapters)
            if not source.is_dir():
                raise CheckpointError(f"{source}: no such folder; the model directory is incomplete, copy it again")
            all_finite(load_tensors(source / "adapter_model.safetensors"), of=each.given)
            shutil.copytree(source, draft / place)
            task, shared = (task, shared + 1) if is_shared else (task + 1, shared)


def _renamed(directories: Sequence[Directory], file: str) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the tensors of all models' gates or heads by the names that they have in the whole."""
    part, task = 0, 0
    for each in directories:
        for name, tensor in all_finite(load_tensors(each.folder / file), of=each.given).items():
            if file == "heads.safetensors":
                yield _counted_on(r"^(heads\.heads\.)(\d+)", name, task), tensor
            elif each.config.parts:
                yield _counted_on(r"(\.mta\.(?:selector|gate)\.members\.)(\d+)", name, part), tensor
            else:
                yield re.sub(r"(\.mta\.(?:selector|gate)\.)", rf"\g<1>members.{part}.", name), tensor
        part += len(each.parts)
        task += len(each.config.tasks)


def _counted_on(pattern: str, name: str, first: int) -> str:
    """Return `name` with the number that `pattern` finds in it raised by `first`."""
    found = re.search(pattern, name)
    return name if found is None else f"{name[: found.start(2)]}{int(found[2]) + first}{name[found.end(2) :]}"
