"""The command, as the tests of the command line have it."""

from __future__ import annotations

import pytest
from tests.cli.command import Alter


@pytest.fixture
def alter(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Alter:
    monkeypatch.setenv("COLUMNS", "200")
    return Alter(monkeypatch, capsys)
