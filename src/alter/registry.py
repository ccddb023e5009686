"""Plug-ins by presence: a file in a folder is a plug-in, its file name is its name.

A folder (a package such as `alter.metrics`) holds one file per plug-in. Each file defines the same attribute (the folder's
`attribute`, e.g. `compute`). Names are listed without importing the files, so `alter --help` and recipe checks need no torch.
Third parties add their own through an entry point in the group of the package's name (`alter.metrics`): `name = "module"`.
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import os
import pkgutil
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from alter.errors import PluginError, did_you_mean


class Registry:
    """The plug-ins of one folder.

    Args:
        what: what a plug-in is called in messages, e.g. `metric`.
        package: dotted name of the folder, e.g. `alter.metrics`; also the entry-point group.
        attribute: what each plug-in file defines.
    """

    def __init__(self, what: str, *, package: str, attribute: str) -> None:
        self.what = what
        self.package = package
        self.attribute = attribute
        self._seen: tuple[tuple[object, ...], dict[str, str]] | None = None

    def modules(self) -> dict[str, str]:
        """Return name -> dotted module for all plug-ins, ours and those of other installed packages.

        Raises:
            PluginError: two places define the same name.
        """
        spec = _spec_of(self.package)
        if spec is None or spec.submodule_search_locations is None:
            raise PluginError(f"{self.package} is not an installed package")
        folders = list(spec.submodule_search_locations)
        # Entry points are read from every installed package, which takes milliseconds, and scores are looked up often: look again
        # only where something may have changed.
        state = (*sys.path, *(os.stat(folder).st_mtime_ns for folder in folders), importlib.metadata.entry_points)
        if self._seen is None or self._seen[0] != state:
            self._seen = (state, self._find(folders))
        return self._seen[1]

    def _find(self, folders: list[str]) -> dict[str, str]:
        found = {
            info.name: f"{self.package}.{info.name}" for info in pkgutil.iter_modules(folders) if not info.name.startswith("_")
        }
        # Libraries have been seen to put a cache around this function, which then misses what was installed since: look behind it.
        entry_points = importlib.metadata.entry_points
        for point in getattr(entry_points, "__wrapped__", entry_points)(group=self.package):
            if point.name in found:
                raise PluginError(
                    f"the {self.what} '{point.name}' is defined twice: in {found[point.name]} and in {point.value}; "
                    f"rename the entry point of one of the two packages"
                )
            found[point.name] = point.value
        return dict(sorted(found.items()))

    def names(self) -> list[str]:
        """Return the names of all plug-ins, sorted."""
        return list(self.modules())

    def check(self, name: str) -> str:
        """Return `name` if it is a plug-in.

        Raises:
            PluginError: it is not; the message lists what is allowed and the nearest name.
        """
        modules = self.modules()
        if name not in modules:
            raise PluginError(f"unknown {self.what} '{name}'; {did_you_mean(name, modules)}")
        return name

    def get(self, name: str) -> Any:
        """Import the plug-in `name` and return its attribute.

        Raises:
            PluginError: the name is unknown, or its file cannot be imported or does not define the attribute.
        """
        module = self.module(name)
        if not hasattr(module, self.attribute):
            raise PluginError(f"{module.__name__} is no {self.what}: it must define `{self.attribute}`")
        return getattr(module, self.attribute)

    def module(self, name: str) -> ModuleType:
        """Import the plug-in `name` and return its whole file, for what it defines beside the attribute.

        Raises:
            PluginError: the name is unknown, or its file cannot be imported.
        """
        dotted = self.modules()[self.check(name)]
        if ":" in dotted:
            raise PluginError(
                f"the {self.what} '{name}' is declared as {dotted}; its package must declare the module alone, "
                f"{dotted.partition(':')[0]}, which defines `{self.attribute}`"
            )
        try:
            return importlib.import_module(dotted)
        except ImportError as error:
            raise PluginError(
                f"the {self.what} '{name}' cannot be imported from {dotted} ({error}); "
                f"install what is missing, or uninstall the package that declares it"
            ) from error

    def summaries(self) -> dict[str, str]:
        """Return name -> first line of its docstring, read without importing it; plug-ins whose file is gone are left out."""
        specs = {name: _spec_of(module) for name, module in self.modules().items()}
        return {name: _first_doc_line(spec) for name, spec in specs.items() if spec is not None}


def _spec_of(module: str) -> ModuleSpec | None:
    """Return where a module is, or None: `find_spec` raises where the package around it is missing."""
    try:
        return find_spec(module)
    except ModuleNotFoundError:
        return None


def _first_doc_line(spec: ModuleSpec) -> str:
    if spec.origin is None or not spec.origin.endswith(".py"):
        return ""
    doc = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return doc.split("\n", 1)[0]
