"""The model directory: the round trip, every kind of damage, and a write that fails half-way."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.nn.equipped import IDS_BS, MASK_BS, randomise
from tests.tiny import save_tiny

import alter.checkpoint as checkpoint
import alter.model_config as model_config
from alter import __version__
from alter.backbones._load import base_fingerprint, load_base
from alter.checkpoint import adapter_folder, load_model, save_model
from alter.errors import CheckpointError, ModelError, TrainingError
from alter.model import MTAModel, equip
from alter.model_config import AlterConfig, BaseInfo, load_config, model_folder
from alter.mta_settings import ADAPTERS, GATES, OWNERS
from alter.tasks.spec import Source, TaskSpec

TASKS = [
    TaskSpec(name="intent", labels=["pay", "refund", "other"], source=Source(train="rows.jsonl"), cap=7),
    TaskSpec(name="urgency", labels=["low", "high"]),
    TaskSpec(name="score", kind="regression"),
]
TASKS_B = torch.tensor([0, 1, 2, 0, 1])
CARD = "# a card\n"


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("base") / "bert")


def build(base: Path, *, preset: Any = "alter-lite", mta: dict[str, Any] | None = None, router: Any = "gate") -> MTAModel:
    """Return an equipped model whose every part has changed, the backbone under preset `alter` included."""
    outputs = {task.name: len(task.labels or [0]) for task in TASKS}
    model = equip(load_base(str(base))[0], tasks=outputs, preset=preset, mta=mta, heads={"pooling": "cls"}).eval()
    model.router = router
    randomise(model, "task_adapters", "shared_adapters", "selector", "gate", "heads", scale=0.1)
    return randomise(model, "backbone", scale=0.01) if preset == "alter" else model


def config_of(model: MTAModel, base: Path, *, preset: str = "alter-lite") -> AlterConfig:
    info = BaseInfo(
        name=str(base), model_type="bert", fingerprint=base_fingerprint(load_base(str(base))[0]), trained=preset == "alter"
    )
    return AlterConfig(
        alter_version=__version__,
        name="demo",
        base=info,
        preset=preset,
        router=model.router,
        max_length=32,
        mta=model.settings,
        heads=model.head_settings,
        tasks=TASKS,
        scales={"score": (2.5, 1.25)},
    )


def logits(model: MTAModel) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(IDS_BS, MASK_BS, task_ids=TASKS_B).logits
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture(scope="session")
def saved(base_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model directory with every kind of file in it; tests work on copies."""
    model = build(base_folder, preset="alter", mta={"adapter": {"kind": "lora", "r": 4}})
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model, config_of(model, base_folder, preset="alter"), folder, card=CARD)
    return folder


@pytest.fixture(scope="session")
def lite(base_folder: Path) -> tuple[MTAModel, AlterConfig]:
    """Return a model and its config, to be written but not changed."""
    model = build(base_folder)
    return model, config_of(model, base_folder)


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


