"""What a task's mixture is to others: PEFT reads a task's adapter, and task-level weights fold into one LoRA."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import save_file
from tests.nn.equipped import IDS_BS, MASK_BS, base_model, equipped, hidden, randomise
from tests.tiny import save_tiny

from alter import __version__
from alter.backbones._load import base_fingerprint, load_base
from alter.checkpoint import save_model
from alter.model import MTAModel, equip
from alter.model_config import AlterConfig, BaseInfo
from alter.tasks.spec import TaskSpec

TASKS = {"intent": 3, "urgency": 2, "mood": 4}
LORA = {"kind": "lora", "r": 4, "lora_alpha": 12.0}

# peft 0.21 still asks transformers 5.23 for an attribute under its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

both_families = pytest.mark.parametrize("family", ["bert", "distilbert"])


def peft_output(base: Any, folder: Path) -> torch.Tensor:
    model = peft.PeftModel.from_pretrained(base, folder).eval()
    with torch.no_grad():
        states: torch.Tensor = model(IDS_BS, MASK_BS).last_hidden_state
    return states


@both_families
@pytest.mark.parametrize("sites", ["all", "last"])
def test_peft_computes_what_we_compute_with_a_tasks_own_adapter(family: str, sites: str, tmp_path: Path) -> None:
    base = save_tiny(tmp_path / "base", family)
    stock, _ = load_base(str(base))
    fingerprint = base_fingerprint(stock)
    mta = {"adapter": LORA, "selector": {"kind": "one_hot"}, "sites": sites}
    model = equip(stock, tasks=TASKS, mta=mta).eval()
    randomise(model, "task_adapters", "shared_adapters")
    config = AlterConfig(
        alter_version=__version__,
        name="demo",
        base=BaseInfo(name=str(base), model_type=family, fingerprint=fingerprint),
        preset="alter-lite",
        router="selector",
        max_length=32,
        mta=model.settings,
        heads=model.head_settings,
        tasks=[TaskSpec(name=name, labels=[str(label) for label in range(number)]) for name, number in TASKS.items()],
    )
    save_model(model, config, tmp_path / "model", card="# card\n")
    for position, name in enumerate(TASKS):
        ours = hidden(model, task_ids=torch.full((len(IDS_BS),), position))
        theirs = peft_output(load_base(str(base))[0], tmp_path / "model" / "adapters" / name)
        torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
        with model.disable_adapter():
            base_only = hidden(model, task_ids=torch.full((len(IDS_BS),), position))
        assert (base_only - ours).abs().max() > 1e-3


# ---- the fold, by its formula ----------------------------------------------------------------------------------------


def task_weights(model: MTAModel, task: int) -> list[list[float]]:
    """Return each site's weights over all adapters for one task, from the router's own parameters."""
    found = []
    for mta in model.mtas:
        weights: list[float] = mta.selector_weights()[task].tolist()
        shared = [0.0] * mta.num_shared
        if model.router == "gate":
            gate: Any = mta.gate
            shared = torch.sigmoid(gate.shared_logits_TM[task]).tolist()
            if gate.logits_TN is not None:
                weights = torch.softmax(gate.logits_TN[task], dim=-1).tolist()
        found.append([*weights, *shared])
    return found


def fold(model: MTAModel, task: int) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Return projection -> (A, B) of one LoRA: A stacks the kept A_i, B stacks w_i (alpha / r) B_i."""
    folded = {}
    for ffn, mta, weights in zip(model.ffns, model.mtas, task_weights(model, task), strict=True):
        bank: Any = mta.bank
        kept = [i for i, weight in enumerate(weights) if weight > 0]
        for position, path in enumerate(ffn.paths):
            a = torch.cat([bank.adapters[i].lora_A[position] for i in kept], dim=0)
            b = torch.cat([weights[i] * bank.scale * bank.adapters[i].lora_B[position] for i in kept], dim=1)
            folded[path] = (a.detach(), b.detach())
    return folded


FOLDABLE: list[tuple[str, dict[str, Any]]] = [
    ("selector", {"selector": {"kind": "one_hot"}}),
    ("selector", {"selector": {"kind": "selector"}}),
    ("selector", {"selector": {"kind": "selector", "top_k": 2}}),
    ("gate", {"selector": {"kind": "one_hot"}, "gate": {"kind": "task", "over": "shared"}}),
    ("gate", {"selector": {"kind": "selector"}, "gate": {"kind": "task", "over": "shared"}}),
    ("gate", {"selector": {"kind": "one_hot"}, "gate": {"kind": "task", "over": "all"}}),
]


@both_families
@pytest.mark.parametrize(("router", "mta"), FOLDABLE)
def test_task_level_weights_fold_into_one_lora_of_summed_rank(family: str, router: Any, mta: dict[str, Any]) -> None:
    model = equipped({"adapter": LORA, **mta}, family=family, tasks=TASKS, router=router)
    randomise(model, "task_adapters", "shared_adapters", "selector", "gate")
    for task in range(len(TASKS)):
        merged = copy.deepcopy(base_model(family))
        for path, (a, b) in fold(model, task).items():
            weights = task_weights(model, task)[0]
            assert a.shape[0] == 4 * sum(weight > 0 for weight in weights)
            with torch.no_grad():
                merged.get_submodule(path).weight.add_(b @ a)  # type: ignore[operator, union-attr]
        with torch.no_grad():
            states = merged(IDS_BS, MASK_BS).last_hidden_state
        torch.testing.assert_close(states, hidden(model, task_ids=torch.full((len(IDS_BS),), task)), rtol=0, atol=1e-10)


@both_families
def test_peft_computes_the_folded_mixture(family: str, tmp_path: Path) -> None:
    mta = {"adapter": LORA, "selector": {"kind": "selector"}, "gate": {"kind": "task", "over": "shared"}}
    model = equipped(mta, family=family, tasks=TASKS, router="gate", dtype=torch.float32)
    randomise(model, "task_adapters", "shared_adapters", "selector", "gate")
    for task, name in enumerate(TASKS):
        folder = tmp_path / name
        folder.mkdir()
        folded = fold(model, task)
        rank = (len(TASKS) + 2) * 4
        tensors = {}
        for path, (a, b) in folded.items():
            tensors[f"base_model.model.{path}.lora_A.weight"] = a.contiguous()
            tensors[f"base_model.model.{path}.lora_B.weight"] = b.contiguous()
        save_file(tensors, folder / "adapter_model.safetensors")
        config = {"peft_type": "LORA", "task_type": "FEATURE_EXTRACTION", "r": rank, "lora_alpha": rank}
        config |= {"target_modules": sorted(folded), "base_model_name_or_path": "base", "inference_mode": True}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        ours = hidden(model, task_ids=torch.full((len(IDS_BS),), task))
        torch.testing.assert_close(peft_output(base_model(family, dtype=torch.float32), folder), ours, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gate", [{"kind": "linear", "over": "all"}, {"kind": "outputs"}])
def test_a_gate_that_reads_its_input_does_not_fold(gate: dict[str, Any]) -> None:
    model = equipped({"adapter": LORA, "selector": {"kind": "selector"}, "gate": gate}, tasks=TASKS, router="gate")
    randomise(model, "task_adapters", "shared_adapters")
    if gate["kind"] == "linear":  # its matrix starts at zero, the network of `outputs` at random
        randomise(model, "gate")
    with model.record_weights() as recorded:
        hidden(model, task_ids=torch.zeros(len(IDS_BS), dtype=torch.int64))
    rows = recorded[0]
    assert (rows - rows[:1]).abs().max() > 1e-3  # one task, yet other weights for other rows
