"""LoRA adapters of models on one frozen base become one adapter that all tasks use.

    what task t changes at a projection     D_t = scale * sum_i w_ti B_i A_i      (all adapters that it uses, by their weights)
    merged by a method                      D   = f(D_1, .., D_T)
    cut to rank r                           B A, the r largest singular values of D

The weights must depend on the task alone, as under the gates adamix, one_hot, selector, table, taps, task and uniform; a gate that reads
the text leaves no one D_t. The result has one task adapter, no shared ones, and a head for each task.

Shapes: O outputs and I inputs of a projection, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch

from alter.backbones._load import load_base
from alter.checkpoint import load_model, save_model
from alter.combining.directories import Directory
from alter.combining.finite import finite, finite_result
from alter.combining.report import MergeReport, told
from alter.errors import ConfigError
from alter.merging._method import Method
from alter.merging._vectors import TaskVector, squared_norms
from alter.model import MTAModel
from alter.model_config import AlterConfig
from alter.mta_settings import TASK_LEVEL, AdapterSettings, GateSettings
from alter.nn.routing import Route
from alter.tasks.spec import TaskSpec
from alter.version import __version__


class LoRAVector(TaskVector):
    """What one task changes: weight of a projection -> scale * sum_i w_i B_i A_i, multiplied out when it is asked for."""

    def __init__(self, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]]) -> None:
        self._pairs = pairs

    def __getitem__(self, name: str) -> torch.Tensor:
        b_OR, a_RI = self._pairs[name]
        return b_OR.double() @ a_RI.double()

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)


@dataclass(frozen=True, kw_only=True)
class _Task:
    spec: TaskSpec
    vector: LoRAVector
    head: dict[str, torch.Tensor]


def merge_adapters(
    directories: Sequence[Directory], *, method: Method, rank: int | None, statistics: Sequence[TaskVector], output_dir: Path
) -> MergeReport:
    """Make one adapter of all tasks' adapters; see `alter.combining.run.merge`."""
    for directory in directories:
        _check_foldable(directory)
    tasks = [task for directory in directories for task in _tasks_of(directory)]
    if len(tasks) < 2:
        raise ConfigError(
            f"{directories[0].given}: has one task, and there is nothing to merge its adapter with; give at least two tasks"
        )
    chosen = rank or directories[0].config.mta.adapter.r
    vectors = [task.vector for task in tasks]
    model, config = _empty(directories, [task.spec for task in tasks], chosen, name=output_dir.name)
    _check_rank(model, chosen)
    norms = squared_norms(vectors).sqrt().tolist()
    lost = whole = 0.0
    pairs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for name, change_OI in method.merge(vectors, statistics=statistics):
        b_OR, a_RI = cut(finite_result(name, change_OI), chosen)
        lost += float((change_OI - b_OR @ a_RI).square().sum())
        whole += float(change_OI.square().sum())
        pairs[name] = (b_OR, a_RI)
    _fill(model, pairs, [task.head for task in tasks])
    report = MergeReport(
        folder=output_dir,
        kind="adapter",
        models=[directory.given for directory in directories],
        tasks=[task.spec.name for task in tasks],
        lengths={task.spec.name: norm for task, norm in zip(tasks, norms, strict=True)},
        relative_error=(lost / whole) ** 0.5 if whole else 0.0,
        **told(method),
    )
    save_model(model, config, output_dir, card=report.card(config.base.name), resumable=False)
    return report


