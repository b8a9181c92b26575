"""Results as tables: of text, of HTML in a notebook, of pandas where that is installed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, cast, overload

from . import html
from .optional import optional

Row = TypeVar("Row")
Column = tuple[str, Callable[[Any], str]]


class Table(Sequence[Row], Generic[Row]):
    """Rows that are dataclasses; `str` and a notebook show the columns that matter."""

    def __init__(self, rows: Sequence[Row], columns: Sequence[Column]) -> None:
        self._rows = list(rows)
        self._columns = tuple(columns)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Table[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | Table[Row]:
        if isinstance(index, slice):
            return Table(self._rows[index], self._columns)
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Table):
            return NotImplemented
        return self._rows == list(cast("Sequence[Any]", other))

    __hash__ = None  # type: ignore[assignment]

    def to_pandas(self) -> Any:
        """A `pandas.DataFrame` of all fields."""
        rows: list[Any] = self._rows
        return optional("pandas", "to_pandas").DataFrame([dataclasses.asdict(row) for row in rows])

    def __str__(self) -> str:
        head, rows = self._cells()
        widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
        lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in [head, *rows]]
        lines.insert(1, "─" * len(lines[0]))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"Table({self._rows!r})"

    def to_html(self) -> str:
        """The table as HTML, which a notebook shows."""
        return html.table(*self._cells())

    def _repr_html_(self) -> str:
        return self.to_html()

    def _cells(self) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
        head = tuple(name for name, _ in self._columns)
        return head, [tuple(show(row) for _, show in self._columns) for row in self._rows]
