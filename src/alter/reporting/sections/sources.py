"""Environment and files: what numbers came from."""

from __future__ import annotations

from collections.abc import Mapping

from alter.errors import counted
from alter.reporting.arms import Part
from alter.reporting.blocks import Block, Cell, Table
from alter.reporting.sections._piece import Piece
from alter.reporting.words import NONE, clean, listed

TITLE = "Environment"
OUTSIDE = "adapters-"
"""Peers of this name were trained by the library adapters, in an environment of their own (docs/how-to/peft-peers.md)."""


def piece(part: Part) -> Piece:
    """Show versions and machines."""
    known = {where: found for where, found in part.environments.items() if found}
    if not known:
        return Piece(reading=["The files do not say which versions and machine their numbers came from.", *_outside(part)])
    names = list(dict.fromkeys(name for found in known.values() for name in found))
    differing = [name for name in names if len({found.get(name) for found in known.values()}) > 1]
    sentence = (
        f"Not all numbers came from the same environment: {listed(differing)} differ."
        if differing
        else _one_environment(part, next(iter(known.values())))
    )
    one = {"all": next(iter(known.values()))} if not differing else known
    heads = ["value"] if not differing else list(one)
    rows = [[Cell(name), *(Cell(clean(found.get(name, NONE))) for found in one.values())] for name in names]
    blocks: list[Block] = [Table(caption="Versions and machine", columns=["", *heads], rows=rows, num_text=1 + len(heads))]
    return Piece(reading=[f"{counted(len(part.folders), 'folder')} read. {sentence}", *_outside(part)], blocks=blocks)


def _one_environment(part: Part, found: Mapping[str, str]) -> str:
    """Say what is known: a run directory has its own environment, and compare.json that of the last call alone."""
    versions = f"alter {found.get('alter', 'of an unknown version')}, torch {found.get('torch', 'of an unknown version')}"
    if part.is_last_call:
        return f"The last call of alter compare ran with {versions}; arms may come from other environments."
    if part.is_comparison:
        which = "were read" if all(run.results.environment for arm in part.arms for run in arm.runs) else "say so"
        return f"All run directories that {which} have {versions}; arms without one may come from other environments."
    return f"All numbers came from {versions}."


def _outside(part: Part) -> list[str]:
    names = [arm.name for arm in part.arms if arm.name.startswith(OUTSIDE) and arm.family == "peer" and arm.members]
    return [f"Trained by another program, whose versions are not known here: {listed(names)}."] if names else []
