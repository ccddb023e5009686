"""Markdown of a comparison for docs/results.md: scores with both averages, questions, stages, budget.

    python benchmarks/comparison_tables.py runs/compare/social
    python benchmarks/comparison_tables.py benchmarks/results/compare/social --into docs/results.md

Reads only compare.json, which `alter compare` wrote. With --into the tables replace those between `<!-- tables of social -->` and
`<!-- end of tables -->`, the folder's name being the comparison's.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alter.comparing.tables import budget_table, differences_table, scores_table, stages_table
from alter.comparison import Comparison, read_comparison
from alter.errors import CheckpointError


def scores(comparison: Comparison) -> str:
    """Return the table of test scores with the average on validation rows before the one on test rows."""
    validation = {cells[0]: cells for cells in map(_cells, scores_table(comparison, "validation").splitlines())}
    lines = []
    for number, cells in enumerate(map(_cells, scores_table(comparison, "test").splitlines())):
        at = _cells(scores_table(comparison, "test").splitlines()[0]).index("average")
        if number == 0:
            lines.append([*cells[:at], "average, validation", "average, test", *cells[at + 1 :]])
        elif number == 1:
            lines.append(["---", *["---:"] * len(cells)])
        else:
            lines.append([*cells[:at], validation[cells[0]][at], *cells[at:]])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def tables(comparison: Comparison) -> str:
    """Return all tables of a comparison, as documents hold them."""
    found = [scores(comparison), differences_table(comparison.differences), stages_table(comparison), budget_table(comparison)]
    return "\n\n".join(found).replace("\u00b1", "+-")  # documents hold ASCII only


def put(text: str, name: str, content: str) -> str:
    """Return a document with the tables of one comparison in their place."""
    begin, end = f"<!-- tables of {name} -->", "<!-- end of tables -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"the document has no line '{begin}' with a line '{end}' below it; add both where the tables belong")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def main() -> None:
    """Print the tables, or put them into a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--into", type=Path, metavar="DOCUMENT")
    given = parser.parse_args()
    try:
        content = tables(read_comparison(given.folder))
    except CheckpointError as error:
        parser.error(str(error))
    if given.into is None:
        print(content)
    else:
        given.into.write_text(put(given.into.read_text(encoding="utf-8"), given.folder.name, content), encoding="utf-8")


if __name__ == "__main__":
    main()
