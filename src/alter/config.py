"""Strict settings: YAML in, frozen objects out, and a message that names the key.

A setting that nobody reads is a mistake nobody notices, so an unknown key is an error with the nearest known key beside it.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pydantic
import yaml

from alter.errors import ConfigError, did_you_mean
from alter.keys import unknown_key
from alter.yaml12 import dump_yaml, read_yaml

__all__ = ["Settings", "apply_overrides", "dump_yaml", "load_yaml", "merge", "parse", "read_yaml"]


class Settings(pydantic.BaseModel):
    """Base of all settings: frozen, keyword-only, unknown keys and numbers without end refused."""

    model_config = pydantic.ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @pydantic.field_validator("*", mode="before")
    @classmethod
    def _no_bool_for_a_number(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        """Refuse `true` where a number belongs: Python counts it as 1."""
        assert info.field_name is not None
        kinds = list(_plain_kinds(cls.model_fields[info.field_name].annotation))
        if (int in kinds or float in kinds) and bool not in kinds and _holds_bool(value):
            raise ValueError("true and false are no numbers; write a number")
        return value


def _plain_kinds(annotation: Any) -> Iterator[Any]:
    """Yield what an annotation such as `dict[str, float] | None` is made of."""
    arguments = typing.get_args(annotation)
    if arguments and typing.get_origin(annotation) is not typing.Literal:
        for argument in arguments:
            yield from _plain_kinds(argument)
    else:
        yield annotation


def _holds_bool(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return isinstance(value, bool) or any(_holds_bool(item) for item in items)


S = TypeVar("S", bound=pydantic.BaseModel)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read one YAML mapping.

    Raises:
        ConfigError: the file is missing, unreadable, empty, not YAML or not a mapping.
    """
    try:
        content = read_yaml(_read_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(content, dict):
        seen = "nothing" if content is None else f"a {type(content).__name__}"
        raise ConfigError(f"{path}: holds {seen}; a recipe is a mapping of keys to values")
    return content


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give the path of a YAML file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; give the path of a YAML file") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a null character
        what = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be read ({what}); give the path of a YAML file that you may read") from None


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


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return [_copy(item) for item in value] if isinstance(value, list) else value


def _assign(node: Any, keys: list[str], value: Any, override: str) -> None:
    """Set `value` at the end of `keys`, making mappings on the way."""
    done = 0
    while True:
        width, index = _step(node, keys[done:], override, ".".join(keys[:done]))
        done += width
        if done == len(keys):
            node[index] = value
            return
        if isinstance(node, dict) and node.get(index) is None:
            node[index] = {}  # what is not there, or switched off (stage2: null)
        node = node[index]


def _step(node: Any, keys: list[str], override: str, path: str) -> tuple[int, Any]:
    """Return how many of `keys` say where to go on in `node`, and the key or position they stand for."""
    if isinstance(node, dict):
        return 1, keys[0]
    if not isinstance(node, list):
        raise ConfigError(f"{override}: '{path}' holds a single value, so it has no key '{keys[0]}'")
    positions = _positions(node)
    # A name may hold dots (`glue.rte` beside `glue`): the longest that fits is meant.
    for width in range(len(keys), 0, -1):
        if (name := ".".join(keys[:width])) in positions:
            return width, positions[name]
    if keys[0].isdecimal() and int(keys[0]) < len(node):
        return 1, int(keys[0])
    if positions:
        raise ConfigError(f"{override}: '{keys[0]}' is no name in '{path}'; {did_you_mean(keys[0], positions)}")
    raise ConfigError(f"{override}: '{keys[0]}' is no position in a list of {len(node)}; count from 0")


def _positions(items: list[Any]) -> dict[str, int]:
    """Return name -> position of the mappings in a list that have a `name`, such as tasks; of equal names the first."""
    named = [(item.get("name"), position) for position, item in enumerate(items) if isinstance(item, dict)]
    return {name: position for name, position in reversed(named) if isinstance(name, str)}


def merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `under` with `over` laid on top, mapping by mapping; lists and single values are replaced whole."""
    result = {key: _copy(value) for key, value in under.items()}
    for key, value in over.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, Mapping) else _copy(value)
    return result


def parse(kind: type[S], settings: Any, *, where: str) -> S:
    """Build the settings object `kind`, turning pydantic's complaints into one clear error.

    Raises:
        ConfigError: with the place (`where`, key path), the value seen and what is allowed.
    """
    try:
        return kind.model_validate(settings)
    except pydantic.ValidationError as error:
        problems = [_Problem(_steps(kind, problem["loc"]), problem) for problem in error.errors()]
        raise ConfigError("\n".join(f"{where}: {line}" for line in _lines(problems, settings, kind))) from None


@dataclass(frozen=True)
class _Step:
    """One key on the way to a problem: the key, the settings class it belongs to, whether its value may be of several shapes."""

    key: str | int
    owner: Any
    many_shapes: bool


@dataclass(frozen=True)
class _Problem:
    steps: list[_Step]
    details: Any

    @property
    def path(self) -> tuple[str | int, ...]:
        return tuple(step.key for step in self.steps)


def _steps(kind: Any, loc: Iterable[str | int]) -> list[_Step]:
    """Walk pydantic's `loc` along the types: only they tell a key from pydantic's own name of a shape (`list[int]`)."""
    steps: list[_Step] = []
    current = kind
    rest = list(loc)
    while rest:
        shapes = _shapes(current)
        if steps and len(shapes) > 1:
            steps[-1] = _Step(steps[-1].key, steps[-1].owner, many_shapes=True)
            tag = str(rest.pop(0))
            current = next((shape for shape in shapes if _is_called(shape, tag)), None)
            continue
        current = shapes[0] if shapes else None
        key = rest.pop(0)
        fields = getattr(current, "model_fields", None)
        steps.append(_Step(key, current if fields is not None else None, many_shapes=False))
        if fields is not None:
            current = fields[key].annotation if key in fields else None
        else:
            arguments = typing.get_args(current)
            current = arguments[-1] if arguments else None
            if rest == ["[key]"]:  # the complaint is about a mapping's key, not about its value
                rest = []
    return steps


def _shapes(annotation: Any) -> list[Any]:
    """Return the members of a union without None; another annotation is its own only shape."""
    if typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [argument for argument in typing.get_args(annotation) if argument is not type(None)]
    return [annotation]


def _is_called(shape: Any, tag: str) -> bool:
    """Whether pydantic calls this member of a union `tag`, e.g. `int`, `list[int]`, `Wheel`."""
    return tag.partition("[")[0] == getattr(typing.get_origin(shape) or shape, "__name__", "")


def _lines(problems: list[_Problem], settings: Any, kind: type[pydantic.BaseModel]) -> list[str]:
    """Return one line for each place with a problem; the shapes that a value does not have share a line."""
    paths = [problem.path for problem in problems]
    lines: dict[tuple[str | int, ...], list[_Problem]] = {}
    for problem in problems:
        path = problem.path
        deeper = any(other[: len(path)] == path and len(other) > len(path) for other in paths)
        # A list with a bad item is told by its item, and not that it is no number either.
        if not (problem.steps and problem.steps[-1].many_shapes and deeper):
            lines.setdefault(path, []).append(problem)
    return [_explain(path, told, settings, kind) for path, told in lines.items()]


def _explain(path: tuple[str | int, ...], problems: list[_Problem], settings: Any, kind: type[pydantic.BaseModel]) -> str:
    name = _spelled(path, settings) or "recipe"
    first = problems[0].details
    if first["type"] == "extra_forbidden":
        return unknown_key(name, str(path[-1]), problems[0].steps[-1].owner.model_fields, kind)
    if first["type"] == "missing":
        return f"the key '{name}' is missing; add it"
    messages = dict.fromkeys(problem.details["msg"].removeprefix("Value error, ") for problem in problems)
    seen = first["input"]
    shown = "" if isinstance(seen, dict | list) else f" (seen: {seen!r})"
    return f"{name}: {'; or: '.join(messages)}{shown}"


def _spelled(path: tuple[str | int, ...], settings: Any) -> str:
    """Return a key path as an override spells it: `tasks.intent.cap`, not `tasks.0.cap`, where the item has a name."""
    parts: list[str] = []
    node = settings
    for key in path:
        part = str(key)
        if isinstance(node, list) and isinstance(key, int):
            names = [name for name, position in _positions(node).items() if position == key]
            part = names[0] if names and re.fullmatch(r"[\w.-]+", names[0]) else part
        parts.append(part)
        try:
            node = node[key]
        except (TypeError, LookupError):  # the way ends here: a missing or unknown key
            node = None
    return ".".join(parts)
