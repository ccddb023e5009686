"""Where a pretraining run is: what its checkpoints hold beside tensors."""

from __future__ import annotations

import json
from pathlib import Path

from alter.config import parse
from alter.errors import CheckpointError, ConfigError
from alter.pretraining.blocks import Cursor
from alter.training.state import FORMAT, Progress

STAGE = "stage1"
"""Pretraining is one stage; its checkpoints are named and kept as those of `alter train`."""


class PretrainProgress(Progress):
    """Where a pretraining run is."""

    stage: str = STAGE
    """The only one."""
    step: int = 0
    """Optimizer steps done."""
    cursor: Cursor = Cursor()
    """Where the next block of text begins."""
    blocks: int = 0
    """Blocks learned from, in all processes together."""
    tokens: int = 0
    """Tokens read and written so far."""
    best_loss: float | None = None
    """Lowest held-out loss so far."""
    best_bits_per_character: float | None = None
    """At the same step."""
    curve: list[tuple[int, float, float, float]] = []
    """Step, seconds, held-out loss, bits per character."""


def load_pretrain_progress(folder: Path) -> PretrainProgress:
    """Read a checkpoint's state.json.

    Raises:
        CheckpointError: unreadable, or of another format.
    """
    path = folder / "state.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        seen = content.get("format") if isinstance(content, dict) else None
        if seen != FORMAT:
            raise CheckpointError(
                f"{path}: format {seen!r}, this version reads format {FORMAT}; resume with the version that wrote it"
            )
        return parse(PretrainProgress, content, where=str(path))
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}); delete {folder} to resume from an earlier checkpoint") from None
