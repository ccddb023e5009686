"""From several folders to one: what `alter merge` does.

folders -> their kind -> checked against each other -> merged by a method -> one folder, written whole
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from alter.combining.adapters import merge_adapters
from alter.combining.directories import Directory, merge_directories, read_directories
from alter.combining.finite import COMPUTE_AGAIN, finite
from alter.combining.report import MergeReport
from alter.combining.stock import merge_stock
from alter.combining.tensor_folder import TensorFolder
from alter.errors import CheckpointError, ConfigError
from alter.merging import MERGE_METHODS
from alter.merging._method import Method, method_of
from alter.merging._vectors import Changed, TaskVector
from alter.model_config import CONFIG, model_folder

Statistics = str | Path | TaskVector
HOW = ("keep", "merge")


def merge(
    models: Sequence[str | Path],
    *,
    output_dir: str | Path,
    method: str | None = None,
    settings: Mapping[str, Any] | None = None,
    base: str | Path | None = None,
    adapters: Literal["keep", "merge"] = "keep",
    rank: int | None = None,
    statistics: Sequence[Statistics] = (),
) -> MergeReport:
    """Merge models of one base into one folder, which is written whole or not at all.

    Args:
        models: plain model folders, or models of alter (run directories or model directories); all of one kind.
        output_dir: where the result goes; it must not be there yet.
        method: a merge method; models of alter on a frozen base that keep their adapters need none.
        settings: the method's settings, e.g. `{"density": 0.3}`.
        base: the model that all were trained from. Plain folders need it where the method does; models of alter know their base, and
            this says where it is now.
        adapters: of models of alter: `keep` each task's own adapters, or `merge` LoRA adapters into one that all tasks use.
        rank: rank of that one adapter; by default that of the first model's adapters.
        statistics: what the methods `fisher` and `regmean` need: one mapping, or safetensors file, for each model (each task where
            adapters are merged), in their order.

    Raises:
        PluginError: the method is unknown.
        ConfigError: an argument or a setting is wrong, or the models do not fit together.
        CheckpointError: a folder is missing, damaged, or of no known kind; or the output is there already.
        ModelError: the base cannot be loaded.
        TrainingError: the output cannot be written.
    """
    if isinstance(models, str | Path):
        raise ConfigError(f"merge got one model, '{models}'; give a list of them")
    names = [str(model) for model in models]
    output = Path(output_dir)
    chosen = _chosen(method, settings)
    _check_arguments(names, output, adapters=adapters, rank=rank, method=chosen)
    found = [_read_statistics(given, position) for position, given in enumerate(statistics, start=1)]
    given_base = None if base is None else str(base)
    if not _are_directories(names):
        if adapters != "keep":
            raise ConfigError(f"--adapters merge is for models of alter, and {names[0]} is a plain model folder; leave it out")
        if len(names) < 2:
            raise ConfigError(_one_model(names))
        if chosen is None:
            raise ConfigError(f"no merge method is given; add --method, one of {', '.join(MERGE_METHODS.names())}")
        return merge_stock(names, method=chosen, base=given_base, statistics=found, output_dir=output)
    directories = read_directories(names, base=given_base)
    return _merge_of_alter(directories, method=chosen, adapters=adapters, rank=rank, statistics=found, output=output)


def _merge_of_alter(
    directories: list[Directory],
    *,
    method: Method | None,
    adapters: str,
    rank: int | None,
    statistics: Sequence[TaskVector],
    output: Path,
) -> MergeReport:
    if adapters == "merge":
        if method is None:
            raise ConfigError(f"--adapters merge needs a method; add --method, one of {', '.join(MERGE_METHODS.names())}")
        return merge_adapters(directories, method=method, rank=rank, statistics=statistics, output_dir=output)
    if len(directories) < 2:
        raise ConfigError(_one_model([each.given for each in directories]))
    return merge_directories(directories, method=method, statistics=statistics, output_dir=output)


def _chosen(method: str | None, settings: Mapping[str, Any] | None) -> Method | None:
    if method is not None:
        return method_of(method, settings)
    if settings:
        raise ConfigError(
            f"settings {dict(settings)} are given without a merge method; add --method, one of {', '.join(MERGE_METHODS.names())}"
        )
    return None


def _check_arguments(names: list[str], output: Path, *, adapters: str, rank: int | None, method: Method | None) -> None:
    if not names:
        raise ConfigError("no models are given; give at least two")
    places = [model_folder(Path(name)).resolve() for name in names]
    if twice := [name for name, place in zip(names, places, strict=True) if places.count(place) > 1]:
        raise ConfigError(f"{twice[-1]}: is given twice; give each model once")
    if adapters not in HOW:
        raise ConfigError(f"--adapters is '{adapters}'; allowed: {', '.join(HOW)}")
    if rank is not None and adapters != "merge":
        raise ConfigError(f"--rank is {rank}, and only --adapters merge reads it; leave it out, or add --adapters merge")
    if rank is not None and rank < 1:
        raise ConfigError(f"--rank is {rank}; it must be at least 1")
    if output.exists():
        raise CheckpointError(f"{output}: is there already; choose another --output-dir, or remove it first")


def _one_model(names: list[str]) -> str:
    return f"{names[0]} is the only model, and there is nothing to merge it with; give at least two models"


def _are_directories(names: list[str]) -> bool:
    """Return whether the models are alter's own; all must be of one kind.

    Raises:
        ConfigError: they are not.
        CheckpointError: a folder is not there, or a run has no model yet.
    """
    ours = {}
    for name in names:
        folder = model_folder(name)
        if not name.startswith("package:") and not folder.is_dir():
            raise CheckpointError(f"{name}: no such folder; give a plain model folder, a run directory or its model/ folder")
        if (folder / "model" / "config.json").is_file():
            raise CheckpointError(f"{name}: a run whose model is a plain folder in it; give {folder / 'model'}")
        if (folder / "recipe.yaml").is_file() and not (folder / "config.json").is_file():
            raise CheckpointError(
                f"{name}: a run that has not finished (no model/ in it); go on with: alter train RECIPE --output-dir {name} --resume"
            )
        ours[name] = (folder / CONFIG).is_file()
    if len(set(ours.values())) > 1:
        ours_first = sorted(ours, key=lambda name: not ours[name])
        raise ConfigError(
            f"{ours_first[0]} is a model of alter, and {ours_first[-1]} is a plain model folder; merge models of one kind at a time"
        )
    return all(ours.values())


def _read_statistics(given: Statistics, position: int) -> TaskVector:
    if isinstance(given, Mapping):
        return Changed(given, partial(finite, of=f"statistics {position}", remedy=COMPUTE_AGAIN))
    if not Path(given).is_file():
        raise CheckpointError(f"{given}: no such file; give a .safetensors file of statistics (docs/how-to/merge.md)")
    return Changed(TensorFolder(Path(given)), partial(finite, of=str(given), remedy=COMPUTE_AGAIN))
