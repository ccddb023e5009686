"""What lies beside the weights of a plain model folder and goes with them: configurations, tokenizers, templates, licences."""

from __future__ import annotations

import shutil
from pathlib import Path

WEIGHTS = frozenset(
    {
        ".bin",
        ".ckpt",
        ".gguf",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
        ".ot",
        ".pb",
        ".pkl",
        ".pt",
        ".pth",
        ".safetensors",
        ".tflite",
        ".xml",
    }
)
"""Endings of files that hold weights, states of optimizers or exported graphs: of the first model alone, not of the merged one."""
TRACES = frozenset(
    {
        "README.md",
        "adapter_config.json",
        "all_results.json",
        "eval_results.json",
        "train_results.json",
        "trainer_state.json",
    }
)
"""What says how the first model came to be."""
TRACE_FOLDERS = ("__pycache__", "checkpoint-*", "global_step*", "runs", "wandb")


def copy_beside(folder: Path, draft: Path) -> None:
    """Copy all files but weights, traces of training and what is hidden, sub-folders included."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            # A link may lead to a folder above, which has no end.
            if not path.is_symlink() and not any(path.match(pattern) for pattern in TRACE_FOLDERS):
                copy_beside(path, draft / path.name)
        elif path.is_file() and _goes_along(path):
            draft.mkdir(exist_ok=True)
            shutil.copy(path, draft / path.name)


def _goes_along(path: Path) -> bool:
    if path.suffix in WEIGHTS or path.name in TRACES:
        return False
    return not path.name.endswith(".index.json") and not path.name.startswith("events.out.tfevents")
