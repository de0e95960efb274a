"""Block-exact accounting of one memory, GPU or host."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from heapq import heapify, heappop, heappush
from typing import Any


def blocks_for(tokens: int, block_size: int) -> int:
    """Blocks that hold ``tokens`` tokens of one context: the last block may be part full."""
    return -(-tokens // block_size)


class BlockPool:
    """Counts blocks in use. Private blocks are plain counts; shared blocks have a key and count once, by reference.

    A shared block without references may stay cached: it is free, and can be found by its key until its memory
    is taken for something else, the least recently used block first.

    Which physical block a context owns is not decided here: a backend that has real blocks assigns their ids.

    Attributes:
        capacity: all blocks.
        free_blocks: blocks not in use, cached ones included.
        cached: free blocks that can be found, by key, each with when it was last used and a number of its own.
        on_evict: called with the key of a cached block whose memory is about to be taken.
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 0:
            raise ValueError(f"a pool of {capacity} blocks")
        self.capacity = capacity
        self.free_blocks = capacity
        self.cached: dict[Hashable, tuple[int, int]] = {}
        self._references: dict[Hashable, int] = {}
        self._by_use: list[tuple[int, int, Hashable]] = []  # heap of the cached blocks; some have gone
        self._numbers = 0
        self.on_evict: Callable[[Any], None] | None = None

    @property
    def used(self) -> int:
        """Blocks in use, each shared block once."""
        return self.capacity - self.free_blocks

    def allocate(self, blocks: int) -> None:
        """Claim private blocks. The caller has made sure that they are free."""
        assert 0 <= blocks <= self.free_blocks, f"taking {blocks} of {self.free_blocks} free blocks"
        self.free_blocks -= blocks
        if self.cached:
            while len(self.cached) > self.free_blocks:
                self._evict()

    def free(self, blocks: int) -> None:
        """Return private blocks."""
        private = self.capacity - self.free_blocks - len(self._references)
        assert 0 <= blocks <= private, f"returning {blocks} of {private} private blocks"
        self.free_blocks += blocks

    def missing(self, keys: Iterable[Hashable]) -> int:
        """How many of the shared blocks ``keys`` have no reference yet: what ``ref`` would claim."""
        return sum(key not in self._references for key in set(keys))

    def holders(self, key: Hashable) -> int:
        """How many hold the shared block ``key``."""
        return self._references.get(key, 0)

    def ref(self, keys: Iterable[Hashable]) -> int:
        """Hold the shared blocks ``keys`` once more each; returns how many were newly claimed."""
        before = self.free_blocks
        for key in keys:
            held = self._references.get(key, 0)
            if held == 0:
                self.cached.pop(key, None)
                self.allocate(1)
            self._references[key] = held + 1
        return before - self.free_blocks

    def unref(self, keys: Iterable[Hashable], last_used: int | None = None) -> int:
        """Let go of the shared blocks ``keys``; returns how many have no reference left.

        These stay cached if ``last_used`` says when they were used, the first of ``keys`` the first to be evicted.
        """
        before = self.free_blocks
        for key in keys:
            if self._references[key] > 1:
                self._references[key] -= 1
                continue
            del self._references[key]
            self.free_blocks += 1
            if last_used is not None:
                self._cache(key, last_used)
        return self.free_blocks - before

    def cache(self, keys: Iterable[Hashable]) -> None:
        """Private blocks become shared: each is held by ``keys`` from now on, and given back if it was held already."""
        for key in keys:
            held = self._references.get(key, 0)
            if held:
                self.free(1)
            else:
                self.cached.pop(key, None)
            self._references[key] = held + 1

    def uncache(self, keys: Iterable[Hashable]) -> None:
        """Shared blocks that one context alone holds become private: they can no longer be found."""
        for key in keys:
            assert self._references.pop(key) == 1, f"{key} is held by others"

    def older(self, than: int, most: int) -> int:
        """How many cached blocks were last used before ``than``; no more than ``most`` are counted."""
        oldest: list[tuple[int, int, Hashable]] = []
        while len(oldest) < most and self._by_use and self._by_use[0][0] < than:
            entry = heappop(self._by_use)
            if self._is_cached(entry):
                oldest.append(entry)
        for entry in oldest:
            heappush(self._by_use, entry)
        return len(oldest)

    def _cache(self, key: Hashable, last_used: int) -> None:
        self._numbers += 1
        self.cached[key] = (last_used, self._numbers)
        heappush(self._by_use, (last_used, self._numbers, key))
        if len(self._by_use) > 2 * len(self.cached) + 1024:
            self._by_use = [entry for entry in self._by_use if self._is_cached(entry)]
            heapify(self._by_use)

    def _is_cached(self, entry: tuple[int, int, Hashable]) -> bool:
        return self.cached.get(entry[2]) == entry[:2]

    def _evict(self) -> None:
        while not self._is_cached(self._by_use[0]):
            heappop(self._by_use)
        key = heappop(self._by_use)[2]
        del self.cached[key]
        if self.on_evict is not None:
            self.on_evict(key)
