"""The public names of `alter`: listed, resolvable, explained, and free of charge until one is used."""

from __future__ import annotations

import ast
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import alter

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "alter" / "__init__.py"
CALLABLES = [name for name in alter.__all__ if not name.startswith("__")]


def loaded_after(code: str) -> set[str]:
    """Return the modules that a fresh interpreter has loaded after `code`."""
    script = f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"
    paths = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120, check=True
    )
    return set(json.loads(done.stdout))


def type_checkers_names() -> set[str]:
    """Return the names that type checkers see: those imported under TYPE_CHECKING."""
    tree = ast.parse(SOURCE.read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    imports = [node for block in blocks for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_the_public_names_are_sorted_and_complete() -> None:
    assert alter.__all__ == sorted(alter.__all__)
    assert dir(alter) == alter.__all__
    assert set(CALLABLES) == set(alter._HOMES)


def test_type_checkers_see_the_same_names() -> None:
    assert type_checkers_names() == set(CALLABLES)


@pytest.mark.parametrize("name", alter.__all__)
def test_every_public_name_resolves(name: str) -> None:
    found = getattr(alter, name)
    assert found is not None
    if name in alter._HOMES:
        module, _, attribute = alter._HOMES[name].partition(":")
        assert found is getattr(sys.modules[module], attribute)


def test_an_unknown_name_is_an_attribute_error_with_the_name() -> None:
    with pytest.raises(AttributeError, match="module 'alter' has no attribute 'trian'"):
        alter.trian  # noqa: B018


def test_importing_alter_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "accelerate", "sklearn", "scipy", "numpy", "pydantic", "yaml", "rich", "typer"}
    assert not heavy & loaded_after("import alter")


@pytest.mark.parametrize("name", ["AlterError", "Recipe", "Results", "TaskSpec", "load_recipe"])
def test_words_load_no_torch(name: str) -> None:
    assert not {"torch", "transformers", "accelerate"} & loaded_after(f"import alter; alter.{name}")


def documented() -> dict[str, Any]:
    """Return every public callable, and the public methods of public classes that are ours."""
    found: dict[str, Any] = {}
    for name in CALLABLES:
        value = getattr(alter, name)
        found[name] = value
        if inspect.isclass(value):
            methods = {key: member for key, member in vars(value).items() if not key.startswith("_")}
            found |= {f"{name}.{key}": member for key, member in methods.items() if isinstance(member, FunctionType)}
    return found


def test_every_public_name_has_a_docstring_that_starts_with_a_sentence() -> None:
    for name, value in documented().items():
        doc = inspect.getdoc(value)
        assert doc, name
        assert doc.split("\n\n")[0].rstrip().endswith((".", ":")), name


@pytest.mark.parametrize("name", [name for name in CALLABLES if name.islower()])
def test_every_public_function_explains_its_arguments_and_errors(name: str) -> None:
    function = getattr(alter, name)
    doc = inspect.getdoc(function) or ""
    parameters = list(inspect.signature(function).parameters)
    assert "Raises:" in doc
    if len(parameters) > 1:
        explained = [line.split(":")[0].strip() for line in doc.partition("Args:")[2].splitlines() if ":" in line]
        assert [parameter for parameter in parameters if parameter not in explained] == []


def test_predict_explains_its_arguments_and_errors() -> None:
    doc = inspect.getdoc(alter.Predictor.predict) or ""
    for words in ("Args:", "task:", "inputs:", "batch_size:", "gate_weights:", "Raises:", "TaskError:", "DataError:"):
        assert words in doc
