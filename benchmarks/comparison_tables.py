"""Markdown of a comparison for docs/results.md: scores with both averages, questions, stages, budget.

    python benchmarks/comparison_tables.py runs/compare/social

Reads only compare.json, which `alter compare` wrote.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from alter.comparing.tables import budget_table, differences_table, scores_table, stages_table
from alter.comparison import Comparison, read_comparison


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


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    comparison = read_comparison(parser.parse_args().folder)
    tables = [scores(comparison), differences_table(comparison.differences), stages_table(comparison), budget_table(comparison)]
    print("\n\n".join(tables).replace("\u00b1", "+-"))  # documents hold ASCII only


if __name__ == "__main__":
    main()
