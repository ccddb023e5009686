"""Peers on a base: where they sit and how large they are, which bases they take, and Arrow, which needs no training.

Shapes: N tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from alter.backbones._codec import codec_for
from alter.backbones._find import sites_of
from alter.backbones._load import load_base
from alter.backbones._look import Look, look_at
from alter.checkpoint import Loaded
from alter.comparing.arms import Arm
from alter.comparing.changes import lora_sites
from alter.comparing.matched import chosen, matched_rank, size_of_mta
from alter.data.encode import Scale
from alter.errors import ConfigError, TrainingError
from alter.model import MTAModel
from alter.model_config import AlterConfig, load_config, model_folder
from alter.nn.ffn import FFN, find_ffn
from alter.nn.site import projection_shape
from alter.peers.arrow import route_by_arrow
from alter.recipe import Recipe
from alter.tensors import load_tensors
from alter.training.rundir import RESULTS

CHOOSY = ("peft-poly", "peft-xlora")
"""Arms that do not take every base."""
ARROW_TOP_K = 3
"""peft's default."""


def fitting(recipe: Recipe, arms: Sequence[Arm], *, named: Collection[str], told: Callable[[str], None]) -> list[Arm]:
    """Return the arms that say anything about the recipe's base model; `told` of the others.

    Raises:
        ConfigError: one of the others was asked for by name.
        ModelError: the base model cannot be read.
    """
    if not any(arm.name in CHOOSY for arm in arms):
        return list(arms)
    look = look_at(recipe.model_name_or_path, revision=recipe.revision)
    kept = []
    for arm in arms:
        why = misfit(arm.name, look)
        if why and arm.name in named:
            raise ConfigError(f"the arm '{arm.name}' says nothing about {recipe.model_name_or_path}: {why}; leave it out")
        if why:
            told(f"left out: {arm.name}, since {why}")
        else:
            kept.append(arm)
    return kept


def misfit(arm: str, look: Look) -> str:
    """Return why an arm says nothing about a base model; empty where it does."""
    if arm == "peft-poly" and any(isinstance(module, Conv1D) for module in look.skeleton.modules()):
        return f"peft's Poly takes modules of torch.nn.Linear alone, and the projections of a '{look.model_type}' are transformers' Conv1D"
    if arm == "peft-xlora" and look.kind == "encoder-decoder":
        return "X-LoRA's gate reads the last states of the one stack that it weighs, and this base model has two stacks"
    return ""


def filled_in(arm: str, base: PreTrainedModel, recipe: Recipe, block: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the block `peft` of an arm's recipe lacks: the modules to sit on, and its size, as large as all adapters of the MTA.

    Args:
        arm: the arm.
        base: the base model.
        recipe: what is compared.
        block: the block so far.
    """
    ffns = [find_ffn(base, site) for site in sites_of(base)]
    found: dict[str, Any] = {"target_modules": [path for ffn in chosen(ffns, lora_sites(recipe)) for path in ffn.paths]}
    rank = matched_rank(base, recipe)
    if arm == "peft-lora":
        return {**found, "r": rank, "lora_alpha": block["lora_alpha"] / block["r"] * rank}
    adapters = (recipe.mta.num_adapters or len(recipe.tasks)) + recipe.mta.num_shared
    each = recipe.mta.adapter.r if recipe.mta.adapter.kind == "lora" else max(1, round(rank / adapters))
    return {**found, "r": each, "n_skills": matched_skills(ffns, recipe, rank=each)}


def matched_skills(ffns: list[FFN], recipe: Recipe, *, rank: int) -> int:
    """Return how many skills Poly has with as many parameters as all adapters of the recipe together, rounded, at least 2."""
    shapes = [projection_shape(projection) for ffn in chosen(ffns, lora_sites(recipe)) for projection in ffn.projections]
    per_skill = sum(rank * sum(shape) + len(recipe.tasks) for shape in shapes)  # a LoRA, and a weight for each task
    return max(2, round(size_of_mta(ffns, recipe) / per_skill))


def runs_of(place: Path, recipe: Recipe) -> dict[str, Path]:
    """Return the runs, one a task, that an arm left in its place.

    Raises:
        TrainingError: one of them has not finished.
    """
    runs = {task.name: place / task.name for task in recipe.tasks}
    if not all((run / RESULTS).exists() for run in runs.values()):
        raise TrainingError(f"needs the arm {place.parent.name} with this seed, which failed; see its message")
    return runs


def lora_in(run: Path, task: str) -> Path:
    """Return where a run of one task has its LoRA, in peft's layout."""
    return model_folder(run) / "adapters" / task


def arrow(recipe: Recipe, runs: Mapping[str, Path], *, seed: int) -> Loaded:
    """Return one model of the LoRAs and heads of runs of one task each: Arrow weighs the LoRAs for each token, without a task's name.

    Args:
        recipe: what is compared.
        runs: task -> the run directory of its LoRA.
        seed: from where the search for each LoRA's direction begins.

    Raises:
        CheckpointError: a run's model is damaged.
    """
    base, tokenizer = load_base(recipe.model_name_or_path, revision=recipe.revision)
    folders = {task: model_folder(run) for task, run in runs.items()}
    configs = {task: load_config(folder) for task, folder in folders.items()}
    specs = [config.tasks[0] for config in configs.values()]
    first = next(iter(configs.values()))
    mta = first.mta.model_copy(update={"sites": "none"})
    model = MTAModel(
        base,
        task_names=list(runs),
        settings=mta,
        num_outputs=[1 if spec.kind == "regression" else len(spec.labels or []) for spec in specs],
        heads=first.heads,
    )
    loras = {task: lora_in(run, task) for task, run in runs.items()}
    route_by_arrow(model.backbone, loras, top_k=min(ARROW_TOP_K, len(loras)), seed=seed)
    for position, folder in enumerate(folders.values() if model.heads is not None else ()):
        _take_head(model, position, folder)
    codec = codec_for(base, tokenizer, first, name=recipe.model_name_or_path, revision=recipe.revision)
    config: AlterConfig = first.model_copy(
        update={"tasks": specs, "mta": mta, "scales": {k: v for c in configs.values() for k, v in c.scales.items()}}
    )
    scales = {task: Scale(mean=mean, std=std) for task, (mean, std) in config.scales.items()}
    return Loaded(config=config, model=model.eval(), codec=codec, scales=scales)


def _take_head(model: MTAModel, position: int, folder: Path) -> None:
    """Copy the one head of a run of one task into its place."""
    with torch.no_grad():
        for name, tensor in load_tensors(folder / "heads.safetensors").items():
            model.get_parameter(name.replace("heads.heads.0.", f"heads.heads.{position}.", 1)).copy_(tensor)
