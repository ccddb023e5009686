"""Environment and files: what numbers came from."""

from __future__ import annotations

from alter.errors import counted
from alter.reporting.arms import Part
from alter.reporting.blocks import Block, Cell, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import NONE, clean, listed

TITLE = "Environment"


def piece(part: Part) -> Piece:
    """Show versions and machines."""
    known = {where: found for where, found in part.environments.items() if found}
    if not known:
        return Piece(reading=["The files do not say which versions and machine their numbers came from."])
    names = list(dict.fromkeys(name for found in known.values() for name in found))
    differing = [name for name in names if len({found.get(name) for found in known.values()}) > 1]
    sentence = (
        f"Not all numbers came from the same environment: {listed(differing)} differ."
        if differing
        else f"All numbers came from alter {next(iter(known.values())).get('alter', 'of an unknown version')}, torch "
        f"{next(iter(known.values())).get('torch', 'of an unknown version')}."
    )
    one = {"all": next(iter(known.values()))} if not differing else known
    heads = ["value"] if not differing else list(one)
    rows = [[Cell(name), *(Cell(clean(found.get(name, NONE))) for found in one.values())] for name in names]
    blocks: list[Block] = [Table(caption="Versions and machine", columns=["", *heads], rows=rows, num_text=1 + len(heads))]
    return Piece(reading=[f"{counted(len(part.folders), 'folder')} read. {sentence}"], blocks=blocks)
