"""Arrow: peft's router on LoRAs by whole names, and the weights that its paper gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.peers.given import base, borrowed, outputs, write_loras
from transformers import PreTrainedModel

from alter.errors import CheckpointError
from alter.model import MTAModel
from alter.peers.arrow import ROUTER, route_by_arrow
from alter.peers.modules import layers


def narrow(folders: dict[str, str]) -> None:
    """Let one direction of every LoRA stand out, so that the search for it ends."""
    for position, folder in enumerate(folders.values()):
        path = Path(folder) / "adapter_model.safetensors"
        tensors = load_file(path)
        for name, tensor in tensors.items():
            random = torch.Generator().manual_seed(position)
            if ".lora_A." in name:
                tensors[name] = torch.linalg.qr(torch.randn(tensor.shape[1], 4, generator=random))[0].T.contiguous()
            else:
                columns = torch.linalg.qr(torch.randn(tensor.shape[0], 4, generator=random))[0]
                tensors[name] = (columns * torch.tensor([4.0, 0.5, 0.4, 0.3])).contiguous()
        save_file(tensors, path)


def routed(name: str, folders: dict[str, str], *, top_k: int, temperature: float = 1.0, seed: int = 0) -> MTAModel:
    plain = borrowed(name, {"peft_type": "LORA"}, dtype=torch.float32)
    backbone: PreTrainedModel = plain.unequip()
    loras = {one: Path(folder) for one, folder in folders.items()}
    route_by_arrow(backbone, loras, top_k=top_k, temperature=temperature, seed=seed)
    plain.backbone = backbone
    return plain


@pytest.mark.parametrize("name", ["bert", "t5", "gpt2", "llama", "opt"])
@pytest.mark.parametrize(("top_k", "temperature"), [(2, 1.0), (3, 0.5), (1, 1.0)])
def test_tokens_weigh_loras_as_the_paper_says(name: str, top_k: int, temperature: float, tmp_path: Path) -> None:
    """v: the right singular vector of B A with the largest singular value; |x . v|; softmax over the largest k."""
    folders = write_loras(tmp_path, name)
    narrow(folders)
    model = routed(name, folders, top_k=top_k, temperature=temperature)
    seen: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    for path, layer in layers(model.backbone):
        layer.register_forward_hook(lambda _, args, out, path=path: seen.__setitem__(path, (args[0], out)))
    outputs(model)
    assert seen.keys() == {path for path, _ in layers(model.backbone)}
    for path, layer in layers(model.backbone):
        x, y = seen[path]
        torch.testing.assert_close(y, by_hand(layer, x, top_k=top_k, temperature=temperature), rtol=1e-4, atol=1e-4)


def by_hand(layer: Any, x: torch.Tensor, *, top_k: int, temperature: float) -> torch.Tensor:
    experts = [one for one in layer.lora_A if one != ROUTER]
    assert len(experts) == 3
    scores, parts = [], []
    for one in experts:
        a_RD, b_OR = layer.lora_A[one].weight, layer.lora_B[one].weight
        direction_D = torch.linalg.svd(b_OR @ a_RD).Vh[0]
        scores.append((x @ direction_D).abs())
        parts.append(x @ a_RD.T @ b_OR.T * 6 / 4)
    score = torch.stack(scores, dim=-1)
    least = score.topk(top_k, dim=-1).values[..., -1:]
    weights = torch.softmax(score.masked_fill(score < least, -torch.inf) / temperature, dim=-1)
    mixed: torch.Tensor = layer.base_layer(x) + (torch.stack(parts, dim=-1) * weights.unsqueeze(-2)).sum(-1)
    return mixed


def test_it_sits_on_the_loras_modules_alone_where_others_share_their_last_name(tmp_path: Path) -> None:
    """BERT calls four projections of a block `dense`; peft's own create_arrow_model would route all of them, and fail."""
    model = routed("bert", write_loras(tmp_path, "bert"), top_k=2)
    paths = {path for path, _ in layers(model.backbone)}
    assert paths == {f"encoder.layer.{layer}.{part}.dense" for layer in (0, 1) for part in ("intermediate", "output")}
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())


def test_one_lora_alone_is_that_lora(tmp_path: Path) -> None:
    folders = write_loras(tmp_path, "bert", number=1)
    block = {"peft_type": "LORA", "r": 4, "lora_alpha": 6}
    alone = borrowed("bert", block, dtype=torch.float32)
    assert alone.injected is not None
    [(_, tensors)] = alone.injected.folders(alone.backbone).values()
    with torch.no_grad():
        for name, tensor in load_file(Path(next(iter(folders.values()))) / "adapter_model.safetensors").items():
            tensors[name].copy_(tensor)
    torch.testing.assert_close(outputs(routed("bert", folders, top_k=1)), outputs(alone), rtol=0, atol=1e-5)


def test_the_seed_decides_and_the_same_one_gives_the_same(tmp_path: Path) -> None:
    folders = write_loras(tmp_path, "bert")
    first, again = (outputs(routed("bert", folders, top_k=2, seed=3)) for _ in range(2))
    torch.testing.assert_close(first, again, rtol=0, atol=0)


def test_a_lora_that_is_none_is_refused(tmp_path: Path) -> None:
    folders = write_loras(tmp_path, "bert")
    with pytest.raises(
        CheckpointError, match=r"adapter_config\.json: cannot be read .*give the folder of a LoRA in peft's layout"
    ):
        route_by_arrow(base("bert"), {**{one: Path(f) for one, f in folders.items()}, "no": tmp_path / "no"}, top_k=2)
