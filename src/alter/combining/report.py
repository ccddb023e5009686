"""What a merge did: handed back, printed by the command, and written into the model card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from alter.merging._method import Method


@dataclass(frozen=True, kw_only=True)
class MergeReport:
    """A finished merge.

    Attributes:
        folder: the merged model.
        kind: `checkpoint` (plain model folders), `model` (models of alter, each task keeps its adapters) or `adapter` (their tasks'
            adapters became one).
        models: what was merged, as given.
        method: the merge method; None where nothing but tasks was put together.
        settings: the method's settings.
        tasks: the tasks that the result answers; none for a checkpoint.
        lengths: model (or task) -> length of its task vector over the length of the base's tensors, where the base is known; of
            adapters the length of the task vector itself.
        relative_error: what cutting the merged adapter to its rank lost: length of the difference over the length of the whole.
    """

    folder: Path
    kind: Literal["checkpoint", "model", "adapter"]
    models: Sequence[str]
    method: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: Sequence[str] = ()
    lengths: dict[str, float] = field(default_factory=dict)
    relative_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "folder": str(self.folder)}

    def card(self, base: str | None) -> str:
        """Return the model card, README.md of the result."""
        head = {"base_model": base, "base_model_relation": "merge", "tags": ["merge", *([self.method] if self.method else [])]}
        how = "Each task keeps its own adapters, gates and head."
        if self.method is not None:
            how = f"Merge method: `{self.method}`, settings {self.settings}."
        lines = [
            "---",
            yaml.safe_dump(head, sort_keys=False).strip(),
            "---",
            "",
            f"# {self.folder.name}",
            "",
            f"Made by alter merge. {how}",
        ]
        lines += ["", "Merged:", "", *(f"- `{model}`" for model in self.models), ""]
        if self.tasks:
            lines += ["Tasks:", "", *(f"- {task}" for task in self.tasks), ""]
        if self.lengths:
            lines += [
                "Relative length of the task vectors:",
                "",
                *(f"- {name}: {value:.4g}" for name, value in self.lengths.items()),
                "",
            ]
        if self.relative_error is not None:
            lines += [f"Relative error of the cut to the adapter's rank: {self.relative_error:.4g}.", ""]
        lines += ["## Limits", "", "No score is known of the merged model: evaluate it. The licences of all its parts apply.", ""]
        return "\n".join(lines)


def told(method: Method | None) -> dict[str, Any]:
    """Return what a report says of a method."""
    return {} if method is None else {"method": method.name, "settings": method.settings.model_dump()}
