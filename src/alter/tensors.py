"""Tensors to and from disk: safetensors only, never pickle, and a message for a damaged file or a full disk."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from alter.errors import CheckpointError, TrainingError


def save_tensors(named: Mapping[str, torch.Tensor], path: Path, *, metadata: dict[str, str] | None = None) -> None:
    """Write tensors to one safetensors file, flushed to disk."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}, str(path), metadata=metadata)
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def save_atomically(named: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write one safetensors file whole or not at all.

    Raises:
        TrainingError: the disk is full; an earlier file of this name is untouched.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_tensors(named, draft)
        draft.replace(path)
    except (OSError, SafetensorError) as error:
        draft.unlink(missing_ok=True)
        raise write_error(error, path) from error


@contextlib.contextmanager
def whole_folder(folder: Path, *, resumable: bool = True) -> Iterator[Path]:
    """Give a hidden draft folder to write into, which takes the place of `folder` once it is whole; after an error nothing has changed.

    Args:
        folder: the place.
        resumable: whether the remedy for a failed write is `--resume`, as in training, or to run the command again.

    Raises:
        TrainingError: the disk is full.
    """
    draft = folder.with_name(f".{folder.name}.{os.getpid()}")
    old = draft.with_name(f"{draft.name}.old")
    for left in (draft, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        draft.mkdir(parents=True)
        yield draft
        if folder.exists():
            folder.replace(old)
        draft.replace(folder)
    except (OSError, SafetensorError) as error:
        if old.exists():
            old.replace(folder)
        shutil.rmtree(draft, ignore_errors=True)
        raise write_error(error, folder, resumable=resumable) from error
    except BaseException:  # an error of what was to be written, or Ctrl-C
        shutil.rmtree(draft, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def load_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read one safetensors file.

    Raises:
        CheckpointError: missing, truncated or not safetensors.
    """
    try:
        return load_file(str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file; the directory is incomplete, copy it again or train again") from None
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.exists() else 0
        raise CheckpointError(
            f"{path}: not a whole safetensors file ({size} bytes: {error}); it was truncated or damaged: copy it again, use an "
            f"earlier checkpoint, or train again"
        ) from None


def write_error(error: Exception, path: Path, *, resumable: bool = True) -> TrainingError:
    """Return a clear error for a failed write."""
    then = "go on with --resume" if resumable else "run the command again"
    full = (isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)) or "No space left" in str(error)
    if not full:
        return TrainingError(f"{path}: cannot be written ({error}); check the folder's permissions, then {then}")
    free = shutil.disk_usage(_existing(path)).free // 2**20
    return TrainingError(
        f"{path}: the disk is full ({free} MiB free); nothing already saved is lost. Free some space"
        f"{', or lower train.save_total_limit' if resumable else ''}, then {then}"
    )


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
