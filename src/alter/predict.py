"""Predictor: a model directory, ready to answer.

    predictor = alter.load("runs/x")
    [prediction] = predictor.predict("intent", ["the app crashes when I open the calendar"])
    prediction.label, prediction.score
    [prediction] = predictor.predict("subject", ["the app crashes when I open the calendar"])      # a generation
    prediction.text, prediction.score

Shapes: B rows, L sites, E adapters, C outputs of the largest task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from alter.checkpoint import Loaded, load_model
from alter.data.batch import batches_by_length, collate
from alter.data.encode import Features, Scale, encode
from alter.errors import CheckpointError, DataError, TaskError, counted, did_you_mean
from alter.evaluation import answer
from alter.gatemap import over_tokens
from alter.model import MTAModel
from alter.model_config import AlterConfig
from alter.tasks.example import Example
from alter.tasks.row import unlabelled
from alter.tasks.spec import TaskSpec
from alter.writing import Writer

Input = str | Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What the model says of one input.

    Attributes:
        task: the task asked for.
        label: the label; None for the other kinds, and where a model wrote what is no label.
        value: the number of a regression; None for the other kinds, and where a model wrote what is no number.
        text: what a model wrote; None where a head answered or labels were ranked.
        score: probability of the label; of what was written exp of its mean log-likelihood per token; None for a regression's head.
        scores: probability of every label, where a head answered or labels were ranked.
        truncated: whether the input was longer than the model's max_length and was cut.
        gate_weights: adapter -> weight, averaged over sites and tokens, where they were asked for.
    """

    task: str
    label: str | None = None
    value: float | None = None
    text: str | None = None
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    truncated: bool = False
    gate_weights: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that say something, for JSON."""
        full = {
            "task": self.task, "label": self.label, "value": self.value, "text": self.text, "score": self.score,
            "scores": dict(self.scores),
            "truncated": self.truncated or None, "gate_weights": dict(self.gate_weights),
        }  # fmt: skip
        return {key: value for key, value in full.items() if value not in (None, {})}


class Predictor:
    """Answers for any of a model's tasks.

    Args:
        loaded: the model directory, loaded.
    """

    def __init__(self, loaded: Loaded) -> None:
        self.config: AlterConfig = loaded.config
        self.model: MTAModel = loaded.model
        self.codec = loaded.codec
        self.scales = loaded.scales
        self._specs = {task.name: task for task in loaded.config.tasks}

    @property
    def tasks(self) -> list[str]:
        """The tasks' names."""
        return list(self._specs)

    def task(self, name: str) -> TaskSpec:
        """Return a task.

        Raises:
            TaskError: the model has no such task.
        """
        if name not in self._specs:
            raise TaskError(f"this model has no task '{name}'; {did_you_mean(name, self._specs)}")
        return self._specs[name]

    def scale(self, task: str) -> Scale:
        """Return how a regression task's numbers are standardised."""
        return self.scales.get(task, Scale())

    def predict(
        self, task: str | Sequence[str], inputs: Sequence[Input], *, batch_size: int = 64, gate_weights: bool = False
    ) -> list[Prediction]:
        """Answer for each input.

        Args:
            task: one task for all inputs, or one per input (they may be mixed).
            inputs: texts, or rows with the columns that the task's template reads.
            batch_size: rows per forward pass.
            gate_weights: whether predictions carry the weights of the adapters.

        Raises:
            TaskError: a task is unknown, or the numbers of tasks and inputs differ.
            DataError: an input is empty or lacks a column.
            CheckpointError: the model's outputs are no finite numbers.
        """
        if isinstance(inputs, str | Mapping):
            raise DataError(f"predict got one {'text' if isinstance(inputs, str) else 'row'}; give a list of inputs, e.g. [text]")
        names = [task] * len(inputs) if isinstance(task, str) else list(task)
        if len(names) != len(inputs):
            raise TaskError(
                f"{counted(len(names), 'task')} for {counted(len(inputs), 'input')}; give one task, or one for each input"
            )
        return self.answer(self._encode(names, inputs), batch_size=batch_size, gate_weights=gate_weights)

    def answer(self, rows: Sequence[Features], *, batch_size: int = 64, gate_weights: bool = False) -> list[Prediction]:
        """Answer rows that are encoded already; see `predict`."""
        gate_weights = gate_weights and bool(self.model.site_positions)  # plain fine-tuning has none
        if self.model.kind != "encoder":
            return self._write(rows, batch_size=batch_size, gate_weights=gate_weights)
        found: dict[int, Prediction] = {}
        for positions in batches_by_length(rows, batch_size):
            chosen = [rows[position] for position in positions]
            found.update(zip(positions, self._answer(chosen, gate_weights=gate_weights), strict=True))
        return [found[position] for position in range(len(rows))]

    def _encode(self, names: Sequence[str], inputs: Sequence[Input]) -> list[Features]:
        """Return the inputs' features in their order; each task's inputs are tokenised in one call."""
        pairs = zip(names, inputs, strict=True)
        examples = [self._example(name, given, position) for position, (name, given) in enumerate(pairs)]
        found: dict[int, Features] = {}
        for task_id, (name, spec) in enumerate(self._specs.items()):
            mine = [position for position, example in enumerate(examples) if example.task == name]
            encoded = encode([examples[position] for position in mine], spec, task_id=task_id, codec=self.codec)
            found.update(zip(mine, encoded, strict=True))
        return [found[position] for position in range(len(examples))]

    def _example(self, name: str, given: Input, position: int) -> Example:
        spec = self.task(name)
        if not isinstance(given, str | Mapping):
            raise DataError(
                f"input {position + 1} is a {type(given).__name__} ({given!r}); an input is a text, or a row: {{'text': ...}}"
            )
        return unlabelled(spec, given, place=f"input {position + 1}")

    def _write(self, rows: Sequence[Features], *, batch_size: int, gate_weights: bool) -> list[Prediction]:
        """Answer rows with a model that writes."""
        specs = dict(enumerate(self.config.tasks))
        writer = Writer(model=self.model, codec=self.codec, specs=specs, batch_size=batch_size, details=True)
        names = adapter_names(self.model)
        found = []
        for row, given in zip(rows, writer.answer(rows), strict=True):
            spec = self.config.tasks[row.task_id]
            weights = torch.stack(list(given.weights.values())).mean(0).tolist() if gate_weights else []
            found.append(
                Prediction(
                    task=spec.name,
                    label=str(given.value) if spec.kind == "classification" and given.is_valid else None,
                    value=given.value if isinstance(given.value, float) and given.is_valid else None,
                    text=given.text,
                    score=given.score,
                    scores=given.scores,
                    truncated=row.truncated,
                    gate_weights=dict(zip(names, weights, strict=True)) if gate_weights else {},
                )
            )
        return found

    def _answer(self, rows: Sequence[Features], *, gate_weights: bool) -> list[Prediction]:
        batch = collate(rows, self.codec).to(self.model.device)
        self.model.eval()
        with torch.inference_mode(), ExitStack() as stack:
            recorded = stack.enter_context(self.model.record_weights()) if gate_weights else {}
            logits_BC = self.model(**batch.inputs, task_ids=batch.task_ids_B).logits.float().cpu()
        weights: list[Mapping[str, float]] = [{} for _ in rows]
        if gate_weights:
            weights = self._named(mean_weights(recorded, batch.inputs["attention_mask"]))
            recorded.clear()  # the model would keep them until the next recording
        return [self._prediction(row, logits_BC[position], weights=weights[position]) for position, row in enumerate(rows)]

    def _named(self, weights_BE: torch.Tensor) -> list[Mapping[str, float]]:
        names = adapter_names(self.model)
        return [dict(zip(names, row, strict=True)) for row in weights_BE.tolist()]

    def _prediction(self, row: Features, output_C: torch.Tensor, *, weights: Mapping[str, float]) -> Prediction:
        spec = self.config.tasks[row.task_id]
        mine = output_C[: 1 if spec.labels is None else len(spec.labels)]
        if not mine.isfinite().all():
            raise CheckpointError(
                f"the model is broken: its outputs for task '{spec.name}' are {mine.tolist()[:5]}, "
                f"not finite numbers; its weights are damaged or its training diverged. Copy the model again, or train again"
            )
        given = answer(output_C, spec, self.scale(spec.name))
        if isinstance(given, float):
            return Prediction(task=spec.name, value=given, truncated=row.truncated, gate_weights=weights)
        labels = spec.labels or []
        probabilities = torch.softmax(output_C[: len(labels)], dim=-1).tolist()
        scores = dict(zip(labels, probabilities, strict=True))
        return Prediction(
            task=spec.name, label=given, score=scores[given], scores=scores, truncated=row.truncated, gate_weights=weights
        )


def adapter_names(model: MTAModel) -> list[str]:
    """Return a name per adapter: its task's, or `adapter-i` where there are fewer than tasks, and `shared-j`."""
    own = len(model.task_names) == model.num_adapters
    names = list(model.task_names) if own else [f"adapter-{position}" for position in range(model.num_adapters)]
    return names + [f"shared-{position}" for position in range(model.settings.num_shared)]


def mean_weights(recorded: Mapping[int, torch.Tensor], mask_BS: torch.Tensor) -> torch.Tensor:
    """Return gate weights averaged over sites, and over real tokens where they differ by token, (B, E)."""
    return torch.stack([over_tokens(weights, mask_BS) for weights in recorded.values()]).mean(0).cpu()


def load(path: str | Path, *, device: torch.device | str | None = None) -> Predictor:
    """Load a run directory or a model directory.

    Args:
        path: the run directory, or its `model/` folder.
        device: where to put the model; by default a CUDA device where there is one, otherwise the CPU.

    Raises:
        ConfigError: this machine has no such device.
        CheckpointError: missing, truncated, foreign, or its base is another model now.
        ModelError: the base cannot be loaded.
    """
    return Predictor(load_model(path, device=device))
