"""Mixed-task batches: one MTA against PEFT's LoRA with `adapter_names`, side by side in one process, interleaved.

    python benchmarks/mixed_batch.py --tasks 2 4 8 16

Both put LoRA of the same rank on every FFN projection of the same random BERT (6 layers, width 384), eval mode, batch of rows that
name tasks at random. Printed per number of tasks: median of the ratios PEFT / alter, run by run, and operations per forward pass
(non-view ATen calls, a proxy for kernel launches). PEFT cannot train such a batch: it refuses `adapter_names` in train mode.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertModel, PreTrainedModel

import alter

VIEWS = (
    "view",
    "reshape",
    "transpose",
    "permute",
    "expand",
    "slice",
    "select",
    "unsqueeze",
    "squeeze",
    "detach",
    "t.default",
    "alias",
)


class CountOps(TorchDispatchMode):
    """Counts ATen operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Count one operation."""
        if not any(view in str(func) for view in VIEWS):
            self.count += 1
        return func(*args, **(kwargs or {}))


def base() -> PreTrainedModel:
    """Return a random BERT of MiniLM's shape."""
    torch.manual_seed(0)
    config = BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536, vocab_size=1000)
    return BertModel(config, add_pooling_layer=False).eval()


def ours(num_tasks: int, rank: int) -> Callable[..., torch.Tensor]:
    """Return a forward pass of an equipped model: (input_ids, task_ids) -> hidden states."""
    names = [f"task{i}" for i in range(num_tasks)]
    model = alter.equip(base(), tasks=names, mta={"adapter": {"r": rank, "lora_alpha": rank}, "num_shared": 0}).eval()
    _randomise(model)
    return lambda ids, tasks: model(input_ids=ids, task_ids=tasks).last_hidden_state


def theirs(num_tasks: int, rank: int) -> Callable[..., torch.Tensor]:
    """Return a forward pass of PEFT's LoRA with one adapter name per row."""
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=r".*(intermediate|layer\.\d+\.output)\.dense")
    model = get_peft_model(base(), config, adapter_name="task0")
    for i in range(1, num_tasks):
        model.add_adapter(f"task{i}", config)
    model.eval()
    _randomise(model)
    return lambda ids, tasks: model(input_ids=ids, adapter_names=[f"task{i}" for i in tasks.tolist()]).last_hidden_state


def _randomise(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02)


def measure(num_tasks: int, *, rows: int, tokens: int, rank: int, repeats: int) -> dict[str, float]:
    """Time both, interleaved."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 1000, (rows, tokens), generator=generator)
    tasks = torch.arange(rows) % num_tasks
    passes = {"alter": ours(num_tasks, rank), "peft": theirs(num_tasks, rank)}
    ops = {}
    times: dict[str, list[float]] = {name: [] for name in passes}
    with torch.inference_mode():
        for name, run in passes.items():
            with CountOps() as counter:
                run(ids, tasks)
            ops[name] = counter.count
        for _ in range(repeats):
            for name, run in passes.items():
                started = time.perf_counter()
                run(ids, tasks)
                times[name].append(time.perf_counter() - started)
    ratios = [theirs / mine for theirs, mine in zip(times["peft"], times["alter"], strict=True)]
    return {
        "tasks": num_tasks,
        "peft_over_alter": round(statistics.median(ratios), 2),
        "ops_alter": ops["alter"],
        "ops_peft": ops["peft"],
    }


def main() -> None:
    """Print one JSON line per number of tasks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, nargs="+", default=[2, 4, 8, 16])
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    for num_tasks in options.tasks:
        found = measure(num_tasks, rows=options.rows, tokens=options.tokens, rank=options.rank, repeats=options.repeats)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
