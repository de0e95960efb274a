"""KV cache: where the tokens of every context are, and the blocks that they hold. Both change only here.

A context is ``resident`` leading tokens on the GPU, then ``offloaded`` tokens on the host, then ``missing`` ones. When
part of it is offloaded, the resident part ends at a block boundary, because copies move whole blocks.
"""

from __future__ import annotations

from sim.costs.batch import Direction
from sim.kv.block_pool import BlockPool
from sim.kv.copy import Chunk, Copy
from sim.kv.listeners import BlockTableListener
from sim.kv.prefix_cache import PrefixCache
from sim.kv.sample_layout import Layout, SampleLayout
from sim.session import SessionState, Status
from traces.session import Session


class KVCacheManager:
    """The GPU and the host pool, and the moves of contexts between them.

    Attributes:
        gpu, host: the two pools.
        idle_gpu: idle contexts with tokens on the GPU, the longest unused first.
        idle_host: idle contexts with tokens on the host.
        claimed: GPU blocks taken for the tokens that the iteration under way computes.
        flying: copies under way beside the batch, in the order in which they began.
        copying_blocks: GPU blocks that a copy is reading or filling, here or from another replica.
        prefixes: the leading blocks that contexts share; None if they keep to themselves.
        branches: the blocks of several samples of one context.
        evictions: how often a context lost tokens, on the GPU or the host.
        version: how often an idle context came, went, changed or began to be copied.
        listeners: told of every change.
    """

    def __init__(
        self,
        gpu_blocks: int,
        host_blocks: int,
        block_size: int,
        prefix_sharing: bool = False,
        sample_layout: Layout = "paged-sharing",
    ) -> None:
        self.gpu = BlockPool(gpu_blocks)
        self.host = BlockPool(host_blocks)
        self.block_size = block_size
        self.idle_gpu: dict[SessionState, None] = {}
        self.idle_host: dict[SessionState, None] = {}
        self.claimed = 0
        self.in_flight: dict[Copy, None] = {}
        self.prefixes = PrefixCache(self.gpu, block_size) if prefix_sharing else None
        self.branches = SampleLayout(sample_layout, block_size)
        self._idle_private = 0
        self._uses = 0  # counts the ends of uses: the time by which blocks are least recently used
        self.copying_blocks = 0
        self.evictions = 0
        self.version = 0
        self.listeners: list[BlockTableListener] = []

    def add_listener(self, listener: BlockTableListener) -> None:
        """Tell ``listener`` of every change from now on."""
        self.listeners.append(listener)
        if self.prefixes is not None:
            self.prefixes.add_listener(listener)

    def blocks(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens of one context."""
        return -(-tokens // self.block_size)

    def blocks_held(self, state: SessionState) -> int:
        """GPU blocks of a context, those that it shares with others included."""
        return self.branches.blocks(state, state.resident) if state.fork else -(-state.resident // self.block_size)

    def blocks_at(self, state: SessionState, resident: int) -> int:
        """GPU blocks of a context in its call once ``resident`` tokens, of each branch, are resident."""
        return self.branches.blocks(state, resident) if state.samples > 1 else -(-resident // self.block_size)

    def recomputing(self, chunk: Chunk) -> float:
        """GPU blocks of a context under recompute, by the share of its chunk that was computed before."""
        return self.blocks_at(chunk.state, chunk.start + chunk.tokens) * chunk.recomputed / chunk.tokens

    def max_blocks(self, session: Session) -> int:
        """GPU blocks that a session holds at most, if it holds its whole context."""
        return self.branches.max_blocks(session) if session.samples > 1 else self.blocks(session.max_context)

    def blocks_to_append(self, state: SessionState, tokens: int) -> int:
        """GPU blocks that ``tokens`` more resident tokens would take."""
        if state.samples > 1:
            return self.blocks_at(state, state.resident + tokens) - self.blocks_held(state)
        size, resident = self.block_size, state.resident
        return -(-(resident + tokens) // size) + -resident // size

    def blocks_missing(self, state: SessionState) -> int:
        """GPU blocks that a context still takes until all of it is resident."""
        return self.blocks_at(state, state.context) - self.blocks_held(state)

    def blocks_to_allocate(self, state: SessionState) -> int:
        """Blocks still to allocate: ``blocks_missing`` minus those that an in-flight swap-in holds."""
        arriving = state.copy is not None and state.copy.direction is Direction.IN
        return self.blocks_missing(state) - (state.copy.blocks if state.copy is not None and arriving else 0)

    @property
    def idle_blocks(self) -> int:
        """GPU blocks that only contexts hold which compute nothing, those being copied out left out."""
        return self._idle_private if self.prefixes is None else self._idle_private + self.prefixes.idle

    def match_prefix(self, state: SessionState) -> tuple[int, int]:
        """Missing tokens that are on the GPU in blocks of others, and the free blocks that the whole context takes."""
        growth = self.blocks_to_append(state, state.missing)
        if self.prefixes is None:
            return 0, growth
        blocks, held = self.prefixes.match_prefix(state)
        return blocks * self.block_size, growth - held

    def reuse_prefix(self, state: SessionState) -> None:
        """A context that is about to compute holds what others have of it."""
        if self.prefixes is not None:
            self.prefixes.reuse_prefix(state)
            self._index(state)

    def fork(self, state: SessionState) -> None:
        """A session of several samples begins to compute for its call: the blocks that the layout wants are claimed."""
        state.fork = state.context

    def join_samples(self, state: SessionState) -> None:
        """A call of several samples has ended: the first stays in the context, the others' blocks are free."""
        held = self.blocks_held(state)
        state.fork = 0
        self.gpu.free(held - self.blocks_held(state))
        for listener in self.listeners:
            listener.samples_joined(state)

    def cache_blocks(self, state: SessionState) -> None:
        """Missing tokens of a context have come to be on the GPU: others may find them."""
        if self.prefixes is not None:
            shared = self.prefixes.cache(state)
            self._idle_private -= shared if state.idle else 0

    def _use_ends(self) -> int:
        self._uses += 1
        return self._uses

    def claim(self, blocks: int) -> None:
        """Take GPU blocks for tokens that the planned iteration computes."""
        self.gpu.allocate(blocks)
        self.claimed += blocks

    def blocks_being_freed(self) -> int:
        """GPU blocks that copies under way will free."""
        return sum([copy.blocks for copy in self.in_flight if copy.direction is Direction.OUT]) if self.in_flight else 0

    def set_idle(self, state: SessionState, idle: bool) -> None:
        """Note that a context begins or ceases to hold memory without computing. It is not being copied."""
        assert state.copy is None, state
        if idle != state.idle:
            state.idle = idle
            private = self.blocks_held(state) - state.shared_blocks
            self._idle_private += private if idle else -private
            if self.prefixes is not None:
                self.prefixes.set_idle(state, idle)
                state.unused_since = self._use_ends()
            self._index(state)

    def _index(self, state: SessionState) -> None:
        """Keep ``idle_gpu`` and ``idle_host`` what they say."""
        self.version += 1
        idle, held, away = state.idle, self.idle_gpu, self.idle_host
        if idle and state.resident:
            held.setdefault(state)
        elif state in held:
            del held[state]
        if idle and state.offloaded:
            away.setdefault(state)
        elif state in away:
            del away[state]

    def truncate(self, state: SessionState, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens of what is resident or offloaded; the rest goes missing.

        Of a resident part whole blocks are kept, so up to a block less one token more than ``tokens`` may stay.
        """
        assert state.copy is None and state.decode_batch is None, state
        resident = state.resident
        state.peak = max(state.peak, resident + state.offloaded)
        if tokens < resident + state.offloaded and state.offloaded:
            kept = max(0, tokens - resident)
            self.host.free(self.blocks(state.offloaded) - self.blocks(kept))
            state.missing += state.offloaded - kept
            state.offloaded = kept
            self._lost(state)
        kept = min(resident, self.blocks(tokens) * self.block_size)
        if kept < resident:
            stays = self.branches.blocks(state, kept) if state.fork else self.blocks(kept)
            freed = self.blocks_held(state) - stays - self._unshare(state, self.blocks(kept))
            self.gpu.free(freed)
            self._lost(state)
            self._idle_private -= freed if state.idle else 0
            state.missing += resident - kept
            state.resident = kept
        self._index(state)
        for listener in self.listeners:
            listener.truncated(state)

    def _lost(self, state: SessionState) -> None:
        self.evictions += 1
        state.lost_at = state.progress

    def _unshare(self, state: SessionState, keep: int) -> int:
        """Let go of the shared blocks beyond the first ``keep``. Returns how many."""
        if self.prefixes is None or state.shared_blocks <= keep:
            return 0
        return self.prefixes.release(state, keep, state.unused_since if state.idle else self._use_ends())

    def rewrite(self, state: SessionState, tokens: int) -> None:
        """The client rewrote the context: only its first ``tokens`` tokens survive, as tokens and as KV.

        Of a shared block that does not survive whole nothing is kept: others go on with it as it is.
        """
        if tokens >= state.context:
            return
        whole = tokens // self.block_size
        state.unwritten = min(state.unwritten, tokens)
        self.truncate(state, tokens if state.shared_blocks <= whole else whole * self.block_size)
        state.prefix_keys = state.prefix_keys[:whole]
        state.resident = min(state.resident, tokens)  # inside the same block
        self._index(state)
        state.missing = tokens - state.resident - state.offloaded
        state.peak = min(state.peak, tokens)

    def begin_swap_out(self, state: SessionState, keep: int, max_blocks: float, blocking: bool) -> Copy | None:
        """Begin to copy the resident tail beyond ``keep`` tokens to the host: as many whole blocks as ``max_blocks``
        and the host's free blocks allow. None if that is none. Blocks that others hold too stay, and so do branch sets
        in the middle of their call."""
        assert state.copy is None and state.decode_batch is None, state
        if state.fork:
            return None
        size, resident = self.block_size, state.resident
        held = -(-resident // size)
        stays = -(-min(keep, resident) // size)
        if state.prefix_cache is not None:
            stays = max(stays, state.prefix_cache.common(state))
        blocks = int(min(held - stays, max_blocks, self.host.free_blocks))
        if blocks <= 0:
            return None
        if self.prefixes is not None:
            private = self.prefixes.uncache(state, held - blocks)
            self._idle_private += private if state.idle else 0
        copy = Copy(state, Direction.OUT, blocks, resident - (held - blocks) * size, blocking)
        self.host.allocate(blocks)
        self._begin(copy)
        return copy

    def begin_swap_in(self, state: SessionState, max_blocks: float, blocking: bool) -> Copy | None:
        """Begin to copy the leading offloaded blocks back: as many as ``max_blocks`` and the GPU's free ones allow."""
        assert state.copy is None and state.decode_batch is None, state
        blocks = int(min(self.blocks(state.offloaded), max_blocks, self.gpu.free_blocks))
        if blocks <= 0:
            return None
        copy = Copy(state, Direction.IN, blocks, min(state.offloaded, blocks * self.block_size), blocking)
        self.gpu.allocate(blocks)
        self._begin(copy)
        return copy

    def begin_receive(self, state: SessionState, tokens: int) -> Copy:
        """Begin to copy the first ``tokens`` missing tokens in from another replica; their blocks are free."""
        assert state.resident == state.offloaded == 0 and state.copy is None and tokens <= state.missing, state
        copy = Copy(state, Direction.IN, self.blocks(tokens), tokens, blocking=False, from_replica=True)
        self.gpu.allocate(copy.blocks)
        self._begin(copy)
        return copy

    def pin(self, state: SessionState) -> None:
        """Another replica reads this context: it may not be changed until ``unpin``."""
        self.set_idle(state, False)
        self.copying_blocks += self.blocks_held(state) - state.shared_blocks

    def unpin(self, state: SessionState) -> None:
        """The context has been read, or will not be."""
        self.copying_blocks -= self.blocks_held(state) - state.shared_blocks

    def _begin(self, copy: Copy) -> None:
        copy.state.copy = copy
        self.version += 1
        self.in_flight[copy] = None
        self.copying_blocks += copy.blocks
        if copy.direction is Direction.OUT and copy.state.idle:
            self._idle_private -= copy.blocks
        for listener in self.listeners:
            listener.copy_began(copy)

    def finish(self, copy: Copy) -> None:
        """A copy has ended: its tokens have moved, and the blocks that they left are free."""
        state = copy.state
        del self.in_flight[copy]
        state.copy = None
        self.copying_blocks -= copy.blocks
        if copy.direction is Direction.OUT:
            self.gpu.free(copy.blocks)
            self._lost(state)
            resident, tokens = state.resident, copy.tokens
            state.peak = max(state.peak, resident + state.offloaded)
            state.resident = resident - tokens
            state.offloaded += tokens
            state.stats.swapped_out += tokens
        else:
            self._take_in(copy)
            self._idle_private += copy.blocks if state.idle else 0
            self.cache_blocks(state)
        self._index(state)
        for listener in self.listeners:
            listener.copy_ended(copy)

    def _take_in(self, copy: Copy) -> None:
        state = copy.state
        state.resident += copy.tokens
        if copy.from_replica:
            state.missing -= copy.tokens
            state.stats.received += copy.tokens
        else:
            self.host.free(copy.blocks)
            state.offloaded -= copy.tokens
            state.stats.swapped_in += copy.tokens

    def release(self, state: SessionState) -> None:
        """The session has left: free all it holds."""
        self.truncate(state, 0)
        assert state.resident == 0 and state.offloaded == 0

    def check(self, inside: list[SessionState]) -> None:
        """INV-2, recounted from scratch: blocks in use are the sum over contexts and copies under way.

        Raises:
            AssertionError: a count is off.
        """
        resident = sum(self.blocks_held(state) - state.shared_blocks for state in inside)
        shared = 0 if self.prefixes is None else self.prefixes.check(inside)
        offloaded = sum(self.blocks(state.offloaded) for state in inside)
        inwards = sum(copy.blocks for copy in self.in_flight if copy.direction is Direction.IN)
        outwards = sum(copy.blocks for copy in self.in_flight if copy.direction is Direction.OUT)
        gpu = resident + shared + inwards + self.claimed
        assert self.gpu.used == gpu, (self.gpu.used, resident, shared, inwards, self.claimed)
        assert self.host.used == offloaded + outwards, (self.host.used, offloaded, outwards)
        assert 0 <= self.gpu.used <= self.gpu.capacity and 0 <= self.host.used <= self.host.capacity
        idle = sum(self.blocks_held(state) - state.shared_blocks for state in inside if state.idle)
        assert self._idle_private == idle - outwards, (self._idle_private, idle, outwards)
        read = sum(
            self.blocks_held(state) - state.shared_blocks for state in inside if state.status is Status.DEPARTING
        )
        assert self.copying_blocks == inwards + outwards + read
        assert set(self.idle_gpu) == {state for state in inside if state.idle and state.resident}
        assert set(self.idle_host) == {state for state in inside if state.idle and state.offloaded}
        for state in inside:
            assert state.offloaded == 0 or state.resident % self.block_size == 0, state
