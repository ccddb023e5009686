"""Plain model folders, as transformers writes them: full models that were fine-tuned from one base become one folder.

Names, shapes and what config.json says of the computation must be the same in all of them. config.json, the tokenizer and what else
lies beside the weights come from the first folder; the result has that one's number types.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alter.backbones._compose import is_composed, read_encoder
from alter.backbones._load import TARGET_TOKENIZER
from alter.backbones._package import resolve_base
from alter.combining.beside import copy_beside
from alter.combining.finite import finite, finite_result
from alter.combining.report import MergeReport, told
from alter.combining.tensor_folder import WHOLE, TensorFolder
from alter.errors import CheckpointError, ConfigError
from alter.merging._method import Method
from alter.merging._vectors import Changed, TaskVector, squared_norms
from alter.results import write_text
from alter.tensors import save_tensors, whole_folder

# What config.json may say differently without another computation; anything with "drop" in its name is for training alone.
NO_MATTER = frozenset(
    {
        "_name_or_path",
        "architectures",
        "dtype",
        "finetuning_task",
        "problem_type",
        "task_specific_params",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
LABELS = frozenset({"id2label", "label2id"})


def merge_stock(
    models: Sequence[str], *, method: Method, base: str | None, statistics: Sequence[TaskVector], output_dir: Path
) -> MergeReport:
    """Merge plain model folders; see `alter.combining.run.merge`."""
    if base is None and method.needs_base:
        raise ConfigError(
            f"method {method.name} merges what the models changed of their base; add --base BASE (a folder or package:NAME)"
        )
    folders = [TensorFolder(_folder(model)) for model in models]
    zero = folders[0] if base is None else TensorFolder(_folder(base))
    for other in folders[1:]:
        _check_same(folders[0], other, leave_out=NO_MATTER)
    if base is not None:
        _check_same(folders[0], zero, leave_out=NO_MATTER | LABELS)  # a base has no labels yet
    names = [name for name in folders[0] if folders[0].is_float(name)]
    zero_name = models[0] if base is None else base
    vectors = [
        Changed(folder, partial(_minus, zero, zero_name, model), names=names)
        for model, folder in zip(models, folders, strict=True)
    ]
    lengths = {} if base is None else _lengths(models, vectors, zero)
    merged: dict[str, torch.Tensor] = {}
    for name, change in method.merge(vectors, statistics=statistics):
        merged[name] = finite_result(name, (zero[name].double() + change).to(folders[0][name].dtype))
    for name in folders[0].keys() - merged.keys():
        merged[name] = _same_everywhere(name, folders)
    report = MergeReport(folder=output_dir, kind="checkpoint", models=list(models), lengths=lengths, **told(method))
    with whole_folder(output_dir, resumable=False) as draft:
        copy_beside(folders[0].folder, draft)
        save_tensors(merged, draft / WHOLE, metadata={"format": "pt"})
        write_text(report.card(base), draft / "README.md")
    return report


def _minus(zero: TensorFolder, zero_name: str, model: str, name: str, tensor: torch.Tensor) -> torch.Tensor:
    return finite(name, tensor, of=model) - finite(name, zero[name], of=zero_name).double()


def _lengths(models: Sequence[str], vectors: Sequence[TaskVector], zero: TensorFolder) -> dict[str, float]:
    whole = sum(float(zero[name].double().square().sum()) for name in vectors[0])
    return {
        model: (float(norm) / whole) ** 0.5 if whole else 0.0 for model, norm in zip(models, squared_norms(vectors), strict=True)
    }


def _folder(name: str) -> Path:
    folder = Path(resolve_base(name)).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "no such folder"
        raise CheckpointError(
            f"{name}: {what}; give a model folder or package:NAME (a model of the hub is downloaded first: "
            f"hf download {name} --local-dir FOLDER)"
        )
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{name}: no config.json in it; give a folder that save_pretrained wrote, or a model of alter")
    return folder


def _check_same(first: TensorFolder, other: TensorFolder, *, leave_out: frozenset[str]) -> None:
    """Refuse folders whose models do not compute alike.

    Raises:
        ConfigError: with the first difference.
    """
    one, two = (_computation(_config(each.folder), leave_out) for each in (first, other))
    for key in sorted({*one, *two}):
        if one.get(key) != two.get(key):
            raise ConfigError(
                f"{other.folder}: config.json says {key}: {two.get(key)!r}, and {first.folder} says {one.get(key)!r}; only models of one "
                f"architecture, fine-tuned from one base, can be merged"
            )
    if _encoder(first.folder) != _encoder(other.folder):
        raise ConfigError(
            f"{other.folder}: encoder.json says that its decoder reads another encoder than that of {first.folder} "
            f"(fingerprints {_encoder(other.folder)} and {_encoder(first.folder)}); only models on one encoder can be merged"
        )
    if odd := sorted(first.keys() ^ other.keys()):
        has, lacks = (first, other) if odd[0] in first else (other, first)
        raise ConfigError(
            f"{lacks.folder}: has no tensor '{odd[0]}', which {has.folder} has ({len(odd)} such tensors in all); save all models, and the "
            f"base, with the same class of transformers"
        )
    for name in first:
        if first.shape(name) != other.shape(name):
            raise ConfigError(
                f"{other.folder}: '{name}' has the shape {other.shape(name)}, and in {first.folder} it has {first.shape(name)}; only "
                f"models with the same shapes can be merged (the same number of labels and of words)"
            )
    if any(_vocabulary(first.folder / place) != _vocabulary(other.folder / place) for place in (".", TARGET_TOKENIZER)):
        raise ConfigError(
            f"{other.folder}: its tokenizer has other words, or the same words with other ids, than that of {first.folder}; only models "
            f"that read alike can be merged"
        )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); copy the model again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds no mapping of keys to values; copy the model again")
    return content


def _computation(config: dict[str, Any], leave_out: frozenset[str], place: str = "") -> dict[str, Any]:
    """Return what a configuration says of the computation; keys of a part's own are `encoder.hidden_size` and the like."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if key in leave_out or "drop" in key:
            continue
        if isinstance(value, dict) and key not in LABELS:  # labels are the user's words, and may be called anything
            found |= _computation(value, leave_out, f"{place}{key}.")
        else:
            found[f"{place}{key}"] = value
    return found


def _encoder(folder: Path) -> str | None:
    """Return the fingerprint of the encoder that a folder leaves to another package; None for a whole model."""
    return read_encoder(folder)["fingerprint"] if is_composed(folder) else None


def _vocabulary(folder: Path) -> Any:
    """Return what tokenizer.json says of words and ids; how it pads and cuts is left out. None where there is no such file."""
    path = folder / "tokenizer.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["model"].get("vocab")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _same_everywhere(name: str, folders: Sequence[TensorFolder]) -> torch.Tensor:
    first = folders[0][name]
    for other in folders[1:]:
        if not torch.equal(first, other[name]):
            raise ConfigError(
                f"{other.folder}: '{name}' holds whole numbers that differ from those of {folders[0].folder}; they cannot be averaged"
            )
    return first
