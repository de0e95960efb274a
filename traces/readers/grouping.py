"""Rows that belong together and lie apart: gathered until the last of them, without holding the whole file."""

from __future__ import annotations

import itertools
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from traces.errors import TraceError
from traces.readers.records import record_of
from traces.readers.source import Source

Row = TypeVar("Row")

KEYS_AT_ONCE = 2**20


def keys_of(source: Source, *fields: str) -> Iterator[str]:
    """What some fields of a JSONL file hold, as one text, in every line where any of them is there."""
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


class Gathering(Generic[Row]):
    """Rows by key, each group handed out as soon as its last row came.

    Memory holds 16 bytes a key and the rows of the groups that are still open: as many as overlap in the file.

    Args:
        keys: the key of every row that will come, from a first pass over the file.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        counted, counts = _counted(map(hash, keys))
        self._keys, self._awaited = counted.data, counts.data
        self._open: dict[str, list[Row]] = {}

    def rows(self, key: str) -> list[Row]:
        """The rows of a group so far; those of the list may be replaced."""
        return self._open.get(key, [])

    def add(self, key: str, row: Row | None) -> list[Row] | None:
        """Take in a row, or None for one that was wrong.

        Returns:
            The whole group in the order of its rows when this was its last and there is any; else None.
        """
        if row is not None:
            self._open.setdefault(key, []).append(row)
        place = bisect_left(self._keys, hash(key))
        self._awaited[place] -= 1
        return self._open.pop(key, None) if self._awaited[place] == 0 else None

    def add_all(self, keys: Sequence[str], rows: Iterable[Row]) -> Iterator[tuple[int, list[Row]]]:
        """Take in many rows, all of them right; each group that is whole, with the place of its last row among them."""
        hashes = np.fromiter(map(hash, keys), dtype=np.int64, count=len(keys))
        places = np.searchsorted(np.asarray(self._keys), hashes).tolist()
        groups, awaited = self._open, self._awaited
        for index, (key, row, place) in enumerate(zip(keys, rows, places, strict=True)):
            group = groups.get(key)
            if group is None:
                groups[key] = group = [row]
            else:
                group.append(row)
            left = awaited[place] - 1
            awaited[place] = left
            if left == 0:
                del groups[key]
                yield index, group

    def rest(self) -> Iterator[tuple[str, list[Row]]]:
        """Groups that never became complete because some of their rows were wrong."""
        yield from self._open.items()
