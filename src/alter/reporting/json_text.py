"""A report as JSON: its sentences, its tables with numbers that are not rounded, and what its figures show."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from alter.reporting.blocks import Block, Cell, Examples, Figures, Fold, Note, Report, Table
from alter.results import finite


def to_json(report: Report) -> dict[str, Any]:
    """Return a report as plain data."""
    sections = [
        {"key": one.key, "title": one.title, "reading": list(one.reading), "blocks": _blocks(one.blocks)}
        for one in report.sections
    ]
    content: dict[str, Any] = finite({"title": report.title, "sections": sections})
    return content


def _blocks(blocks: Iterable[Block]) -> list[dict[str, Any]]:
    return [_block(block) for block in blocks]


def _block(block: Block) -> dict[str, Any]:
    if isinstance(block, Table):
        rows = [[_value(cell) for cell in row] for row in block.rows]
        return {"kind": "table", "caption": block.caption, "columns": list(block.columns), "rows": rows}
    if isinstance(block, Figures):
        figures = [{"kind": type(one).__name__.lower(), **dataclasses.asdict(one)} for one in block.figures]
        return {"kind": "figures", "caption": block.caption, "figures": figures}
    if isinstance(block, Examples):
        rows_ = [{"input": one.input, "answer": one.answer, "target": one.target, **dict(one.facts)} for one in block.rows]
        return {"kind": "examples", "caption": block.caption, "rows": rows_}
    if isinstance(block, Fold):
        return {"kind": "group", "title": block.title, "reading": list(block.reading), "blocks": _blocks(block.blocks)}
    assert isinstance(block, Note)
    return {"kind": "note", "text": block.text}


def _value(cell: Cell) -> Any:
    """Return what a cell means to a machine; `-` stands for nothing."""
    if cell.value is not None:
        return cell.value
    return None if cell.text == "-" else cell.text
