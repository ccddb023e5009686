"""The two presets: what a recipe is laid over.

`alter` follows the authors' reference code (EasyNLP, examples/mta): FFN copies in one block, a selector over all adapters at
temperature 0.1 that starts at 0.22 for the two adapters a task owns and 0.20 elsewhere, the whole model trained in stage 1, and in
stage 2 shared adapters under the gate network on adapter outputs.

`alter-lite` is the default: LoRA on every FFN, the backbone frozen, task-level weights, so that each task folds into one LoRA.
Stage 2 gets half an epoch in both: it must not cost more than a fifth of the time, and twice as long did no better with `alter-lite`
(docs/results.md, forms of stage 2); with `alter` half an epoch was not measured.
Rates, sites and pooling were compared on validation rows, with one seed; docs/results.md holds the sweep and says what was not tried.
"""

from __future__ import annotations

from typing import Any

PRESETS: dict[str, dict[str, Any]] = {
    "alter-lite": {
        "mta": {
            "adapter": {"kind": "lora", "r": 8, "lora_alpha": 8.0, "dropout": 0.0},
            "num_shared": 2,
            "sites": "all",
            "selector": {"kind": "one_hot"},
            "gate": {"kind": "task", "over": "shared"},
        },
        "stages": {
            "stage1": {
                "router": "selector",
                "trains": ["task_adapters", "selector", "heads"],
                "num_train_epochs": 4,
                "learning_rates": {"adapters": 1e-3, "heads": 5e-3, "selector": 3e-3},
            },
            "stage2": {
                "router": "gate",
                "trains": ["shared_adapters", "gate", "heads"],
                "num_train_epochs": 0.5,
                "evals_per_epoch": 2,
                "learning_rates": {"adapters": 2e-4, "heads": 2e-4, "gate": 3e-3},
            },
        },
    },
    "alter": {
        "mta": {
            "adapter": {"kind": "ffn_clone", "dropout": 0.0},
            "num_shared": 2,
            "sites": "last",
            "selector": {"kind": "selector", "temperature": 0.1, "own_logit": 0.22, "other_logit": 0.20, "num_owned": 2},
            "gate": {"kind": "outputs"},
        },
        "stages": {
            "stage1": {
                "router": "selector",
                "trains": ["backbone", "task_adapters", "selector", "heads"],
                "num_train_epochs": 3,
                "learning_rates": {"adapters": 1e-4, "heads": 5e-3, "selector": 3e-3, "backbone": 1e-4},
            },
            "stage2": {
                "router": "gate",
                "trains": ["shared_adapters", "gate", "heads"],
                "num_train_epochs": 0.5,
                "evals_per_epoch": 2,
                "learning_rates": {"adapters": 1e-4, "heads": 1e-4, "gate": 1e-3},
            },
        },
    },
}
