"""What an extraction did: handed back, printed by the command, and written into the model card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One split's score of the task, in percent, before and after.

    Attributes:
        metric: the task's primary metric.
        before: the whole model's.
        after: the extracted model's.
        num_examples: rows scored.
    """

    metric: str
    before: float
    after: float
    num_examples: int


@dataclass(frozen=True, kw_only=True)
class ExtractReport:
    """A finished extraction.

    Attributes:
        folder: the extracted model.
        source: the whole model, as given.
        task: the task.
        threshold: least mean weight of an adapter at its best site.
        renormalised: whether the weights of the kept task adapters were raised to the sum that all had.
        kept: adapter, by its name in the whole model -> its name in the extracted one.
        dropped: the other adapters.
        largest: adapter -> its mean weight at the site where it is largest; none where weights depend on rows and none were needed.
        sites: sites with adapters, before and after.
        added_parameters: parameters beside the base, before and after.
        total_parameters: all parameters, before and after.
        scores: split -> scores, where rows were at hand.
        remark: why there are no scores, where there are none.
    """

    folder: Path
    source: str
    task: str
    threshold: float
    renormalised: bool
    kept: Mapping[str, str]
    dropped: list[str]
    largest: Mapping[str, float]
    sites: tuple[int, int]
    added_parameters: tuple[int, int]
    total_parameters: tuple[int, int]
    scores: Mapping[str, Scores] = field(default_factory=dict)
    remark: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "folder": str(self.folder)}


def card(report: ExtractReport, *, base: str, name: str) -> str:
    """Return the model card, README.md of the result."""
    head = {
        "library_name": "alter-mta",
        "base_model": base,
        "base_model_relation": "adapter",
        "tags": ["mixture-of-task-adapters"],
    }
    weights = "raised to the sum that all task adapters had" if report.renormalised else "as they were"
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False).strip(),
        "---",
        "",
        f"# {name}",
        "",
        f"The task `{report.task}` of `{Path(report.source).name}`, taken out by alter extract with the adapters that it uses: those whose "
        f"mean gate weight is at least {report.threshold:g} at any site. Their weights are {weights}.",
        "",
        f"Beside the base {report.added_parameters[1]:,} parameters of {report.added_parameters[0]:,}; {report.sites[1]} of "
        f"{report.sites[0]} sites.",
        "",
        "| adapter of the whole model | here |",
        "|---|---|",
        *(f"| {old} | {new} |" for old, new in report.kept.items()),
        *(f"| {old} | - |" for old in report.dropped),
        "",
        "## Run it",
        "",
        "```python",
        "import alter",
        'predictor = alter.load("path/to/this/folder")',
        f'predictor.predict("{report.task}", ["some text"])',
        "```",
        "",
        "## Limits",
        "",
        "Those of the whole model. The licences of its base and of its data apply.",
        "",
    ]
    return "\n".join(lines)
