"""The columns of a file, row by row: a row that lacks what other rows have is wrong, and not the recipe that names it."""

from __future__ import annotations

from alter.errors import DataError
from alter.tasks.row import ALIASES, at_place
from alter.tasks.spec import TaskSpec
from alter.tasks.text_rows import Row


class Columns:
    """The columns that the rows of one file have had so far, and the line of each one's first."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}

    def note(self, row: Row) -> None:
        """Note the columns of a row."""
        for column in row.values.keys() - self.first.keys():
            self.first[column] = row.place.rpartition(":")[2]

    def explain(self, error: DataError, row: Row, spec: TaskSpec) -> DataError:
        """Return the error; where a row lacks a column that rows before it have, one that says so.

        The number of those rows is left out: the same fault in many rows must read the same, so that it is told once.
        """
        names = () if error.missing is None else (error.missing, *ALIASES.get(error.missing, ()))
        column = next((name for name in names if name in self.first and name not in row.values), None)
        if column is None:
            return error
        return DataError(
            f"{at_place(row.place, spec)}: the row has no '{column}' (its columns: {', '.join(sorted(row.values)) or 'none'}), which "
            f"rows before it have (the first is line {self.first[column]}); fill it in, or remove the row"
        )
