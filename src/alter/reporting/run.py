"""A report, from folders to pages: what `alter report` does.

folders -> told apart (run, comparison) -> parts -> sections -> HTML, Markdown or JSON
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from alter.comparison import NAME
from alter.errors import CheckpointError, ConfigError, counted
from alter.reporting.arms import Part
from alter.reporting.blocks import Block, Cell, Fold, Report, Section, Table
from alter.reporting.comparison_part import comparison_part
from alter.reporting.files import Files
from alter.reporting.run_folder import RECIPE, RESULTS
from alter.reporting.runs_part import runs_part
from alter.reporting.sections import sections_of
from alter.reporting.words import bytes_text, listed
from alter.results import write_text

EXPECTED = "give the --output-dir of a finished `alter train` or `alter compare`"


def gather(folders: Sequence[str | Path]) -> Report:
    """Read run directories and comparisons into one report; nothing is trained, loaded or fetched.

    Raises:
        CheckpointError: a folder is neither, its run is not finished, or a file in it is damaged.
    """
    found = _distinct([Path(folder) for folder in folders])
    if not found:
        raise ConfigError(f"no folder is given; {EXPECTED}")
    files = Files()
    comparisons = [folder for folder in found if is_comparison(folder)]
    runs = [folder for folder in found if folder not in comparisons]
    parts = [comparison_part(folder, files) for folder in comparisons]
    if runs:
        parts.append(runs_part(runs, files))
    return Report(title=_title(parts), sections=[_with_files(section, files) for section in sections_of(parts)])


def write_report(report: Report, *, html: Path | None = None, markdown: Path | None = None) -> None:
    """Write a report as one HTML file that needs nothing else, as Markdown, or both.

    Raises:
        ConfigError: matplotlib is missing (HTML), or a file cannot be written.
    """
    if html is not None:
        from alter.reporting.page import to_html

        _write(to_html(report), html, option="--output")
    if markdown is not None:
        from alter.reporting.markdown_text import to_markdown

        _write(to_markdown(report), markdown, option="--markdown")


def is_comparison(folder: Path) -> bool:
    """Tell a comparison's folder from a run directory.

    Raises:
        CheckpointError: it is neither.
    """
    if not folder.exists():
        raise CheckpointError(f"{folder}: no such folder; {EXPECTED}")
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; {EXPECTED}")
    if (folder / NAME).exists():
        return True
    if (folder / RESULTS).exists():
        return False
    if (folder / "arms").is_dir():
        raise CheckpointError(
            f"{folder}: holds an unfinished comparison ({NAME} is missing); finish it with the `alter compare` that began it and --resume"
        )
    if (folder / RECIPE).exists():
        return False  # an unfinished run, which says so itself
    raise CheckpointError(f"{folder}: is no run directory and no comparison ({RESULTS} and {NAME} are missing); {EXPECTED}")


def _distinct(folders: Sequence[Path]) -> list[Path]:
    """Return the folders, one that is named twice once."""
    found: dict[Path, Path] = {}
    for folder in folders:
        found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _title(parts: Sequence[Part]) -> str:
    return f"Report: {listed([part.title for part in parts])}"


def _with_files(section: Section, files: Files) -> Section:
    """Add the files that were read to the section on where numbers came from."""
    if section.key != "environment":
        return section
    unique = {str(one.path): one.size for one in files.read}
    rows = [[Cell(path), Cell(bytes_text(size), size)] for path, size in sorted(unique.items())]
    table = Table(caption="Files", columns=["file", "size"], rows=rows)
    blocks: list[Block] = [*section.blocks, Fold(title=f"{counted(len(rows), 'file')} read", blocks=[table])]
    return dataclasses.replace(section, title="Environment and files", blocks=blocks)


def _write(text: str, path: Path, *, option: str) -> None:
    try:
        write_text(text, path)
    except OSError as error:
        raise ConfigError(f"{path}: the report cannot be written ({error.strerror}); name another file with {option}") from None
