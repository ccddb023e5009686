"""The run directory: who may write to it, and what is in it already."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from alter.config import dump_yaml, parse, read_yaml
from alter.errors import CheckpointError, ConfigError
from alter.recipe import Recipe
from alter.results import write_text
from alter.tensors import write_error
from alter.training.state import checkpoints_in

RECIPE = "recipe.yaml"
RESULTS = "results.json"
COMPARISON = ("compare.json", "arms")
"""What a comparison leaves in its folder."""


class RunDirectory:
    """A run directory, locked against a second writer while this object is entered.

    Args:
        folder: the directory; made if it is not there.
        recipe: the run's resolved recipe.
        resume: go on with the run that is there.
        writes: False in all processes but the main one, which neither lock nor write.
        results: the file that a finished piece of work leaves.
        begun: folder -> whether work was begun in it that a new one must not mix with.
        others: what work of another kind leaves in its folder, where this work has no place.
    """

    def __init__(
        self,
        folder: Path,
        recipe: Recipe,
        *,
        resume: bool,
        writes: bool = True,
        results: str = RESULTS,
        begun: Callable[[Path], bool] = lambda folder: bool(checkpoints_in(folder / "checkpoints")),
        others: Sequence[str] = COMPARISON,
    ) -> None:
        self.folder = folder
        self.recipe = recipe
        self.resume = resume
        self.writes = writes
        self.results = results
        self.begun = begun
        self.others = others
        self._lock: int | None = None

    @property
    def finished(self) -> bool:
        """Whether the run in it is over."""
        return (self.folder / self.results).exists()

    def __enter__(self) -> RunDirectory:
        """Lock the directory, check what is there and write the resolved recipe.

        Raises:
            CheckpointError: another process writes here, another run is here, or there is nothing to resume.
        """
        if not self.writes:
            return self
        if self.resume and not self.folder.exists():  # a mistyped folder is not made
            raise self._nothing_to_resume()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: cannot be made or written ({error.strerror}); choose another --output-dir"
            ) from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            writer = os.read(self._lock, 32).decode() or "unknown"
            os.close(self._lock)
            self._lock = None
            raise CheckpointError(
                f"{self.folder}: another process (pid {writer}) is training here; wait for it, or choose another --output-dir"
            ) from None
        os.ftruncate(self._lock, 0)
        os.write(self._lock, str(os.getpid()).encode())
        try:
            self._check()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Let others write here."""
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _check(self) -> None:
        strange = next((name for name in self.others if (self.folder / name).exists()), None)
        if strange is not None:
            raise CheckpointError(f"{self.folder}: holds work of another kind ({strange} is there); choose another --output-dir")
        saved = self.folder / RECIPE
        wanted = resolved(self.recipe)
        if not saved.exists():
            if self.begun(self.folder) or self.finished:
                raise CheckpointError(
                    f"{self.folder}: holds results of something else ({RECIPE} is missing); choose another --output-dir"
                )
            if self.resume:
                raise self._nothing_to_resume()
            self._write(wanted, saved)
            return
        try:
            before = read_yaml(saved.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(
                f"{saved}: cannot be read ({error}); put the run's recipe back, or choose another --output-dir"
            ) from None
        if not self.resume:
            if not self.finished and not self.begun(self.folder):
                self._write(wanted, saved)  # a run that never saved anything
                return
            if self.finished and self.results == RESULTS:  # other work may have more to do when it is begun again
                raise CheckpointError(
                    f"{self.folder}: holds a finished run; choose another --output-dir, or delete it first (--resume would train "
                    f"nothing more, and show its results again)"
                )
            state = "finished work" if self.finished else "an unfinished run"
            raise CheckpointError(f"{self.folder}: holds {state}; add --resume to go on with it, or choose another --output-dir")
        changed = sorted(_differences(self._completed(before), wanted))
        if changed:
            raise CheckpointError(
                f"{self.folder}: its run has other settings than this recipe ({', '.join(changed[:5])}); resume with the recipe it was "
                f"started with ({saved}), or choose another --output-dir"
            )

    def _completed(self, before: Any) -> Any:
        """Return a saved recipe with the settings that it lacks, which later versions have: as they are by default, they change nothing."""
        try:
            return resolved(parse(type(self.recipe), before, where=str(self.folder / RECIPE)))
        except ConfigError:  # of settings that there are no more: the comparison names them
            return before

    def _nothing_to_resume(self) -> CheckpointError:
        return CheckpointError(
            f"nothing to resume in {self.folder} ({RECIPE} is missing); drop --resume, or give the run's folder as --output-dir"
        )

    @staticmethod
    def _write(wanted: dict[str, Any], path: Path) -> None:
        try:
            write_text(dump_yaml(wanted), path)
        except OSError as error:
            raise write_error(error, path) from error


def resolved(recipe: Recipe) -> dict[str, Any]:
    """Return what recipe.yaml holds: every setting, so that reading it gives this recipe whatever the preset becomes."""
    return recipe.model_dump(mode="json")


def _differences(before: Any, now: Any, path: str = "") -> list[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = list(dict.fromkeys([*before, *now]))
        return [found for key in keys for found in _differences(before.get(key), now.get(key), f"{path}.{key}".lstrip("."))]
    if isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = zip(before, now, strict=True)
        return [found for position, (old, new) in enumerate(pairs) for found in _differences(old, new, f"{path}.{position}")]
    return [] if before == now else [path or "recipe"]
