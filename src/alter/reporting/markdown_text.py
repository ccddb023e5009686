"""A report as Markdown: the same sentences and tables; of figures what they show, in words."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from alter.reporting.blocks import Block, Example, Examples, Figures, Fold, Note, Report, Section, Table

_SIGNS = re.compile(r"([\\`*_\[\]#|~])")


def to_markdown(report: Report) -> str:
    """Return a report as GitHub-flavoured Markdown."""
    lines = [f"# {escaped(report.title)}", ""]
    for section in report.shown.sections:
        lines += _section(section)
    return "\n".join(lines).rstrip() + "\n"


def escaped(text: str) -> str:
    """Return text that Markdown shows as it is, and in which no HTML works."""
    return _SIGNS.sub(r"\\\1", text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {escaped(section.title)}", "")
    yield from _sentences(section.reading)
    yield from _blocks(section.blocks, level=3)


def _sentences(sentences: Iterable[str]) -> Iterator[str]:
    found = [f"- {escaped(sentence)}" for sentence in sentences]
    yield from [*found, ""] if found else []


def _blocks(blocks: Iterable[Block], *, level: int) -> Iterator[str]:
    for block in blocks:
        yield from _block(block, level)


def _block(block: Block, level: int) -> Iterator[str]:
    if isinstance(block, Table):
        yield from _table(block)
    elif isinstance(block, Figures):
        yield from _figures(block)
    elif isinstance(block, Examples):
        yield from _examples(block)
    elif isinstance(block, Fold):
        yield from (f"{'#' * level} {escaped(block.title)}", "")
        yield from _sentences(block.reading)
        yield from _blocks(block.blocks, level=min(6, level + 1))
    else:
        assert isinstance(block, Note)
        yield from (escaped(block.text), "")


def _table(table: Table) -> Iterator[str]:
    yield from (f"{escaped(table.caption)}:", "")
    yield _line(escaped(column) for column in table.columns)
    yield _line("---" if position < table.num_text else "---:" for position in range(len(table.columns)))
    for row in table.rows:
        yield _line(f"**{escaped(cell.text)}**" if cell.is_best else escaped(cell.text) for cell in row)
    yield ""


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figures(block: Figures) -> Iterator[str]:
    if block.caption:
        yield from (escaped(block.caption), "")
    for figure in block.figures:
        yield f"- Figure: {escaped(figure.title)}. {escaped(figure.alt)}"
    yield ""


def _examples(block: Examples) -> Iterator[str]:
    yield from (f"{escaped(block.caption)}:", "")
    yield from [_example(row) for row in block.rows]
    yield ""


def _example(row: Example) -> str:
    facts = "".join(f"; {escaped(name)} {escaped(value)}" for name, value in row.facts)
    return f"- {escaped(row.input)} -> {escaped(row.answer)}, right: {escaped(row.target)}{facts}"
