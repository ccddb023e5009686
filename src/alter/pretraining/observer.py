"""What pretraining tells whoever watches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True)
class PretrainReport:
    """One log step: the mean loss since the last one."""

    step: int
    seconds: float
    share: float
    """How much of the run is over, by steps or by the clock."""
    loss: float
    learning_rate: float
    grad_norm: float
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """A measurement on validation text."""

    step: int
    seconds: float
    loss: float
    """Nats per target token."""
    bits_per_character: float
    """Bits per character of target text, sentinels and ends included in the bits: comparable across tokenizers."""


class PretrainObserver(Protocol):
    """Watches pretraining; all methods return at once."""

    def started(self, *, first_step: int, max_steps: int | None, max_seconds: float | None, trainable: int, total: int) -> None:
        """Hear that training begins, or goes on at `first_step`."""

    def stepped(self, step: int, share: float) -> None:
        """Hear that an optimizer step is done."""

    def logged(self, report: PretrainReport) -> None:
        """Hear the loss since the last report."""

    def measured(self, found: HeldOut, *, best: bool) -> None:
        """Hear a held-out loss."""

    def told(self, message: str) -> None:
        """Hear what is being done before training."""

    def closed(self) -> None:
        """Hear that training is over."""


class Unwatched:
    """An observer that shows nothing."""

    def started(self, *, first_step: int, max_steps: int | None, max_seconds: float | None, trainable: int, total: int) -> None:
        """Show nothing."""

    def stepped(self, step: int, share: float) -> None:
        """Show nothing."""

    def logged(self, report: PretrainReport) -> None:
        """Show nothing."""

    def measured(self, found: HeldOut, *, best: bool) -> None:
        """Show nothing."""

    def told(self, message: str) -> None:
        """Show nothing."""

    def closed(self) -> None:
        """Show nothing."""
