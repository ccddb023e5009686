"""The tensors of a model folder, read one at a time: model.safetensors, or its shards by their index."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from alter.errors import CheckpointError

WHOLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class TensorFolder(Mapping[str, torch.Tensor]):
    """Name -> tensor, read when it is asked for.

    Args:
        folder: holds model.safetensors, or shards and their index; or a single .safetensors file.

    Raises:
        CheckpointError: there are no weights, or a file is damaged or missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}
        self._files: dict[str, Any] = {}
        for path in _files_of(folder):
            opened = _open(path)
            for name in opened.keys():  # noqa: SIM118 - no mapping
                kept = opened.get_slice(name)
                self._files[name] = opened
                self._shapes[name] = tuple(kept.get_shape())
                self._types[name] = str(kept.get_dtype())

    def __getitem__(self, name: str) -> torch.Tensor:
        tensor = self._files[name].get_tensor(name)
        assert isinstance(tensor, torch.Tensor)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape without reading it."""
        return self._shapes[name]

    def is_float(self, name: str) -> bool:
        """Return whether a tensor holds floating-point numbers, without reading it."""
        return self._types[name].startswith(("F", "BF"))


def _files_of(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if (folder / WHOLE).is_file():
        return [folder / WHOLE]
    index = folder / INDEX
    if not index.is_file():
        raise CheckpointError(f"{folder}: {_without(folder)}")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index}: cannot be read ({error}); copy the model again") from None
    return [folder / name for name in names]


def _without(folder: Path) -> str:
    if (folder / "adapter_config.json").is_file():
        return (
            "a single PEFT adapter, which alter merge does not read; give whole models of alter (the folder above adapters/) with "
            "--adapters merge, or plain models into which the adapter is merged"
        )
    if list(folder.glob("*.bin")):
        return (
            "the weights are in pickle format only, which can run foreign code; save them as safetensors (save_pretrained does)"
        )
    return f"no weights ({WHOLE} is missing); give a folder that save_pretrained wrote, or a model of alter"


def _open(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except (SafetensorError, OSError) as error:
        size = path.stat().st_size if path.is_file() else 0
        raise CheckpointError(f"{path}: not a whole safetensors file ({size} bytes: {error}); copy the model again") from None
