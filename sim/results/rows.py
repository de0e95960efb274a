"""Rows of a table, packed column by column while a run goes on: eight bytes a value instead of an object."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from typing import Any

Columns = dict[str, list[Any]]

_AT_ONCE = 1024
"""Rows that wait as tuples: packing them together costs less than one by one."""


class Rows:
    """A table that grows by rows.

    Args:
        columns: the type of each column by its name: float, int or str.
    """

    def __init__(self, columns: Mapping[str, type]) -> None:
        self.names = tuple(columns)
        self._packed: list[Any] = [_column(kind) for kind in columns.values()]
        self._loose: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._packed[0]) + len(self._loose)

    def append(self, row: tuple[Any, ...]) -> None:
        """Add a row: a value for each column, in their order."""
        self._loose.append(row)
        if len(self._loose) == _AT_ONCE:
            self._pack()

    def _pack(self) -> None:
        for column, values in zip(self._packed, zip(*self._loose, strict=True), strict=False):
            column.extend(values)
        self._loose.clear()

    def take(self, order: Sequence[int] | None = None) -> Columns:
        """Every column as a list, the rows in the given order; the table is empty afterwards."""
        self._pack()
        columns: Columns = {}
        for place, name in enumerate(self.names):
            packed, self._packed[place] = self._packed[place], self._packed[place][:0]
            values = packed if isinstance(packed, list) else packed.tolist()
            columns[name] = values if order is None else [values[index] for index in order]
        return columns


def _column(kind: type) -> Any:
    if kind is str:
        return []
    return array("d") if kind is float else array("q")
