"""The command `alter` as tests run it: in this process for speed, or as a process of its own where that is the point."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VERBS = ("train", "compare", "evaluate", "predict", "validate", "list", "pretrain", "merge", "extract", "report", "demo")
COMMAND = (sys.executable, "-m", "alter")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON document."""
        return json.loads(self.out)

    @property
    def json_lines(self) -> list[Any]:
        """Standard output as one JSON document a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def error(self) -> dict[str, str]:
        """The JSON error that ends standard error."""
        found = json.loads(self.err.splitlines()[-1])
        assert isinstance(found, dict)
        return found


class Alter:
    """Calls the entry point of `alter` in this process, as the installed script does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch = monkeypatch
        self.capsys = capsys

    def __call__(self, *arguments: object) -> Outcome:
        from alter.cli import main

        self.monkeypatch.setattr(sys, "argv", ["alter", *map(str, arguments)])
        self.capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = self.capsys.readouterr()
        code = stopped.value.code
        assert code is None or isinstance(code, int)
        assert "Traceback" not in out + err
        return Outcome(code=code or 0, out=out, err=err)

    def works(self, *arguments: object) -> Outcome:
        """Run a command that must succeed."""
        outcome = self(*arguments)
        assert outcome.code == 0, outcome.err
        return outcome

    def refuses(self, *arguments: object) -> str:
        """Run a command that must fail with a message and exit code 2, and return standard error on one line."""
        outcome = self(*arguments)
        assert outcome.code == 2, outcome
        assert outcome.out == ""
        return " ".join(outcome.err.split())


def environment() -> dict[str, str]:
    """Return the environment of a child: this checkout's `alter`, one thread, wide tables."""
    paths = [str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "COLUMNS": "200", "HF_HUB_OFFLINE": "1"}


def run_process(*arguments: object, stdin: str | bytes = "", cwd: Path | None = None) -> Outcome:
    """Run `alter` as a process of its own."""
    given = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)], input=given, capture_output=True, env=environment(), cwd=cwd, timeout=300, check=False
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in out + err
    return Outcome(code=done.returncode, out=out, err=err)


@contextmanager
def another_writer(folder: Path) -> Iterator[None]:
    """Hold the lock of a run directory, as a training process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write("4711")
        lock.flush()
        yield
