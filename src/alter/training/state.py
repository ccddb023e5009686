"""Resumable checkpoints: everything a run needs to go on as if it had never stopped. Tensors in safetensors, the rest in JSON.

    checkpoints/stage1-000120/
        state.json             where the run is, scores so far, journal length
        model.safetensors      parameters that training may have changed
        optimizer.safetensors  AdamW's moments, random-number states
        best.safetensors       the best parameters of this stage so far

A checkpoint is written into a hidden folder beside its place and renamed when it is whole, so one that is there is complete.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from alter.config import Settings, parse
from alter.errors import CheckpointError, ConfigError
from alter.results import Score, StageResult, write_json
from alter.tensors import save_tensors, whole_folder

FORMAT = 1
_NAME = re.compile(r"(stage[12])-(\d+)")


class Progress(Settings):
    """Where a run is."""

    format: int = FORMAT
    """Version of this layout."""
    stage: str
    """The stage in progress."""
    step: int
    """Optimizer steps done in it."""
    seconds: float = 0.0
    """Wall-clock seconds spent in it."""
    best_average: Score | None = None
    """Best validation average of the stage so far."""
    best_step: int = 0
    """The step at which it was reached."""
    best_scores: dict[str, Score] = {}
    """Score per task at that step."""
    validations_without_gain: int = 0
    """For early stopping."""
    finished: bool = False
    """Whether the stage is over."""
    journal_bytes: int = 0
    """Length of metrics.jsonl."""
    schedule_steps: int = 0
    """Steps taken by the schedule."""
    num_processes: int = 1
    """Processes of the run."""
    results: dict[str, StageResult] = {}
    """Stages that are over."""
    rows_digest: str = ""
    """Digest of the encoded training rows; empty in checkpoints of earlier versions."""
    base_fingerprint: str = ""
    """Fingerprint of the base model; empty in checkpoints of earlier versions."""


def save_checkpoint(folder: Path, progress: Progress, tensors: Mapping[str, Mapping[str, torch.Tensor]]) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        folder: its place; a checkpoint that is there gives way once the new one is whole.
        progress: goes to state.json.
        tensors: file stem -> name -> tensor.

    Raises:
        TrainingError: the disk is full; earlier checkpoints are untouched.
    """
    with whole_folder(folder) as draft:
        for stem, named in tensors.items():
            save_tensors(named, draft / f"{stem}.safetensors")
        write_json(progress.model_dump(), draft / "state.json")


def load_progress(folder: Path) -> Progress:
    """Read a checkpoint's state.json.

    Raises:
        CheckpointError: unreadable, or of another format.
    """
    path = folder / "state.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete {folder} to resume from an earlier checkpoint") from None
    seen = content.get("format") if isinstance(content, dict) else None
    if seen != FORMAT:
        raise CheckpointError(
            f"{path}: format {seen!r}, this version reads format {FORMAT}; resume with the version that wrote it"
        )
    try:
        return parse(Progress, content, where=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}. The file is damaged; delete {folder} to resume from an earlier checkpoint") from None


def check_processes(saved: Progress, now: Progress, folder: Path) -> None:
    """Refuse a checkpoint of a run of more or fewer processes.

    Raises:
        CheckpointError: `folder`, where `saved` is from, is one.
    """
    if saved.num_processes != now.num_processes:
        raise CheckpointError(
            f"{folder}: written by a run of {saved.num_processes} process(es), this one has {now.num_processes}; resume with "
            f"{saved.num_processes}"
        )


def checkpoints_in(folder: Path) -> list[Path]:
    """Return a run's checkpoints, oldest first; folders of other names are none of ours."""
    if not folder.is_dir():
        return []
    found = [(name, path) for path in folder.iterdir() if (name := _NAME.fullmatch(path.name)) and path.is_dir()]
    return [path for _, path in sorted(found, key=lambda pair: (pair[0][1], int(pair[0][2])))]


def prune(folder: Path, keep: int) -> None:
    """Delete all but the newest checkpoints, and drafts that a killed run left behind."""
    for path in checkpoints_in(folder)[:-keep]:
        shutil.rmtree(path)
    for draft in folder.glob(".stage*-*"):
        shutil.rmtree(draft, ignore_errors=True)
    for draft in folder.glob(".best-*"):
        draft.unlink(missing_ok=True)


def pack_optimizer(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> dict[str, torch.Tensor]:
    """Return AdamW's state and the random-number states as named tensors.

    Args:
        optimizer: the optimizer.
        names: id of each parameter -> its name.
    """
    packed = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        packed["rng.cuda"] = torch.cuda.get_rng_state()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state.get(parameter, {}).items():
                packed[f"{names[id(parameter)]}|{key}"] = value if isinstance(value, torch.Tensor) else torch.tensor(value)
    return packed


def unpack_optimizer(optimizer: torch.optim.Optimizer, packed: Mapping[str, torch.Tensor], names: Mapping[int, str]) -> None:
    """Put back what `pack_optimizer` returned."""
    by_name: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in packed.items():
        name, separator, field = key.rpartition("|")
        if separator:
            by_name.setdefault(name, {})[field] = value
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = by_name.get(names[id(parameter)])
            if state is not None:
                optimizer.state[parameter] = {field: _placed(field, value, parameter) for field, value in state.items()}
    torch.set_rng_state(packed["rng.cpu"])
    if "rng.cuda" in packed and torch.cuda.is_available():
        torch.cuda.set_rng_state(packed["rng.cuda"])


def _placed(field: str, value: torch.Tensor, parameter: torch.Tensor) -> Any:
    return value if field == "step" else value.to(parameter.device)
