"""Strict settings: YAML in, frozen objects out, and a message that names the key.

A setting that nobody reads is a mistake nobody notices, so an unknown key is an error with the nearest known key beside it.
"""

from __future__ import annotations

import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from alter.errors import ConfigError, did_you_mean


class Settings(pydantic.BaseModel):
    """Base of all settings: frozen, keyword-only, unknown keys refused."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())


S = TypeVar("S", bound=pydantic.BaseModel)


class _Yaml12Loader(yaml.SafeLoader):
    """YAML as people expect it (version 1.2): `yes` and `no` are text, `1e-3` is a number."""


_Yaml12Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Yaml12Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false|True|False)$"), list("tfTF"))
_Yaml12Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf|\.nan)$"),
    list("-+0123456789."),
)


def read_yaml(text: str) -> Any:  # noqa: ANN401 - YAML values
    """Parse YAML 1.2 scalars, mappings and lists; no tags that build objects."""
    return yaml.load(text, Loader=_Yaml12Loader)  # noqa: S506 - the loader derives from SafeLoader


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, empty, not YAML or not a mapping.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        seen = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{path}: holds {seen}; a recipe is a mapping of keys to values")
    return content


def apply_overrides(settings: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `settings` with `key.path=value` overrides applied; values are YAML (`true`, `3`, `[1, 2]`, text).

    Raises:
        ConfigError: an override has no `=`, or its path runs through a value that is no mapping or list.
    """
    result: dict[str, Any] = _copy(settings)
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            raise ConfigError(f"'{override}' is no override; write key.path=value, e.g. stages.stage1.num_train_epochs=3")
        try:
            value = read_yaml(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"{override}: the value is not valid YAML: {error}") from None
        _assign(result, path.split("."), value, override)
    return result


def _copy(value: Any) -> Any:  # noqa: ANN401 - YAML values
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _assign(node: Any, keys: list[str], value: Any, override: str) -> None:  # noqa: ANN401 - YAML values
    for position, key in enumerate(keys):
        last = position == len(keys) - 1
        index: Any = key
        if isinstance(node, list):
            if not key.isdigit() or int(key) >= len(node):
                raise ConfigError(f"{override}: '{key}' is no position in a list of {len(node)}; count from 0")
            index = int(key)
        elif not isinstance(node, dict):
            raise ConfigError(f"{override}: '{'.'.join(keys[:position])}' holds a single value, so it has no key '{key}'")
        if last:
            node[index] = value
        else:
            node = node.setdefault(index, {}) if isinstance(node, dict) else node[index]


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with `over` laid on top, mapping by mapping; lists and single values are replaced whole."""
    result = {key: _copy(value) for key, value in under.items()}
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else _copy(value)
    return result


def parse(kind: type[S], settings: Any, *, where: str) -> S:  # noqa: ANN401 - YAML values
    """Build the settings object `kind`, turning the first pydantic complaint into one clear error.

    Raises:
        ConfigError: with the place (`where`, key path), the value seen and what is allowed.
    """
    try:
        return kind.model_validate(settings)
    except pydantic.ValidationError as error:
        lines = [_explain(kind, problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in dict.fromkeys(lines))) from None


def _explain(kind: type[pydantic.BaseModel], problem: Any) -> str:  # noqa: ANN401 - pydantic's ErrorDetails
    path = [part for part in problem["loc"] if not (isinstance(part, str) and part.startswith(("function-", "tagged-")))]
    name = ".".join(str(part) for part in path) or "recipe"
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{name}'; {did_you_mean(str(path[-1]), _keys_at(kind, path[:-1]))}"
    if problem["type"] == "missing":
        return f"the key '{name}' is missing; add it"
    message = problem["msg"].removeprefix("Value error, ")
    seen = problem["input"]
    shown = "" if isinstance(seen, dict | list) else f" (seen: {seen!r})"
    return f"{name}: {message}{shown}"


def _keys_at(kind: type[pydantic.BaseModel], path: list[Any]) -> list[str]:
    """Return the known keys of the settings class that `path` leads to."""
    current: Any = kind
    for part in path:
        fields = getattr(current, "model_fields", None)
        if fields is None:
            return []
        if part in fields:
            current = _model_in(fields[part].annotation)
    return sorted(getattr(current, "model_fields", {}))


def _model_in(annotation: Any) -> Any:  # noqa: ANN401 - typing constructs
    """Return the settings class inside an annotation such as `dict[str, Stage]` or `Stage | None`."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    inner = (_model_in(argument) for argument in typing.get_args(annotation))
    return next((found for found in inner if found is not None), None)
