"""alter_config.json: what a model directory says of itself, and how it is found and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydantic

from alter.config import Settings, parse
from alter.errors import CheckpointError, ConfigError
from alter.mta_settings import MTASettings, PartSettings
from alter.nn.routing import Router
from alter.recipe import HeadSettings
from alter.results import write_json
from alter.tasks.spec import NOT_SHIPPED, TaskSpec
from alter.version import __version__

FORMAT = 1
CONFIG = "alter_config.json"
CHANGED = "The file was changed by hand or written by another version of alter; copy the model directory again"


class BaseInfo(Settings):
    """The base model that a model directory builds on."""

    name: str
    """As the recipe names it."""
    revision: str | None = None
    """Revision of a hub model."""
    model_type: str
    """transformers' name of the family."""
    fingerprint: str
    """Tells another base under the same name."""
    trained: bool = False
    """Whether backbone.safetensors replaces the base's weights."""


class AlterConfig(Settings):
    """alter_config.json."""

    format: int = FORMAT
    """Version of this layout."""
    alter_version: str
    """The version that wrote it."""
    name: str
    """The recipe's name."""
    base: BaseInfo
    """The base model."""
    preset: str
    """The recipe's preset."""
    router: Router
    """What weighs the adapters: selector (stage 1 was released) or gate (stage 2)."""
    max_length: int
    """Longest input in tokens."""
    max_target_length: int = 64
    """Longest text to write in tokens."""
    prompt_separator: str = "\n"
    """Between input and answer (decoder-only models)."""
    mta: MTASettings
    """The module."""
    peft: dict[str, Any] | None = None
    """A method of peft in its place, as the recipe had it; adapters/peft/adapter_config.json is what is read. Else left out."""
    heads: HeadSettings
    """The heads."""
    tasks: list[TaskSpec] = pydantic.Field(min_length=1)
    """The tasks, in the order of their ids."""
    scales: dict[str, tuple[float, float]] = {}
    """Regression task -> (mean, std) of its training numbers."""
    parts: list[PartSettings] = []
    """The models that a merged model is made of (`alter merge`): each weighs its own adapters, and `mta.selector` and `mta.gate`, which
    are the first one's, say nothing. Only merged models have this key."""

    @pydantic.model_validator(mode="after")
    def _parts_make_the_whole(self) -> AlterConfig:
        if self.parts:
            wholes = {
                "num_tasks": len(self.tasks),
                "num_adapters": self.mta.num_adapters or len(self.tasks),
                "num_shared": self.mta.num_shared,
            }
            for name, whole in wholes.items():
                if (total := sum(getattr(part, name) for part in self.parts)) != whole:
                    raise ValueError(f"the parts have {name} {total} together, but the model has {whole}")
        return self


def write_config(config: AlterConfig, folder: Path) -> None:
    """Write alter_config.json, without what only training reads."""
    content = config.model_dump(exclude={"tasks": {"__all__": set(NOT_SHIPPED)}})
    if not config.parts:  # so that versions from before `alter merge` go on reading other models
        del content["parts"]
    if config.peft is None:
        del content["peft"]
    elif isinstance(content["peft"].get("adapters"), dict):  # X-LoRA's LoRAs: where they lie here, not where they were trained
        content["peft"]["adapters"] = {name: f"experts/{name}" for name in content["peft"]["adapters"]}
    write_json(content, folder / CONFIG)


def load_config(folder: Path) -> AlterConfig:
    """Read a model directory's alter_config.json.

    Raises:
        CheckpointError: missing, not JSON, foreign, or of a format this version does not read.
    """
    path = folder / CONFIG
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(_no_model(folder)) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); the model directory is damaged, copy it again") from None
    seen = content.get("format") if isinstance(content, dict) else None
    if seen != FORMAT:
        raise CheckpointError(
            f"{path}: format {seen!r}; this version of alter ({__version__}) reads format {FORMAT}. Load it with the version that "
            f"wrote it, or train again"
        )
    try:
        return parse(AlterConfig, content, where=str(path))
    except ConfigError as error:
        raise CheckpointError(f"{error}. {CHANGED}") from None


def _no_model(folder: Path) -> str:
    if not folder.exists():
        return f"{folder}: no such folder; give a run directory or its model/ folder"
    if (folder / "adapter_config.json").exists():
        return f"{folder}: a single PEFT adapter, not a model of alter ({CONFIG} is missing); give the folder above adapters/"
    if (folder / "recipe.yaml").exists():
        return f"{folder}: a run that has not finished (no model/ in it); go on with: alter train RECIPE --output-dir {folder} --resume"
    return f"{folder}: not a model of alter ({CONFIG} is missing); give a run directory or its model/ folder"


def model_folder(path: str | Path) -> Path:
    """Return the model directory that `path` means: itself, or `model/` inside a run directory."""
    folder = Path(path)
    return folder / "model" if (folder / "model" / CONFIG).exists() else folder