# ---- round trip ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["alter", "alter-lite"])
@pytest.mark.parametrize("adapter", ADAPTERS.names())
@pytest.mark.parametrize("router", ["selector", "gate"])
def test_a_model_comes_back_bit_for_bit(base_folder: Path, tmp_path: Path, preset: Any, adapter: str, router: Any) -> None:
    model = build(base_folder, preset=preset, mta={"adapter": {"kind": adapter, "r": 4}}, router=router)
    save_model(model, config_of(model, base_folder, preset=preset), tmp_path / "model", card=CARD)
    loaded = load_model(tmp_path / "model")
    assert torch.equal(logits(loaded.model), logits(model))
    assert loaded.model.router == router
    assert not loaded.model.training
    for (name, value), (other, expected) in zip(loaded.model.named_parameters(), model.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(value, expected), name


@pytest.mark.parametrize("gate", GATES.names())
@pytest.mark.parametrize("selector", [kind for kind in GATES.names() if kind != "outputs"])
def test_every_selector_and_gate_comes_back(base_folder: Path, tmp_path: Path, selector: str, gate: str) -> None:
    num_shared = 0 if gate in OWNERS else 2  # these weigh no shared adapters
    mta = {"selector": {"kind": selector}, "gate": {"kind": gate, "over": "all"}, "sites": "last", "num_shared": num_shared}
    model = build(base_folder, mta=mta)
    save_model(model, config_of(model, base_folder), tmp_path / "model", card=CARD)
    loaded = load_model(tmp_path / "model").model
    for router in ("selector", "gate"):
        model.router = loaded.router = router
        assert torch.equal(logits(loaded), logits(model))


def test_the_config_the_tokenizer_and_the_scales_come_back(base_folder: Path, folder: Path) -> None:
    loaded = load_model(folder)
    assert [task.name for task in loaded.config.tasks] == ["intent", "urgency", "score"]
    assert loaded.config.tasks[0].labels == ["pay", "refund", "other"]
    assert loaded.config.tasks[0].source is None  # where the training rows lay is no part of a model
    assert loaded.config.tasks[0].cap is None
    assert loaded.scales["score"].restore(2.0) == 5.0
    assert loaded.codec.tokenizer("pay the bill").input_ids == load_base(str(base_folder))[1]("pay the bill").input_ids


def test_a_run_directory_stands_for_the_model_in_it(folder: Path) -> None:
    assert model_folder(folder.parent) == folder
    assert model_folder(folder) == folder
    assert torch.equal(logits(load_model(folder.parent).model), logits(load_model(str(folder)).model))


def test_the_directory_holds_what_it_promises_and_nothing_pickled(folder: Path) -> None:
    adapters = [f"adapters/{task.name}" for task in TASKS] + ["shared/0", "shared/1"]
    expected = {"alter_config.json", "gates.safetensors", "heads.safetensors", "backbone.safetensors", "README.md"}
    expected |= {f"{adapter}/{name}" for adapter in adapters for name in ("adapter_config.json", "adapter_model.safetensors")}
    found = contents(folder)
    assert set(found) == expected
    for name, content in found.items():
        assert not content.startswith((b"PK", b"\x80")), name
        if name.endswith(".json"):
            json.loads(content)
        elif name.endswith(".safetensors"):
            assert load_file(folder / name)


def test_a_backbone_that_did_not_train_is_not_shipped(base_folder: Path, tmp_path: Path) -> None:
    model = build(base_folder)
    save_model(model, config_of(model, base_folder), tmp_path / "model", card=CARD)
    assert not (tmp_path / "model" / "backbone.safetensors").exists()


@pytest.mark.parametrize(
    ("num_adapters", "names"), [(None, ["adapters/a", "adapters/b"]), (3, [f"adapters/adapter-{i}" for i in range(3)])]
)
def test_adapters_lie_by_task_where_each_task_has_its_own(num_adapters: int | None, names: list[str]) -> None:
    number = num_adapters or 2
    assert [adapter_folder(["a", "b"], position, number) for position in range(number + 1)] == [*names, "shared/0"]


def test_fewer_adapters_than_tasks_come_back(base_folder: Path, tmp_path: Path) -> None:
    model = build(base_folder, mta={"num_adapters": 2, "num_shared": 0, "sites": [0]})
    save_model(model, config_of(model, base_folder), tmp_path / "model", card=CARD)
    assert sorted(path.name for path in (tmp_path / "model" / "adapters").iterdir()) == ["adapter-0", "adapter-1"]
    assert torch.equal(logits(load_model(tmp_path / "model").model), logits(model))


def test_a_new_model_replaces_an_old_one_whole(base_folder: Path, folder: Path) -> None:
    (folder / "left_over.txt").write_text("old")
    model = build(base_folder)
    save_model(model, config_of(model, base_folder), folder, card="# new\n")
    assert not (folder / "left_over.txt").exists()
    assert not (folder / "backbone.safetensors").exists()
    assert (folder / "README.md").read_text() == "# new\n"
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert torch.equal(logits(load_model(folder).model), logits(model))


# ---- damage ----------------------------------------------------------------------------------------------------------

TENSOR_FILES = [
    "gates.safetensors",
    "heads.safetensors",
    "backbone.safetensors",
    "adapters/intent/adapter_model.safetensors",
    "adapters/score/adapter_model.safetensors",
    "shared/1/adapter_model.safetensors",
]


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(path)).items()}, path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def cut_to_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def put_text(path: Path) -> None:
    path.write_text("version https://git-lfs.github.com/spec/v1\n")


def put_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def rename_tensors(path: Path) -> None:
    change_tensors(path, lambda tensors: {f"foreign.{name}": tensor for name, tensor in tensors.items()})


def drop_a_tensor(path: Path) -> None:
    change_tensors(path, lambda tensors: dict(list(tensors.items())[1:]))


