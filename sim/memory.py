"""Block-exact accounting of one memory, GPU or host."""

from __future__ import annotations

from collections.abc import Hashable, Iterable


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold ``tokens`` tokens of one context: the last block may be part full."""
    return -(-tokens // block_size)


class BlockPool:
    """Counts blocks in use. Private blocks are plain counts; shared blocks have a key and count once, by reference.

    Which physical block a context owns is not decided here: a backend that has real blocks assigns their ids.

    Attributes:
        capacity: all blocks.
        free: blocks that nobody uses.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"a pool of {capacity} blocks")
        self.capacity = capacity
        self.free = capacity
        self._references: dict[Hashable, int] = {}

    @property
    def used(self) -> int:
        """Blocks in use, each shared block once."""
        return self.capacity - self.free

    def take(self, blocks: int) -> None:
        """Claim private blocks. The caller has made sure that they are free."""
        assert 0 <= blocks <= self.free, f"taking {blocks} of {self.free} free blocks"
        self.free -= blocks

    def give(self, blocks: int) -> None:
        """Return private blocks."""
        private = self.used - len(self._references)
        assert 0 <= blocks <= private, f"returning {blocks} of {private} private blocks"
        self.free += blocks

    def missing(self, keys: Iterable[Hashable]) -> int:
        """How many of the shared blocks ``keys`` nobody holds yet: what ``share`` would claim."""
        return sum(key not in self._references for key in set(keys))

    def share(self, keys: Iterable[Hashable]) -> int:
        """Hold the shared blocks ``keys`` once more each; returns how many were newly claimed."""
        before = self.free
        for key in keys:
            held = self._references.get(key, 0)
            if held == 0:
                self.take(1)
            self._references[key] = held + 1
        return before - self.free

    def unshare(self, keys: Iterable[Hashable]) -> int:
        """Let go of the shared blocks ``keys``; returns how many nobody holds any more."""
        before = self.free
        for key in keys:
            if self._references[key] == 1:
                del self._references[key]
                self.free += 1
            else:
                self._references[key] -= 1
        return self.free - before
