"""The model card: README.md of a model directory, in the hub's format."""

from __future__ import annotations

import yaml

from alter.errors import counted
from alter.model_config import AlterConfig
from alter.results import Results


def model_card(config: AlterConfig, results: Results) -> str:
    """Return the card: what the model is, its tasks and scores, how to run it, what it cannot do."""
    head = {
        "library_name": "alter-mta",
        "base_model": config.base.name,
        "base_model_relation": "finetune" if config.mta.sites == "none" and config.peft is None else "adapter",
        "tags": _tags(config),
    }
    lines = ["---", yaml.safe_dump(head, sort_keys=False).strip(), "---", "", f"# {config.name}", ""]
    lines += [
        _what(config, results),
        "",
        "## Tasks",
        "",
        *_task_table(config, results),
        "",
        "## Run it",
        "",
        "```python",
        "import alter",
    ]
    first = config.tasks[0].name
    lines += ['predictor = alter.load("path/to/this/folder")', f'predictor.predict("{first}", ["some text"])', "```", ""]
    if config.mta.adapter.kind == "lora" and config.mta.sites != "none":
        lines += [
            "Each folder under `adapters/` is one task's LoRA in PEFT's format. On its own it is the task's adapter without shared",
            "adapters and gates; these are in `shared/` and `gates.safetensors`.",
            "",
        ]
    lines += [
        "## Limits",
        "",
        "Scores are on the recipe's own data; texts of another kind may fare worse. The data's licences apply.",
        "",
    ]
    return "\n".join(lines)


def _tags(config: AlterConfig) -> list[str]:
    if config.peft is not None:
        return ["multi-task", "peft", str(config.peft["peft_type"]).lower()]
    return ["multi-task"] if config.mta.sites == "none" else ["mixture-of-task-adapters", "multi-task", config.mta.adapter.kind]


def _what(config: AlterConfig, results: Results) -> str:
    stage = {"stage1": "stage 1 (task adapters)", "stage2": "stage 2 (task adapters, shared adapters, gate)"}[results.released]
    counts = results.parameters
    added = counts.get("total", 0) - counts.get("backbone", 0)
    changed = "its weights were trained too" if config.base.trained else "its weights are unchanged"
    if config.mta.sites == "none":
        method = "without adapters (`mta.sites: none`)"
        if config.peft is not None:
            method = f"with the method {config.peft['peft_type']} of the library peft (in `adapters/peft/`)"
        return (
            f"`{config.base.name}` {method}, {added:,} added parameters; the base is not in this folder "
            f"unless `backbone.safetensors` is, and {changed}. Seed {results.seed}."
        )
    return (
        f"`{config.base.name}` with Mixture-of-Task-Adapters (ALTER, arXiv 2309.11042): preset `{config.preset}`, adapters of kind "
        f"`{config.mta.adapter.kind}`, {added:,} added parameters; the base is not in this folder unless `backbone.safetensors` is, and "
        f"{changed}. Released: {stage}. Seed {results.seed}."
    )


def _task_table(config: AlterConfig, results: Results) -> list[str]:
    rows = ["| task | answers | metric | validation | test |", "|---|---|---|---|---|"]
    for task in config.tasks:
        cells = []
        for split in ("validation", "test"):
            scores = results.splits.get(split)
            score = scores.tasks.get(task.name) if scores else None
            cells.append(f"{score.score:.1f} ({counted(score.num_examples, 'row')})" if score else "-")
        labels = {"regression": "a number", "generation": "text"}.get(task.kind) or _short(task.labels or [])
        rows.append(f"| {task.name} | {labels} | {task.primary_metric} | {cells[0]} | {cells[1]} |")
    return rows


def _short(labels: list[str]) -> str:
    shown = ", ".join(labels[:6])
    return shown if len(labels) <= 6 else f"{shown}, ... ({len(labels)})"