def add_a_tensor(path: Path) -> None:
    change_tensors(path, lambda tensors: {**tensors, "extra": torch.zeros(2)})


def reshape_a_tensor(path: Path) -> None:
    change_tensors(path, lambda tensors: {name: torch.cat([tensor, tensor]) for name, tensor in tensors.items()})


DAMAGES: list[tuple[Callable[[Path], None], str]] = [
    (Path.unlink, r"no such file; the directory is incomplete, copy it again"),
    (truncate, r"not a whole safetensors file .*copy it again"),
    (cut_to_the_header, r"not a whole safetensors file \(5 bytes.*copy it again"),
    (empty, r"not a whole safetensors file \(0 bytes.*copy it again"),
    (put_text, r"not a whole safetensors file .*copy it again"),
    (put_folder, r"not a whole safetensors file .*copy it again"),
    (rename_tensors, r"does not fit its alter_config.json: missing \[.*unexpected \['foreign.*copy it again"),
    (drop_a_tensor, r"missing \[.*\], unexpected none .*copy it again"),
    (add_a_tensor, r"missing none, unexpected \['extra'\].*copy it again"),
    (reshape_a_tensor, r"has another shape \(.* in the file, .* expected\); the file belongs to another model"),
]


@pytest.mark.parametrize("name", TENSOR_FILES)
@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_file_is_named_with_what_to_do(folder: Path, name: str, damage: Callable[[Path], None], message: str) -> None:
    damage(folder / name)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_model(folder)
    assert str(folder / name) in str(raised.value)


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps(change(content) or content), encoding="utf-8")


def setting(*keys: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        node: Any = content
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


EDITS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        setting("format", value=2),
        r"format 2; this version of alter \(.*\) reads format 1. Load it with the version that wrote it",
    ),
    (setting("format", value="1"), r"format '1'; this version"),
    (lambda content: content.pop("format") and None, r"format None; this version"),
    (lambda content: [content], r"format None; this version"),
    (setting("colour", value="red"), r"unknown key 'colour'.*changed by hand or written by another version"),
    (lambda content: content.pop("router") and None, r"'router' is missing"),
    (setting("router", value="both"), r"router: .*changed by hand"),
    (setting("mta", "sites", value=[9]), r"mta.sites names \[9\], but this model has 2 FFNs.*changed by hand"),
    (
        setting("mta", "sites", value=[0]),
        r"adapter_model.safetensors: does not fit its alter_config.json|gates.safetensors: does not fit",
    ),
    (setting("mta", "adapter", "r", value=8), r"has another shape"),
    (setting("mta", "adapter", "kind", value="bottleneck"), r"does not fit its alter_config.json"),
    (setting("mta", "adapter", "kind", value="lroa"), r"unknown adapter kind 'lroa'.*Did you mean 'lora'"),
    (setting("mta", "selector", "kind", value="outputs"), r"mta.selector.kind.*changed by hand"),
    (setting("mta", "gate", "kind", value="uniform"), r"gates.safetensors: does not fit"),
    (setting("mta", "num_shared", value=3), r"shared/2/adapter_model.safetensors: no such file|does not fit|another shape"),
    (setting("heads", "kind", value="mlp"), r"heads.safetensors: does not fit"),
    (setting("tasks", value=[]), r"tasks.*changed by hand"),
    (setting("tasks", 0, "name", value="other"), r"adapters/other/adapter_model.safetensors: no such file"),
    (setting("tasks", 0, "labels", value=["a", "b"]), r"heads.safetensors: .* has another shape"),
    (lambda content: content["tasks"].pop() and None, r"another shape|does not fit"),
    (
        setting("base", "fingerprint", value="0" * 16),
        r"was trained on another '.*' \(fingerprint 0{16}\).*Install the base it was trained on",
    ),
]


@pytest.mark.parametrize(("change", "message"), EDITS)
def test_an_edited_config_is_refused_with_the_place(folder: Path, change: Callable[[dict[str, Any]], Any], message: str) -> None:
    edit(folder / "alter_config.json", change)
    with pytest.raises(CheckpointError, match=message) as raised:
        load_model(folder)
    assert str(folder) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b'{"format": 1,', b"\xff\xfe{", b"null x"])
def test_a_config_that_is_not_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "alter_config.json").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"alter_config.json: cannot be read .*the model directory is damaged, copy it again"
    ):
        load_config(folder)