def cut(change_OI: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return B (O, R) and A (R, I) whose product is the nearest matrix of rank R; both carry the square roots of its values."""
    left_OR, values_R, right_RI = torch.linalg.svd(change_OI, full_matrices=False)
    roots_R = values_R[:rank].sqrt()
    return left_OR[:, :rank] * roots_R, roots_R[:, None] * right_RI[:rank]


def _check_foldable(directory: Directory) -> None:
    config = directory.config
    if config.mta.sites == "none":
        raise ConfigError(
            f"{directory.given}: it has no adapters (mta.sites is none), so there are none to merge. Leave --adapters merge out"
        )
    if config.mta.adapter.kind != "lora":
        raise ConfigError(
            f"{directory.given}: its adapters are of kind {config.mta.adapter.kind}, and --adapters merge is for lora alone: the "
            f"others are no change of the base's weights. Leave --adapters merge out"
        )
    if config.base.trained:
        raise ConfigError(
            f"{directory.given}: its backbone was trained with its adapters, and --adapters merge needs a frozen one; leave it out"
        )
    for part in directory.parts:
        for role in ("selector", "gate") if part.router == "gate" else ("selector",):
            kind = getattr(part, role).kind
            if kind not in TASK_LEVEL:
                raise ConfigError(
                    f"{directory.given}: its {role} is of kind {kind}, which weighs adapters by the text, so that a task has no one "
                    f"change of the weights; --adapters merge needs one of {', '.join(TASK_LEVEL)}. Leave --adapters merge out"
                )


def _check_rank(model: MTAModel, rank: int) -> None:
    sizes = {name: min(b_OR.shape[0], a_RI.shape[1]) for name, (b_OR, a_RI) in _places(model).items()}
    least = min(sizes.values())
    if rank > least:
        raise ConfigError(f"--rank is {rank}, and the smallest projection has {least} inputs or outputs; allowed: 1 to {least}")


def _tasks_of(directory: Directory) -> list[_Task]:
    loaded = load_model_of(directory)
    with torch.no_grad():
        vectors = _vectors(loaded, of=directory.given)
    found = []
    for position, spec in enumerate(directory.config.tasks):
        prefix = f"heads.heads.{position}."
        head = {
            name.removeprefix(prefix): finite(name, parameter.detach(), of=directory.given)
            for name, parameter in loaded.parameter_groups()["heads"].items()
            if name.startswith(prefix)
        }
        found.append(_Task(spec=spec, vector=vectors[position], head=head))
    return found


def load_model_of(directory: Directory) -> MTAModel:
    """Load a directory's model on the CPU, onto the base that the directory is read with."""
    return load_model(directory.folder, device="cpu", base=directory.base).model


def _vectors(model: MTAModel, *, of: str) -> list[LoRAVector]:
    """Return what each task changes: B's columns and A's rows of the adapters it uses, side by side, B times weight and scale.

    Raises:
        CheckpointError: the model, named `of`, has numbers there that are not finite.
    """
    settings = model.settings.adapter
    scale = settings.lora_alpha / settings.r
    found: list[dict[str, tuple[torch.Tensor, torch.Tensor]]] = [{} for _ in model.task_names]
    for ffn, mta in zip(model.ffns, model.mtas, strict=True):
        with model.routed(Route(task_ids_B=torch.arange(len(model.task_names)))):
            weights_TE = mta.weigh(torch.zeros(len(model.task_names), 1, ffn.dim)).dense(mta.num_adapters + mta.num_shared)
        adapters = list(cast(Any, mta.bank.adapters))
        for pairs, weights_E in zip(found, weights_TE.tolist(), strict=True):
            used = [(weight, adapter) for weight, adapter in zip(weights_E, adapters, strict=True) if weight]
            used = used or [(0.0, adapters[0])]  # taps may switch a site off
            for position, path in enumerate(ffn.paths):
                b_OR = torch.cat([weight * scale * adapter.lora_B[position] for weight, adapter in used], dim=1)
                a_RI = torch.cat([adapter.lora_A[position] for _, adapter in used])
                name = f"backbone.{path}.weight"
                pairs[name] = (finite(name, b_OR.detach(), of=of), finite(name, a_RI.detach(), of=of))
    return [LoRAVector(pairs) for pairs in found]


def _empty(directories: Sequence[Directory], specs: list[TaskSpec], rank: int, *, name: str) -> tuple[MTAModel, AlterConfig]:
    """Return the result with nothing filled in yet: one adapter, which every task owns."""
    first = directories[0].config
    settings = first.mta.model_copy(
        update={
            "adapter": AdapterSettings(kind="lora", r=rank, lora_alpha=float(rank)),
            "num_adapters": 1,
            "num_shared": 0,
            "selector": GateSettings(kind="one_hot"),
            "gate": GateSettings(kind="one_hot"),
        }
    )
    config = first.model_copy(
        update={
            "alter_version": __version__,
            "name": name,
            "router": "selector",
            "mta": settings,
            "tasks": specs,
            "max_length": max(each.config.max_length for each in directories),
            "max_target_length": max(each.config.max_target_length for each in directories),
            "scales": {task: scale for each in directories for task, scale in each.config.scales.items()},
            "parts": [],
        }
    )
    base, _ = load_base(first.base.name, revision=first.base.revision)
    num_outputs = [1 if spec.kind == "regression" else len(spec.labels or []) for spec in specs]
    names = [spec.name for spec in specs]
    model = MTAModel(base, task_names=names, settings=settings, num_outputs=num_outputs, heads=first.heads)
    model.router = "selector"
    return model, config


def _places(model: MTAModel) -> dict[str, tuple[torch.nn.Parameter, torch.nn.Parameter]]:
    """Return weight of a projection -> (B, A) of the model's one adapter there."""
    found = {}
    for ffn, mta in zip(model.ffns, model.mtas, strict=True):
        adapter = cast(Any, mta.bank.adapters)[0]
        for position, path in enumerate(ffn.paths):
            found[f"backbone.{path}.weight"] = (adapter.lora_B[position], adapter.lora_A[position])
    return found


@torch.no_grad()
def _fill(model: MTAModel, pairs: dict[str, tuple[torch.Tensor, torch.Tensor]], heads: Sequence[dict[str, torch.Tensor]]) -> None:
    for name, places in _places(model).items():
        for parameter, value in zip(places, pairs[name], strict=True):
            parameter.copy_(finite_result(name, value.to(parameter.dtype)))
    for name, parameter in model.parameter_groups()["heads"].items():
        position, _, rest = name.removeprefix("heads.heads.").partition(".")
        parameter.copy_(heads[int(position)][rest])
