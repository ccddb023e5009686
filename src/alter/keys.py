"""Every key path of a settings class, so that a key in the wrong place is told its right one."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterator, Mapping
from typing import Any

import pydantic

from alter.errors import did_you_mean

NEAR = 0.85
MOST = 3


def key_paths(kind: type[pydantic.BaseModel], above: str = "") -> Iterator[str]:
    """Yield every key path, e.g. `seed`, `train`, `train.save_steps`; `<stage>` and `<task>` stand for names that a user gives."""
    for name, field in kind.model_fields.items():
        path = f"{above}{name}"
        yield path
        inner, has_names = _inside(field.annotation)
        if inner is not None:
            yield from key_paths(inner, f"{path}.<{name.removesuffix('s')}>." if has_names else f"{path}.")


def _inside(annotation: Any) -> tuple[type[pydantic.BaseModel] | None, bool]:
    """Return the settings class inside an annotation such as `dict[str, Stage]` or `Stage | None`, and whether it has names."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation, False
    for argument in typing.get_args(annotation):
        inner, has_names = _inside(argument)
        if inner is not None:
            return inner, has_names or typing.get_origin(annotation) in (dict, list)
    return None, False


def unknown_key(path: str, key: str, allowed: Mapping[str, object], root: type[pydantic.BaseModel]) -> str:
    """Return what is wrong with a key that its place does not allow, and what may have been meant.

    Args:
        path: the key's path as the user wrote it.
        key: its last part.
        allowed: the keys of that place.
        root: the settings class of the whole file.
    """
    elsewhere: dict[str, list[str]] = {}
    for known in key_paths(root):
        elsewhere.setdefault(known.rpartition(".")[2], []).append(known)
    here = did_you_mean(key, allowed)
    meant = [key] if key in elsewhere else _nearer(key, allowed, elsewhere)
    if not meant and "Did you mean" not in here:
        meant = [known for known in elsewhere if known.endswith(f"_{key}")]  # `epochs` for `num_train_epochs`
    if not meant:
        return f"unknown key '{path}'; {here}"
    above = set(path.split("."))
    places = [place for name in meant for place in elsewhere[name]]
    places.sort(key=lambda place: -len(above & set(place.split("."))))  # stable: else in the order of the reference
    told = " or ".join(f"'{place}'" + ("" if "." in place else " at the top") for place in places[:MOST])
    return f"unknown key '{path}'; {did_you_mean('', allowed)} Did you mean {told}{', ...' if len(places) > MOST else ''}?"


def _nearer(key: str, allowed: Mapping[str, object], elsewhere: Mapping[str, object]) -> list[str]:
    """Return the key of another place that is spelt much like `key`, and more so than any that is allowed here."""
    near = difflib.get_close_matches(key, elsewhere, n=1, cutoff=NEAR)
    if not near or near[0] in allowed:
        return []
    likeness = difflib.SequenceMatcher(None, key, near[0]).ratio()
    return near if all(difflib.SequenceMatcher(None, key, known).ratio() < likeness for known in allowed) else []