def test_a_base_whose_weights_changed_is_refused(saved: Path, base_folder: Path, folder: Path, tmp_path: Path) -> None:
    other = save_tiny(tmp_path / "other", seed=1)
    edit(folder / "alter_config.json", setting("base", "name", value=str(other)))
    with pytest.raises(
        CheckpointError, match=r"was trained on another .*its adapters would give wrong answers. Install the base"
    ):
        load_model(folder)


def test_a_base_that_is_gone_is_named(folder: Path, tmp_path: Path) -> None:
    edit(folder / "alter_config.json", setting("base", "name", value=str(tmp_path / "gone")))
    with pytest.raises(ModelError, match="gone: no such folder"):
        load_model(folder)


def test_what_only_others_read_is_not_needed(folder: Path) -> None:
    expected = logits(load_model(folder).model)
    (folder / "README.md").unlink()
    for path in folder.rglob("adapter_config.json"):  # PEFT's copy of what alter_config.json says
        path.unlink()
    assert torch.equal(logits(load_model(folder).model), expected)


def test_folders_that_are_no_model_are_told_apart(folder: Path, tmp_path: Path) -> None:
    unfinished, empty_folder, file = tmp_path / "run", tmp_path / "empty", tmp_path / "file"
    unfinished.mkdir()
    (unfinished / "recipe.yaml").write_text("name: demo\n")
    empty_folder.mkdir()
    file.write_text("x")
    for path, message in (
        (
            unfinished,
            r"a run that has not finished \(no model/ in it\); go on with: alter train RECIPE --output-dir .*run --resume",
        ),
        (empty_folder, r"not a model of alter \(alter_config.json is missing\); give a run directory or its model/ folder"),
        (tmp_path / "gone", r"gone: no such folder; give a run directory or its model/ folder"),
        (file, r"not a model of alter"),
        (folder / "adapters" / "intent", r"a single PEFT adapter, not a model of alter .*give the folder above adapters/"),
    ):
        with pytest.raises(CheckpointError, match=message):
            load_model(path)


# ---- a write that fails ----------------------------------------------------------------------------------------------

FULL = OSError(errno.ENOSPC, "No space left on device")


def failing(real: Callable[..., Any], calls: Iterator[int], *, at: int, error: BaseException) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        if next(calls) == at:
            raise error
        return real(*args, **kwargs)

    return call


# nine files of tensors or JSON for five adapters, then gates, heads, config and card
@pytest.mark.parametrize("at", range(14))
@pytest.mark.parametrize(
    "error", [FULL, PermissionError(errno.EACCES, "Permission denied"), KeyboardInterrupt()], ids=["full", "denied", "killed"]
)
def test_an_interrupted_save_leaves_the_old_model_as_it_was(
    lite: tuple[MTAModel, AlterConfig], folder: Path, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException
) -> None:
    before = contents(folder)
    model, config = lite
    calls = iter(range(1000))
    for module, name in (
        (checkpoint, "save_tensors"), (checkpoint, "write_json"), (checkpoint, "write_text"), (model_config, "write_json"),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, failing(getattr(module, name), calls, at=at, error=error))
    if isinstance(error, KeyboardInterrupt):
        with pytest.raises(KeyboardInterrupt):
            save_model(model, config, folder, card=CARD)
    else:
        message = r"the disk is full \(\d+ MiB free\)" if error is FULL else r"cannot be written .*check the folder's permissions"
        with pytest.raises(TrainingError, match=message) as raised:
            save_model(model, config, folder, card=CARD)
        assert str(folder) in str(raised.value)
        assert [path.name for path in folder.parent.iterdir()] == ["model"]  # no draft left behind
    assert contents(folder) == before


@pytest.mark.parametrize("at", [0, 1])
def test_a_rename_that_fails_leaves_the_old_model_as_it_was(
    lite: tuple[MTAModel, AlterConfig], folder: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    before = contents(folder)
    model, config = lite
    real, calls = Path.replace, iter(range(1000))

    def replace(self: Path, target: Path) -> Path:
        # Only whole folders count: the JSON files inside are renamed into place as well.
        if self.is_dir() and next(calls) == at:
            raise FULL
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(TrainingError, match="the disk is full"):
        save_model(model, config, folder, card=CARD)
    assert contents(folder) == before
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
