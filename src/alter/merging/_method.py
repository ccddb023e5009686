"""A merge method with its settings, checked: what a caller asked for, ready to be applied."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alter.config import Settings, parse
from alter.errors import ConfigError
from alter.merging import MERGE_METHODS
from alter.merging._vectors import Merged, TaskVector, check_vectors


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method and its settings.

    Attributes:
        name: the method's name.
        settings: what its file's `SETTINGS` made of the given settings.
        needs_base: whether the merged model depends on the base.
        statistics: what it needs to know of each model's rows; None: nothing.
    """

    name: str
    settings: Settings
    needs_base: bool
    statistics: str | None

    def merge(self, vectors: Sequence[TaskVector], *, statistics: Sequence[TaskVector] = ()) -> Merged:
        """Yield the merged vector, name by name.

        Raises:
            ConfigError: vectors or statistics do not fit together, or the number of statistics is wrong.
        """
        check_vectors(vectors)
        wanted = len(vectors) if self.statistics is not None else 0
        if len(statistics) != wanted:
            what = f"needs {self.statistics}, one for each of the {wanted} to merge" if wanted else "reads no statistics"
            remedy = "compute them first (docs/how-to/merge.md)" if wanted else "leave them out"
            raise ConfigError(f"{self.name} {what}; seen: {len(statistics)}; {remedy}")
        function = MERGE_METHODS.get(self.name)
        merged: Merged = function(vectors, self.settings, statistics) if wanted else function(vectors, self.settings)
        return merged


def method_of(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """Return the method `name` with `settings` over its defaults.

    Raises:
        PluginError: the name is unknown.
        ConfigError: a setting is unknown or has an impossible value.
    """
    module = MERGE_METHODS.module(name)
    kind: type[Settings] = module.SETTINGS
    return Method(
        name=name,
        settings=parse(kind, dict(settings or {}), where=f"merge method '{name}'"),
        needs_base=getattr(module, "NEEDS_BASE", True),
        statistics=getattr(module, "STATISTICS", None),
    )
