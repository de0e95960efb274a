"""Leading blocks that several contexts have in common, found by what they hold.

A prompt's leading blocks have a key each where the trace tells what is in them: by its block hashes, or by a named
prefix. A block's key stands for all tokens up to its end, so equal keys are equal KV. A context that computes such a
block caches it; a context admitted later matches the longest run of its keys and computes only what follows. Only whole
blocks of the engine are shared, and never the last token of a context: there must be one to compute.

A shared block counts once, and is held by reference. The contexts that hold one hold all those before it, so along a
context the number of holders never grows. When the last one lets go it stays cached in the pool
(``sim.kv.block_pool``).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from weakref import WeakValueDictionary

from sim.kv.block_pool import BlockPool, blocks_for
from sim.kv.listeners import BlockTableListener
from sim.session import SessionState
from traces.session import Session


class HashNode:
    """The tokens from a context's begin to the end of one hash; equal ones are one object."""

    __slots__ = ("__weakref__", "before")

    def __init__(self, before: HashNode | None) -> None:
        self.before = before


BlockKey = tuple[HashNode, int]
"""What a block holds: the piece that its last token lies in, and which block of the context it is."""


class PrefixCache:
    """The shared blocks of a GPU pool.

    Attributes:
        idle: shared blocks that only contexts hold which compute nothing.
    """

    def __init__(self, pool: BlockPool, block_size: int) -> None:
        self.idle = 0
        self.block_size = block_size
        self._pool = pool
        self._computing: dict[BlockKey, int] = {}  # holders that are not idle
        self._pieces: WeakValueDictionary[tuple[HashNode | None, Hashable], HashNode] = WeakValueDictionary()
        self._listeners: list[BlockTableListener] = []

    def add_listener(self, listener: BlockTableListener) -> None:
        """Tell ``listener`` from now on what becomes of shared blocks."""
        self._listeners.append(listener)
        self._pool.on_evict = self._evicted

    def _evicted(self, key: Hashable) -> None:
        for listener in self._listeners:
            listener.blocks_uncached((key,))

    # ---- what a context could share

    def keys(self, state: SessionState) -> Sequence[BlockKey]:
        """Keys of the leading blocks of a context, as far as it is still the prompt that the trace tells of."""
        if state.prefix_cache is None:
            state.prefix_cache = self
            state.prefix_keys = self._keys(state.session)[: state.unwritten // self.block_size]
        return state.prefix_keys

    def _keys(self, session: Session) -> list[BlockKey]:
        size = self.block_size
        if not session.block_hashes:
            named = session.prefix
            return [] if named is None else _numbered(self._piece(None, named.name), named.tokens // size)
        keys: list[BlockKey] = []
        piece = None
        for index, content in enumerate(session.block_hashes, 1):
            piece = self._piece(piece, content)
            end = min(index * session.hash_block, session.prompt)
            keys.extend(_numbered(piece, end // size, len(keys)))
        return keys

    def _piece(self, before: HashNode | None, content: Hashable) -> HashNode:
        piece = self._pieces.get((before, content))
        if piece is None:
            piece = self._pieces[before, content] = HashNode(before)
        return piece

    def match_prefix(self, state: SessionState) -> tuple[int, int]:
        """Blocks on the GPU with which a context could go on at once, and how many of them are held."""
        keys, pool = self.keys(state), self._pool
        if state.offloaded or state.copy is not None or state.resident != state.shared_blocks * self.block_size:
            return 0, 0
        count = held = 0
        for key in keys[state.shared_blocks : (state.context - 1) // self.block_size]:
            if pool.holders(key):
                held += 1
            elif key not in pool.cached:
                break
            count += 1
        return count, held

    # ---- references

    def reuse_prefix(self, state: SessionState) -> None:
        """A context takes what it found: these tokens are resident at once. Blocks that were only cached are free."""
        blocks, _ = self.match_prefix(state)
        new = self.keys(state)[state.shared_blocks : state.shared_blocks + blocks]
        self._pool.ref(new)
        self._held(state, new)
        resident = state.resident + blocks * self.block_size
        state.stats.prefix_hits += max(0, resident - max(state.resident, state.peak))
        state.missing -= resident - state.resident
        state.resident = resident
        for listener in self._listeners:
            listener.prefix_reused(state, new)

    def cache(self, state: SessionState) -> int:
        """Others may find from now on what a context has on the GPU. Returns the private blocks that became shared."""
        new = self.keys(state)[state.shared_blocks : state.resident // self.block_size]
        self._pool.cache(new)
        self._held(state, new)
        for listener in self._listeners:
            listener.blocks_cached(state, new)
        return len(new)

    def release(self, state: SessionState, keep: int, last_used: int) -> int:
        """A context keeps its first ``keep`` blocks at most; the last ones are evicted first. Returns how many it let
        go."""
        gone = state.prefix_keys[keep : state.shared_blocks]
        if gone:
            self._let_go(state, gone)
            self._pool.unref(reversed(gone), last_used)
        return len(gone)

    def uncache(self, state: SessionState, keep: int) -> int:
        """The shared blocks beyond the first ``keep``, which no other context holds, become private. Returns how
        many."""
        own = state.prefix_keys[keep : state.shared_blocks]
        if own:
            self._let_go(state, own)
            self._pool.uncache(own)
            for listener in self._listeners:
                listener.blocks_uncached(own)
        return len(own)

    def common(self, state: SessionState) -> int:
        """Leading blocks of a context that others hold too."""
        return bisect_left(state.prefix_keys, True, 0, state.shared_blocks, key=lambda key: self._pool.holders(key) < 2)

    def holders(self, key: BlockKey) -> int:
        """How many contexts hold a block."""
        return self._pool.holders(key)

    def set_idle(self, state: SessionState, idle: bool) -> None:
        """A context that holds blocks begins or ceases to hold them without computing."""
        for key in state.prefix_keys[: state.shared_blocks]:
            if idle:
                self._stops(key)
                self.idle += key not in self._computing
            else:
                self.idle -= key not in self._computing
                self._computing[key] = self._computing.get(key, 0) + 1

    def _held(self, state: SessionState, keys: Sequence[BlockKey]) -> None:
        """A context holds ``keys`` since just now."""
        state.shared_blocks += len(keys)
        for key in keys:
            first = self._pool.holders(key) == 1
            if state.idle:
                self.idle += first
            else:
                self.idle -= not first and key not in self._computing
                self._computing[key] = self._computing.get(key, 0) + 1

    def _let_go(self, state: SessionState, keys: Sequence[BlockKey]) -> None:
        """A context is about to let go of ``keys``, the last that it holds."""
        state.shared_blocks -= len(keys)
        for key in keys:
            last = self._pool.holders(key) == 1
            if state.idle:
                self.idle -= last
            else:
                self._stops(key)
                self.idle += not last and key not in self._computing

    def _stops(self, key: BlockKey) -> None:
        self._computing[key] -= 1
        if not self._computing[key]:
            del self._computing[key]

    def check(self, inside: Iterable[SessionState]) -> int:
        """INV-2 for shared blocks, recounted from scratch. Returns how many are held.

        Raises:
            AssertionError: a count is off.
        """
        pool = self._pool
        holding = [(state, state.prefix_keys[: state.shared_blocks]) for state in inside if state.shared_blocks]
        held = Counter(key for _, keys in holding for key in keys)
        computing = Counter(key for state, keys in holding if not state.idle for key in keys)
        assert all(pool.holders(key) == count for key, count in held.items())
        assert pool.missing(pool.cached) == len(pool.cached) <= pool.free_blocks
        assert self._computing == computing
        assert self.idle == len(held.keys() - computing.keys()), (self.idle, held, computing)
        for state, keys in holding:
            assert len(keys) == state.shared_blocks <= state.resident // self.block_size, state
        return len(held)


class FreeableBlocks:
    """Blocks that victims would free, counted one by one: a block that several contexts share goes with the last."""

    def __init__(self, block_size: int) -> None:
        self._size = block_size
        self._kept: dict[SessionState, int] = {}
        self._let_go: Counter[BlockKey] = Counter()

    def add(self, state: SessionState, keep: int, leaves_common: bool) -> int:
        """Blocks that come free when a context keeps its first ``keep`` tokens, beyond those counted before.

        ``leaves_common``: blocks that others hold stay where they are, as when a context is swapped out.
        """
        kept = blocks_for(min(keep, state.resident), self._size)
        before = self._kept.get(state, blocks_for(state.resident, self._size))
        prefixes = state.prefix_cache
        if prefixes is None or not state.shared_blocks:
            self._kept[state] = min(kept, before)
            return max(0, before - kept)
        if leaves_common:
            kept = max(kept, prefixes.common(state))
        if kept >= before:
            return 0
        self._kept[state] = kept
        freed = before - max(kept, min(before, state.shared_blocks))
        for key in state.prefix_keys[kept : min(before, state.shared_blocks)]:
            self._let_go[key] += 1
            freed += self._let_go[key] == prefixes.holders(key)
        return freed


def _numbered(piece: HashNode, end: int, begin: int = 0) -> list[BlockKey]:
    return [(piece, block) for block in range(begin, end)]
