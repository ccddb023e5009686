"""Task vectors: what they are, what they have in common, and vectors made from others tensor by tensor.

Shapes: T task vectors; X stands for the dimensions of a tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import torch

from alter.errors import ConfigError

TaskVector = Mapping[str, torch.Tensor]
Merged = Iterator[tuple[str, torch.Tensor]]


class Changed(TaskVector):
    """A task vector whose tensors are made from another one's when they are asked for, each time anew.

    Args:
        vector: the other one.
        change: (name, float64 tensor) -> the tensor that takes its place; the same for the same name, whenever it is asked.
        names: the names that it has; by default all of the other one's.
    """

    def __init__(
        self, vector: TaskVector, change: Callable[[str, torch.Tensor], torch.Tensor], *, names: Collection[str] | None = None
    ) -> None:
        self._vector = vector
        self._change = change
        self._names = vector if names is None else names

    def __getitem__(self, name: str) -> torch.Tensor:
        return self._change(name, self._vector[name].double())

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def check_vectors(vectors: Sequence[TaskVector]) -> None:
    """Refuse no vectors, and vectors with different names.

    Raises:
        ConfigError: with the first name that is not in all of them.
    """
    if not vectors:
        raise ConfigError("there are no task vectors to merge; give at least one")
    for position, vector in enumerate(vectors):
        if odd := sorted(set(vector) ^ set(vectors[0])):
            raise ConfigError(
                f"task vector {position + 1} and task vector 1 hold different tensors, e.g. '{odd[0]}' is in one of them only; "
                f"merge models of one architecture"
            )


def stacked(vectors: Sequence[TaskVector]) -> Merged:
    """Yield each name with all vectors' tensors of it, (T, X) in float64.

    Raises:
        ConfigError: names or shapes differ.
    """
    check_vectors(vectors)
    for name in vectors[0]:
        tensors = [vector[name].double() for vector in vectors]
        shapes = [tuple(tensor.shape) for tensor in tensors]
        if odd := next((shape for shape in shapes if shape != shapes[0]), None):
            raise ConfigError(
                f"'{name}' has the shape {shapes[0]} in task vector 1 and {odd} in another; merge models of one architecture"
            )
        yield name, torch.stack(tensors)


def weighted_sum(stack_TX: torch.Tensor, weights: Sequence[float] | torch.Tensor) -> torch.Tensor:
    """Return sum_t weights_t stack_t, (X)."""
    weights_T = torch.as_tensor(weights, dtype=torch.float64)
    return (weights_T.reshape(-1, *[1] * (stack_TX.dim() - 1)) * stack_TX).sum(0)


def squared_norms(vectors: Sequence[TaskVector]) -> torch.Tensor:
    """Return the squared length of each vector over all its tensors, (T,)."""
    total_T = torch.zeros(len(vectors), dtype=torch.float64)
    for _, stack_TX in stacked(vectors):
        total_T += stack_TX.square().reshape(len(vectors), -1).sum(-1)
    return total_T
