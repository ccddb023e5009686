"""Yardsticks on a recipe's own rows: fitted on training rows, settings chosen on validation rows, scored on both splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from alter.baselines import BASELINES
from alter.evaluation import Reference, score_task, split_scores
from alter.predictions import texts_of
from alter.results import SplitScores, TaskScore
from alter.training.prepare import Rows

SPLITS = ("validation", "test")


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What a yardstick reached.

    Attributes:
        splits: split -> scores; a task without rows there has none.
        records: split -> task -> input, prediction and target of each row.
    """

    splits: dict[str, SplitScores]
    records: dict[str, dict[str, list[dict[str, Any]]]]


def fit_and_score(rows: Rows, name: str, *, seed: int) -> Yardstick:
    """Fit a yardstick once per task and score it on validation and test rows."""
    fit_predict = BASELINES.get(name)
    scored: dict[str, dict[str, TaskScore]] = {split: {} for split in SPLITS}
    records: dict[str, dict[str, list[dict[str, Any]]]] = {split: {} for split in SPLITS}
    for spec in rows.specs:
        splits = {split: rows.splits[split][spec.name] for split in ("train", *SPLITS)}
        inputs = [*splits["validation"], *splits["test"]]
        answers = iter(fit_predict(spec, splits["train"], splits["validation"], inputs, seed=seed))
        for split in SPLITS:
            given = [next(answers) for _ in splits[split]]
            references: list[Reference] = [
                list(example.references) or example.label for example in splits[split] if example.label is not None
            ]
            if references:
                scored[split][spec.name] = score_task(spec, given, references)
                triples = zip(texts_of(splits)[split], given, references, strict=True)
                records[split][spec.name] = [_record(text, said, right) for text, said, right in triples]
    specs = {spec.name: spec for spec in rows.specs}
    return Yardstick(splits={split: split_scores(found, specs) for split, found in scored.items() if found}, records=records)


def _record(text: str, said: object, right: Reference) -> dict[str, Any]:
    texts = [right] if isinstance(right, str | float) else list(right)
    record: dict[str, Any] = {"input": text, "prediction": said, "target": texts[0]}
    return {**record, "references": texts} if len(texts) > 1 else record
