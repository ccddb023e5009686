"""AdapterFusion and MTL-LoRA by the library adapters, on rows that beside.py wrote. Runs in an environment of its own (requirements.txt).

python peer.py JOB      a folder with job.json and rows/<split>/<task>.jsonl; answers go to JOB/answers/

Knows nothing of alter: a row is token ids and a label's number, and an answer is a label's number again.

Shapes: B rows, S tokens, D width, C labels.
"""

from __future__ import annotations

import copy
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import adapters
import numpy as np
import torch
from adapters import AutoAdapterModel  # noqa: F401 - says early that the wrong environment is at work
from adapters.composition import Fuse, MultiTask
from torch import nn
from transformers import AutoModel

Row = dict[str, Any]


class Peer(nn.Module):
    """The base model with the library's adapters, and a head per task on the pooled states."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        super().__init__()
        self.base = AutoModel.from_pretrained(job["base"], dtype=torch.float32)
        adapters.init(self.base)
        self.pooling = job["heads"]["pooling"]
        self.dropout = nn.Dropout(job["heads"]["dropout"])
        self.heads = nn.ModuleList(nn.Linear(self.base.config.hidden_size, task["outputs"]) for task in job["tasks"])
        for head in self.heads:
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)

    def forward(self, batch: Mapping[str, torch.Tensor], tasks: torch.Tensor, *, named: bool) -> list[torch.Tensor]:
        """Return each row's outputs under its own task's head."""
        given = {"task_ids": tasks} if named else {}
        states_BSD = self.base(**batch, **given).last_hidden_state
        mask_BS1 = batch["attention_mask"].unsqueeze(-1).to(states_BSD.dtype)
        if self.pooling == "cls":
            pooled_BD = states_BSD[:, 0]
        elif self.pooling == "max":
            pooled_BD = states_BSD.masked_fill(mask_BS1 == 0, -torch.inf).max(dim=1).values
        else:
            pooled_BD = (states_BSD * mask_BS1).sum(1) / mask_BS1.sum(1).clamp_min(1)
        pooled_BD = self.dropout(pooled_BD)
        return [self.heads[task](row) for task, row in zip(tasks.tolist(), pooled_BD, strict=True)]


def padded(rows: Sequence[Row], pad: int) -> dict[str, torch.Tensor]:
    """Return the rows' columns as tensors, padded on the right."""
    longest = max(len(row["input_ids"]) for row in rows)
    columns = {name: [] for name in ("input_ids", "token_type_ids") if name in rows[0]}
    for row in rows:
        for name, values in columns.items():
            values.append([*row[name], *[pad if name == "input_ids" else 0] * (longest - len(row[name]))])
    mask = [[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in rows]
    return {**{name: torch.tensor(values) for name, values in columns.items()}, "attention_mask": torch.tensor(mask)}


def loss_of(outputs: Sequence[torch.Tensor], rows: Sequence[Row]) -> torch.Tensor:
    """Return the mean over rows: cross-entropy, or squared error of a number."""
    losses = [
        (output[0] - row["target"]) ** 2 if len(output) == 1 else nn.functional.cross_entropy(output, torch.tensor(row["label"]))
        for output, row in zip(outputs, rows, strict=True)
    ]
    return torch.stack(losses).mean()


def rate_of(job: Mapping[str, Any], name: str, stage: str) -> float:
    """Return a parameter's learning rate: the recipe's for heads and adapters; fusion layers have one of their own."""
    rates = job["stages"][stage]["rates"]
    if name.startswith("heads."):
        return float(rates["heads"])
    return float(job["fusion_rate"] if "adapter_fusion_layer" in name else rates["adapters"])


class Learning:
    """Trains what is trainable of a model on some tasks, and ends with the best parameters by validation score."""

    def __init__(self, model: Peer, job: Mapping[str, Any], rows: Mapping[str, Mapping[str, list[Row]]], stage: str) -> None:
        self.model, self.job, self.rows, self.stage = model, job, rows, stage
        self.trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.steps = 0

    def fit(self, tasks: Sequence[int], *, budget: Mapping[str, Any], seed: int, named: bool) -> None:
        """Train for a budget of epochs, and steps at most; `named`: the base is told each row's task."""
        job = self.job
        train = [row for task in tasks for row in self.rows["train"][job["tasks"][task]["name"]]]
        size = job["train"]["batch_size"]
        per_epoch = math.ceil(len(train) / size)
        steps = max(1, min(math.ceil(budget["epochs"] * per_epoch), budget["max_steps"] or math.inf))
        groups = [
            {"params": [p], "lr": rate_of(job, name, self.stage), "weight_decay": job["train"]["weight_decay"] * (p.dim() > 1)}
            for name, p in self.trained.items()
        ]
        optimizer = torch.optim.AdamW(groups)
        warm_up = math.ceil(job["train"]["warmup_ratio"] * steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer,
            lambda step: (step + 1) / (warm_up + 1) if step < warm_up else 1 - (step - warm_up) / max(1, steps - warm_up),
        )
        best, kept = -math.inf, self.copies()
        every = max(1, math.ceil(per_epoch / job["stages"][self.stage]["evals_per_epoch"]))
        for step, batch in enumerate(batches(train, size, seed=seed, steps=steps), start=1):
            self.model.train()
            outputs = self.model(padded(batch, job["pad"]), torch.tensor([row["task"] for row in batch]), named=named)
            loss = loss_of(outputs, batch)
            if self.stage == "stage2":
                loss = loss + self.model.base.get_fusion_regularization_loss()
            loss.backward()
            nn.utils.clip_grad_norm_(list(self.trained.values()), job["train"]["max_grad_norm"])
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            if step % every == 0 or step == steps:
                score = np.mean([self.score(task, named=named) for task in tasks])
                if score > best:
                    best, kept = score, self.copies()
        with torch.no_grad():
            for name, tensor in kept.items():
                self.trained[name].copy_(tensor)
        self.steps += steps

    def copies(self) -> dict[str, torch.Tensor]:
        """Return what is trained as it is now."""
        return {name: parameter.detach().clone() for name, parameter in self.trained.items()}

    def score(self, task: int, *, named: bool) -> float:
        """Return a validation score to choose the best step by; what is reported is scored by alter itself."""
        rows = self.rows["validation"][self.job["tasks"][task]["name"]]
        given = answer(self.model, self.job, task, rows, named=named)
        if self.job["tasks"][task]["outputs"] == 1:
            return -float(np.mean((np.array(given) - [row["target"] for row in rows]) ** 2))
        right = [row["label"] for row in rows]
        if "f1" not in self.job["tasks"][task]["metric"]:
            return float(np.mean(np.array(given) == right))
        f1 = []
        for label in sorted(set(right) | set(given)):
            hits = sum(one == other == label for one, other in zip(given, right, strict=True))
            f1.append(2 * hits / max(1, given.count(label) + right.count(label)))
        return float(np.mean(f1))


def batches(rows: Sequence[Row], size: int, *, seed: int, steps: int) -> Iterator[list[Row]]:
    """Give as many batches as there are steps, through permutations of all rows."""
    order: list[int] = []
    generator = random.Random(seed)
    for _ in range(steps):
        if not order:
            order = generator.sample(range(len(rows)), len(rows))
        yield [rows[position] for position in order[:size]]
        order = order[size:]


@torch.no_grad()
def answer(model: Peer, job: Mapping[str, Any], task: int, rows: Sequence[Row], *, named: bool) -> list[Any]:
    """Return a label's number for each row, or a standardised number."""
    model.eval()
    found: list[Any] = []
    for start in range(0, len(rows), 64):
        part = rows[start : start + 64]
        outputs = model(padded(part, job["pad"]), torch.full((len(part),), task), named=named)
        found += [float(one[0]) if len(one) == 1 else int(one.argmax()) for one in outputs]
    return found


def write(job_folder: Path, arm: str, stage: str, task: str, answers: Mapping[str, list[Any]]) -> None:
    for split, given in answers.items():
        path = job_folder / "answers" / arm / stage / split / f"{task}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(given), encoding="utf-8")


def all_answers(model: Peer, job: Mapping[str, Any], task: int, rows: Any, *, named: bool) -> dict[str, list[Any]]:
    name = job["tasks"][task]["name"]
    return {
        split: answer(model, job, task, rows[split][name], named=named) for split in ("validation", "test") if rows[split][name]
    }


def freeze(model: Peer) -> None:
    model.requires_grad_(False)


def reduction(hidden: int, width: int) -> float:
    """Return the factor by which the library gets an adapter of this width: it rounds down, and hidden / width may be just too large."""
    return hidden / (width + 0.5)


def fusion(job: Mapping[str, Any], rows: Any, folder: Path) -> dict[str, Any]:
    """Run AdapterFusion (arXiv 2005.00247): an adapter a task, each trained alone; then, for each task, a fusion of all adapters."""
    torch.manual_seed(job["seed"])
    model = Peer(job)
    names = [f"t{task}" for task in range(len(job["tasks"]))]
    config = adapters.SeqBnConfig(reduction_factor=reduction(model.base.config.hidden_size, job["width"]))
    for name in names:
        model.base.add_adapter(name, config=config)
    cost: dict[str, Any] = {}
    for stage in ("stage1", "stage2"):
        started, trained, steps = time.monotonic(), 0, 0
        for task, name in enumerate(names):
            freeze(model)
            if stage == "stage1":
                model.base.train_adapter(name)
            else:
                setup = Fuse(*names, name=f"fusion_{name}")
                model.base.add_adapter_fusion(setup)
                model.base.train_adapter_fusion(setup)
            model.heads[task].requires_grad_(True)
            learning = Learning(model, job, rows, stage)
            learning.fit([task], budget=job["stages"][stage], seed=job["seed"] * 1000 + task, named=False)
            trained += sum(parameter.numel() for parameter in learning.trained.values())
            steps += learning.steps
            write(folder, "adapters-fusion", stage, job["tasks"][task]["name"], all_answers(model, job, task, rows, named=False))
        cost[stage] = {"trainable": trained, "steps": steps, "seconds": round(time.monotonic() - started, 2)}
    return {**cost, "total": sum(parameter.numel() for parameter in model.parameters())}


def mtl_lora(job: Mapping[str, Any], rows: Any, folder: Path) -> dict[str, Any]:
    """Run MTL-LoRA (arXiv 2410.09437) on the FFNs: one A, some B, and for each task a matrix between them and weights of the Bs."""
    torch.manual_seed(job["seed"])
    model = Peer(job)
    names = [f"t{task}" for task in range(len(job["tasks"]))]
    config = adapters.MTLLoRAConfig(
        selfattn_lora=False, intermediate_lora=True, output_lora=True, r=job["mtl_rank"], alpha=job["mtl_rank"],
        n_up_projection=job["up_projections"],
    )  # fmt: skip
    for name in names:
        model.base.add_adapter(name, config=copy.deepcopy(config))
    model.base.share_parameters(adapter_names=names)
    setup = MultiTask(*names)
    freeze(model)
    model.base.train_adapter(setup)
    for head in model.heads:
        head.requires_grad_(True)
    started = time.monotonic()
    learning = Learning(model, job, rows, "stage1")
    learning.fit(range(len(names)), budget=job["both"], seed=job["seed"], named=True)
    seconds = round(time.monotonic() - started, 2)
    for task in range(len(names)):
        write(folder, "adapters-mtl-lora", "stage1", job["tasks"][task]["name"], all_answers(model, job, task, rows, named=True))
    trained = sum(parameter.numel() for parameter in learning.trained.values())
    cost = {"stage1": {"trainable": trained, "steps": learning.steps, "seconds": seconds}}
    return {**cost, "total": sum(parameter.numel() for parameter in model.parameters())}


ARMS = {"adapters-fusion": fusion, "adapters-mtl-lora": mtl_lora}


def main() -> None:
    folder = Path(sys.argv[1])
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    rows = {
        split: {
            task["name"]: [
                {**json.loads(line), "task": position}
                for line in (folder / "rows" / split / f"{task['name']}.jsonl").read_text(encoding="utf-8").splitlines()
            ]
            for position, task in enumerate(job["tasks"])
        }
        for split in ("train", "validation", "test")
    }
    versions = {"adapters": adapters.__version__, "torch": torch.__version__, "threads": str(torch.get_num_threads())}
    for arm in job["arms"]:
        cost = ARMS[arm](job, rows, folder)
        told = {"cost": cost, "versions": versions}
        (folder / "answers" / arm / "told.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        print(f"{arm}: {cost}", flush=True)


if __name__ == "__main__":
    main()
