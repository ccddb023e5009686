"""A page in headless Chromium: what a script in it found, and how it looks."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here")


def run_chromium(folder: Path, page: Path, *options: str) -> str:
    """Open `page` with nothing of the user's and no network; return what Chromium printed."""
    assert CHROMIUM is not None
    return subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", f"--user-data-dir={folder / 'profile'}", *options, str(page)],
        capture_output=True, text=True, timeout=120, check=True, env={**os.environ, "HOME": str(folder)},
    ).stdout  # fmt: skip


def measure_in_frames(page: str, script: str, folder: Path, *, widths: Sequence[int]) -> list[Any]:
    """Return what `script`, an expression of a frame's document `d`, is in frames of these widths (a window is at least 500 wide)."""
    (folder / "report.html").write_text(re.sub(r"<meta http-equiv.*?>", "", page), encoding="utf-8")
    frames = "".join(
        f"<iframe src=report.html style='border:0;width:{width}px;height:900px' "
        f'onload="{html.escape(f"const d = this.contentDocument; tell({number}, {script})", quote=True)}"></iframe>'
        for number, width in enumerate(widths)
    )
    told = "const told = []; function tell(number, found) { told[number] = found; document.title = JSON.stringify(told) }"
    frame = folder / "frame.html"
    frame.write_text(f"<html><head><title></title><script>{told}</script></head><body>{frames}</body></html>", encoding="utf-8")
    done = run_chromium(
        folder, frame, "--allow-file-access-from-files", "--window-size=1400,1000", "--virtual-time-budget=5000", "--dump-dom"
    )
    title = re.search(r"<title>(.*?)</title>", done)
    assert title is not None
    found: list[Any] = json.loads(html.unescape(title[1]))
    assert len(found) == len(widths)
    return found
