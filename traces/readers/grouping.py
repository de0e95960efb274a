"""Gather rows that belong together and lie apart, each group until its last row, without holding the whole file."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from traces.errors import TraceError
from traces.readers.records import record_of
from traces.readers.source import TraceSource

RowT = TypeVar("RowT")

KEYS_AT_ONCE = 2**20
ROWS_AT_ONCE = 2**14


def keys_of(source: TraceSource, *fields: str) -> Iterator[str]:
    """The values of some fields of a JSONL file, joined to one text, for every line that has any of them."""
    for number, raw in source.lines():
        try:
            values = record_of(source, raw, number).values
        except TraceError:
            continue
        found = [str(values[field]) for field in fields if values.get(field) is not None]
        if found:
            yield " ".join(found)


def _counted(hashes: Iterable[int]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Every number that occurs, ascending, and how often it does; only so many are held as differ."""
    hashes = iter(hashes)
    found, counts = np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    while batch := array("q", itertools.islice(hashes, KEYS_AT_ONCE)):
        some, times = np.unique(np.frombuffer(batch, dtype=np.int64), return_counts=True)
        places = np.searchsorted(found, some)
        known = places < len(found)
        known[known] = found[places[known]] == some[known]
        counts[places[known]] += times[known]
        new = ~known
        found = np.insert(found, places[new], some[new])
        counts = np.insert(counts, places[new], times[new])
    return found, counts


class Gathering(Generic[RowT]):
    """Rows by key, each group handed out as soon as its last row came.

    Memory holds 16 bytes a key and the rows of the groups that are still open: as many as overlap in the file.

    Args:
        keys: the key of every row that will come, from a first pass over the file.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        counted, counts = _counted(map(hash, keys))
        self._keys, self._awaited = counted.data, counts.data
        self._open: dict[str, list[RowT]] = {}

    def rows(self, key: str) -> list[RowT]:
        """The rows of a group so far; those of the list may be replaced."""
        return self._open.get(key, [])

    def add(self, key: str, row: RowT | None) -> list[RowT] | None:
        """Take in a row, or None for one that was wrong.

        Returns:
            The whole group in the order of its rows when this was its last and there is any; else None.
        """
        if row is not None:
            self._open.setdefault(key, []).append(row)
        place = bisect_left(self._keys, hash(key))
        self._awaited[place] -= 1
        return self._open.pop(key, None) if self._awaited[place] == 0 else None

    def rest(self) -> Iterator[tuple[str, list[RowT]]]:
        """Groups that never became complete because some of their rows were wrong."""
        yield from self._open.items()


@dataclass(frozen=True, slots=True)
class Groups:
    """Rows group by group.

    Attributes:
        keys: of each group.
        begins: where the first row of each group stands.
        columns: of all rows, those of a group next to each other and in their order.
    """

    keys: list[str]
    begins: npt.NDArray[np.int64]
    columns: list[npt.NDArray[Any]]

    def parts(self) -> Iterator[Groups]:
        """These groups, some thousand rows at a time: what readers make of rows takes more memory than the rows."""
        ends = [*self.begins[1:].tolist(), len(self.columns[0])] if self.keys else []
        first = 0
        for group, end in enumerate(ends):
            begin = int(self.begins[first])
            if end - begin >= ROWS_AT_ONCE or group == len(ends) - 1:
                begins = self.begins[first : group + 1] - begin
                yield Groups(self.keys[first : group + 1], begins, [column[begin:end] for column in self.columns])
                first = group + 1


class ColumnGathering:
    """Rows of a table by key, thousands at once, each group handed out when its last row came or soon after.

    Memory holds 16 bytes a key and the rows of open groups, as that of `Gathering`; at most as many rows again wait
    until it is worth looking for groups that have become complete, so that all takes a time that grows with n log n.

    Args:
        keys: the key of every row that will come, from a first pass over the file.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        self._hashes, self._awaited = _counted(map(hash, keys))
        self._numbers: defaultdict[str, int] = defaultdict(itertools.count().__next__)
        self._blocks: list[list[npt.NDArray[Any]]] = []
        self._held = self._new = 0

    def add(self, keys: Sequence[str], columns: Sequence[npt.NDArray[Any]]) -> Iterator[Groups]:
        """Take in rows, all of them right; the groups that are found complete, in the order of their last rows."""
        count = len(keys)
        places = np.searchsorted(self._hashes, np.fromiter(map(hash, keys), dtype=np.int64, count=count))
        np.subtract.at(self._awaited, places, 1)
        numbers = np.fromiter(map(self._numbers.__getitem__, keys), dtype=np.int64, count=count)
        self._blocks.append([places, numbers, np.fromiter(keys, dtype=object, count=count), *columns])
        self._new += count
        if self._new >= self._held:
            yield from self._complete().parts()

    def rest(self) -> Iterator[Groups]:
        """The remaining groups: complete ones, then those with other rows that were wrong, in the order of their first
        rows."""
        if self._blocks:
            yield from self._complete().parts()
            ((_, numbers, *columns),) = self._blocks
            yield from _grouped(numbers, columns).parts()

    def _complete(self) -> Groups:
        rows = [np.concatenate(parts) for parts in zip(*self._blocks, strict=True)]
        open = self._awaited[rows[0]] > 0
        self._blocks = [[column[open] for column in rows]]
        self._held, self._new = int(open.sum()), 0
        _, numbers, *columns = (column[~open] for column in rows)
        _, group = np.unique(numbers, return_inverse=True)
        last_row = np.empty(len(group), dtype=np.int64)
        last_row[group] = np.arange(len(group))
        found = _grouped(last_row[group], columns)
        for key in found.keys:
            del self._numbers[key]
        return found


def _grouped(by: npt.NDArray[np.int64], columns: Sequence[npt.NDArray[Any]]) -> Groups:
    """Rows whose first column is their key, in groups of those that have the same number, from the lowest number up."""
    order = np.argsort(by, kind="stable")
    begins = np.flatnonzero(np.diff(by[order], prepend=-1))
    keys, *others = (column[order] for column in columns)
    return Groups(keys[begins].tolist(), begins, others)
