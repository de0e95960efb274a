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
from sim.session import LiveSession
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
        backend: whose rows and blocks they are.

    Attributes:
        on_end: told of each set whose call ends, with the keys of its rows while these are open.
    """

    def __init__(self, backend: Backend) -> None:
        self._executor, self._tables, self._pool = backend.executor, backend.tables, backend.cache.pool
        self._further: dict[LiveSession, tuple[Hashable, ...]] = {}  # rows but the first, of sets that have branched
        self.on_end: Callable[[LiveSession, tuple[Hashable, ...]], None] | None = None

    def keys(self, live: LiveSession) -> tuple[Hashable, ...]:
        """The rows that emit for a session, its own first."""
        return (live.session.id, *self._further.get(live, ()))

    def decodes(self, decoding: Iterable[LiveSession]) -> list[Hashable]:
        """The rows of all decoding sessions, each with the blocks that it needs before the next token."""
        if not self._further:
            return [live.session.id for live in decoding]
        rows: list[Hashable] = []
        for live in decoding:
            for key in self._further.get(live, ()):
                if not self._holds_blocks(key):
                    self._share(live, key, copy=True)
            rows += self.keys(live)
        return rows

    def work(self, chunk: Chunk) -> list[ChunkWork]:
        """A chunk as the backend computes it: what branches have in common once, and what each has for itself."""
        live, start, tokens = chunk.live, chunk.start, chunk.tokens
        end = start + tokens
        if live.samples == 1 or (live.emitted == 0 and tokens < live.missing):
            return [ChunkWork(live.session.id, start, tokens)]
        if live.emitted == 0:
            return [ChunkWork(live.session.id, start, tokens, self._branch(live, end))]
        chunks = [ChunkWork(live.session.id, start, tokens)]
        if end > live.fork:
            self._grow(live.session.id, end)
            for key in self._further[live]:
                begin = start
                if not self._holds_blocks(key):
                    begin = self._share(live, key, copy=False)
                chunks.append(ChunkWork(key, begin, end - begin))
        return chunks

    def _branch(self, live: LiveSession, tokens: int) -> tuple[Hashable, ...]:
        """Open a row for each further sample of a context of ``tokens`` tokens; none holds a block yet."""
        further = tuple((live.session.id, number) for number in range(1, live.samples))
        for key in further:
            self._executor.open_branch(key, live.session.id, tokens)
        self._further[live] = further
        return further

    def _share(self, live: LiveSession, key: Hashable, copy: bool) -> int:
        """Let a row begin with the whole blocks of the fork, and with a ``copy`` of the part-full one, if there is one.
        Returns the tokens that it has so."""
        whole, rest = divmod(live.fork, self._tables.block_size)
        self._tables.share(key, live.session.id, whole)
        if copy and rest:
            self._grow(key, live.fork)
            rows = self._tables.rows
            own, source = (int(self._tables.gpu[rows[one], whole]) for one in (key, live.session.id))
            self._pool[own] = self._pool[source]
            return live.fork
        return whole * self._tables.block_size

    def _grow(self, key: Hashable, tokens: int) -> None:
        row = self._tables.rows[key]
        self._tables.grow(np.array([row], dtype=np.int32), np.array([tokens], dtype=np.int32))

    def _holds_blocks(self, key: Hashable) -> bool:
        return bool(self._tables.gpu_count[self._tables.rows[key]])

    def kept(self, live: LiveSession) -> None:
        """A set that gave way holds nothing any more."""
        for key in self._further.get(live, ()):
            assert live.resident == 0, live
            self._tables.keep(key, 0, 0)

    def joined(self, live: LiveSession) -> None:
        """A call has ended: only the first sample stays."""
        if self.on_end is not None:
            self.on_end(live, self.keys(live))
        self.close(live)

    def close(self, live: LiveSession) -> None:
        """Close all rows of a set but the first."""
        for key in self._further.pop(live, ()):
            self._executor.close(key)
