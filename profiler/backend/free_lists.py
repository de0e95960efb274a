"""The free blocks of a pool: a stack where their place does not matter, runs where neighbours copy faster."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence


class OutOfBlocks(RuntimeError):
    """More blocks were asked for than are free: the caller's count and the pool's disagree."""


class FreeStack:
    """Free block ids, the last one freed first. Ids of a fresh pool come in ascending order."""

    def __init__(self, capacity: int) -> None:
        self._ids = list(range(capacity - 1, -1, -1))

    def __len__(self) -> int:
        return len(self._ids)

    def allocate(self, blocks: int) -> list[int]:
        """Remove ``blocks`` ids.

        Raises:
            OutOfBlocks: fewer are free.
        """
        left = len(self._ids) - blocks
        if left < 0:
            raise OutOfBlocks(f"{blocks} blocks asked for, {len(self._ids)} free")
        taken = self._ids[left:]
        del self._ids[left:]
        taken.reverse()
        return taken

    def free(self, ids: Sequence[int]) -> None:
        """Put ids back."""
        self._ids.extend(reversed(ids))


class FreeRuns:
    """Free block ids kept as maximal runs of consecutive ids, so that what is taken together lies together."""

    def __init__(self, capacity: int) -> None:
        self._starts = [0] if capacity else []  # sorted
        self._lengths = {0: capacity} if capacity else {}
        self._free = capacity

    def __len__(self) -> int:
        return self._free

    @property
    def runs(self) -> list[tuple[int, int]]:
        """The free runs as (first id, length), ascending."""
        return [(start, self._lengths[start]) for start in self._starts]

    def allocate(self, blocks: int) -> list[int]:
        """Remove ``blocks`` ids: from the shortest run that holds them all, else from the longest runs.

        Raises:
            OutOfBlocks: fewer are free.
        """
        if blocks > self._free:
            raise OutOfBlocks(f"{blocks} blocks asked for, {self._free} free")
        taken: list[int] = []
        while len(taken) < blocks:
            need = blocks - len(taken)
            fitting = [(length, start) for start, length in self._lengths.items() if length >= need]
            length, start = min(fitting) if fitting else max((held, at) for at, held in self._lengths.items())
            used = min(length, need)
            taken.extend(range(start, start + used))
            self._cut(start, used)
        return taken

    def free(self, ids: Iterable[int]) -> None:
        """Put ids back and join them with their free neighbours."""
        for start, length in consecutive(sorted(ids)):
            self._insert(start, length)

    def _cut(self, start: int, used: int) -> None:
        """Take the first ``used`` ids of the run at ``start``."""
        length = self._lengths.pop(start)
        self._free -= used
        index = bisect_left(self._starts, start)
        if used == length:
            del self._starts[index]
        else:
            self._starts[index] = start + used
            self._lengths[start + used] = length - used

    def _insert(self, start: int, length: int) -> None:
        self._free += length
        index = bisect_left(self._starts, start)
        if index < len(self._starts) and self._starts[index] == start + length:
            length += self._lengths.pop(self._starts.pop(index))
        if index > 0:
            before = self._starts[index - 1]
            assert before + self._lengths[before] <= start, f"block {start} was free already"
            if before + self._lengths[before] == start:
                self._lengths[before] += length
                return
        insort(self._starts, start)
        self._lengths[start] = length


def consecutive(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Cut a sequence into stretches that count up by one: (first id, length) each, in order."""
    runs: list[tuple[int, int]] = []
    for block in ids:
        if runs and block == runs[-1][0] + runs[-1][1]:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((block, 1))
    return runs
