"""Several samples of one context on the real backend: rows that share the context's blocks, as the engine counts them.

A row of the block tables and of the token store is one continuation. The first sample's row is the session's own; the
others are opened when a call branches, hold the context's whole blocks by reference, copy its part-full last one when
they first write, draw by seeds of their own, and are closed when the call ends.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable

import numpy as np

from profiler.backend.backend import Backend
from profiler.backend.executor import ChunkWork
from sim.engine.settings import EngineSettings
from sim.errors import UnsupportedSession
from sim.kv.copy import Chunk
from sim.session import SessionState
from traces.session import Session


def in_pages(settings: EngineSettings) -> EngineSettings:
    """The settings as a paged backend can follow them: its kernels find a token's block by the token's position, so
    that a response begins in the middle of a block where its prompt ends there. Segments are therefore counted, and
    held, as ``paged-sharing``: the same to within a block a sample."""
    paged = settings.sample_layout == "segment"
    return settings.model_copy(update={"sample_layout": "paged-sharing"}) if paged else settings


def require_pages(session: Session, settings: EngineSettings) -> None:
    """Refuse samples that want buffers of their own.

    Raises:
        UnsupportedSession: names the session and the setting.
    """
    if session.samples > 1 and settings.sample_layout == "contiguous":
        raise UnsupportedSession(
            f"session {session.id} has {session.samples} samples, which sample_layout: contiguous gives a buffer each; "
            "the backend has only pages: use paged-sharing"
        )


class BranchRows:
    """The rows of branch sets, which follow the engine.

    Args:
        backend: has the rows and the blocks.

    Attributes:
        on_end: called with a set when its call ends, and with the keys of its rows while these are open.
    """

    def __init__(self, backend: Backend) -> None:
        self._executor, self._tables, self._pool = backend.executor, backend.tables, backend.cache.pool
        self._further: dict[SessionState, tuple[Hashable, ...]] = {}  # rows but the first, of sets that have branched
        self.on_end: Callable[[SessionState, tuple[Hashable, ...]], None] | None = None

    def keys(self, state: SessionState) -> tuple[Hashable, ...]:
        """The rows that emit for a session, its own first."""
        return (state.session.id, *self._further.get(state, ()))

    def decodes(self, decoding: Iterable[SessionState]) -> list[Hashable]:
        """The rows of all decoding sessions, each with the blocks that it needs before the next token."""
        if not self._further:
            return [state.session.id for state in decoding]
        rows: list[Hashable] = []
        for state in decoding:
            for key in self._further.get(state, ()):
                if not self._holds_blocks(key):
                    self._share(state, key, copy=True)
            rows += self.keys(state)
        return rows

    def work(self, chunk: Chunk) -> list[ChunkWork]:
        """A chunk as the backend computes it: the tokens that branches share once, and each branch's own."""
        state, start, tokens = chunk.state, chunk.start, chunk.tokens
        end = start + tokens
        if state.samples == 1 or (state.emitted == 0 and tokens < state.missing):
            return [ChunkWork(state.session.id, start, tokens)]
        if state.emitted == 0:
            return [ChunkWork(state.session.id, start, tokens, self._branch(state, end))]
        chunks = [ChunkWork(state.session.id, start, tokens)]
        if end > state.fork:
            self._grow(state.session.id, end)
            for key in self._further[state]:
                begin = start
                if not self._holds_blocks(key):
                    begin = self._share(state, key, copy=False)
                chunks.append(ChunkWork(key, begin, end - begin))
        return chunks

    def _branch(self, state: SessionState, tokens: int) -> tuple[Hashable, ...]:
        """Open a row for each further sample of a context of ``tokens`` tokens; none holds a block yet."""
        further = tuple((state.session.id, number) for number in range(1, state.samples))
        for key in further:
            self._executor.open_branch(key, state.session.id, tokens)
        self._further[state] = further
        return further

    def _share(self, state: SessionState, key: Hashable, copy: bool) -> int:
        """Share the whole blocks before the fork with a row and, for ``copy``, give it a copy of the part-full one.
        Returns the tokens that the row then has."""
        whole, rest = divmod(state.fork, self._tables.block_size)
        self._tables.share(key, state.session.id, whole)
        if copy and rest:
            self._grow(key, state.fork)
            rows = self._tables.rows
            own, source = (int(self._tables.gpu[rows[one], whole]) for one in (key, state.session.id))
            self._pool[own] = self._pool[source]
            return state.fork
        return whole * self._tables.block_size

    def _grow(self, key: Hashable, tokens: int) -> None:
        row = self._tables.rows[key]
        self._tables.grow(np.array([row], dtype=np.int32), np.array([tokens], dtype=np.int32))

    def _holds_blocks(self, key: Hashable) -> bool:
        return bool(self._tables.gpu_count[self._tables.rows[key]])

    def kept(self, state: SessionState) -> None:
        """Free the blocks of a set that was evicted."""
        for key in self._further.get(state, ()):
            assert state.resident == 0, state
            self._tables.keep(key, 0, 0)

    def joined(self, state: SessionState) -> None:
        """Close all rows but the first: the call has ended."""
        if self.on_end is not None:
            self.on_end(state, self.keys(state))
        self.close(state)

    def close(self, state: SessionState) -> None:
        """Close all rows of a set but the first."""
        for key in self._further.pop(state, ()):
            self._executor.close(key)
