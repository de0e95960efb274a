"""Where the tokens of every context are, and the blocks that they hold: the only place where either changes.

A context is ``resident`` leading tokens on the GPU, then ``offloaded`` tokens on the host, then ``missing`` ones. When
part of it is offloaded, the resident part ends at a block boundary, because copies move whole blocks.
"""

from __future__ import annotations

from typing import Protocol

from sim.costs.batch import Direction
from sim.kv.block_pool import BlockPool
from sim.kv.copy import Chunk, Copy
from sim.kv.prefix_cache import Prefixes
from sim.kv.sample_layout import BranchBlocks, Layout
from sim.session import LiveSession, State
from traces.session import Session


class Witness(Protocol):
    """Is told of every change while it happens, so that real blocks can follow the counts."""

    def kept(self, live: LiveSession) -> None:
        """All but its present resident and offloaded tokens was forgotten."""

    def joined(self, live: LiveSession) -> None:
        """A call of several samples has ended: all but the first is forgotten."""

    def begun(self, copy: Copy) -> None:
        """A copy begins. A blocking one has ended for the accounts before anything else is done."""

    def finished(self, copy: Copy) -> None:
        """A copy has ended."""


class Contexts:
    """The GPU and the host pool, and the moves of contexts between them.

    Attributes:
        gpu, host: the two pools.
        held: idle contexts with tokens on the GPU, the longest unused first.
        away: idle contexts with tokens on the host.
        claimed: GPU blocks taken for the tokens that the iteration under way computes.
        flying: copies under way beside the batch, in the order in which they began.
        copying_blocks: GPU blocks that a copy is reading or filling, here or from another replica.
        prefixes: the leading blocks that contexts share; None if they keep to themselves.
        branches: the blocks of several samples of one context.
        losses: how often a context lost tokens, on the GPU or the host.
        changes: how often an idle context came, went, changed or began to be copied.
        witness: told of every change, if there is one.
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
        self.held: dict[LiveSession, None] = {}
        self.away: dict[LiveSession, None] = {}
        self.claimed = 0
        self.flying: dict[Copy, None] = {}
        self.prefixes = Prefixes(self.gpu, block_size) if prefix_sharing else None
        self.branches = BranchBlocks(sample_layout, block_size)
        self._idle_private = 0
        self._uses = 0  # counts the ends of uses: the time by which blocks are least recently used
        self.copying_blocks = 0
        self.losses = 0
        self.changes = 0
        self.witness: Witness | None = None

    def blocks(self, tokens: int) -> int:
        """Blocks that hold ``tokens`` tokens of one context."""
        return -(-tokens // self.block_size)

    def held_by(self, live: LiveSession) -> int:
        """GPU blocks of a context, those that it shares with others included."""
        return self.branches.blocks(live, live.resident) if live.fork else -(-live.resident // self.block_size)

    def blocks_at(self, live: LiveSession, resident: int) -> int:
        """GPU blocks of a context in its call once ``resident`` tokens, of each branch, are resident."""
        return self.branches.blocks(live, resident) if live.samples > 1 else -(-resident // self.block_size)

    def recomputing(self, chunk: Chunk) -> float:
        """GPU blocks of a context under recompute, by the share of its chunk that was computed before."""
        return self.blocks_at(chunk.live, chunk.start + chunk.tokens) * chunk.recomputed / chunk.tokens

    def most_blocks(self, session: Session) -> int:
        """GPU blocks that a session holds at most, if it holds its whole context."""
        return self.branches.most_blocks(session) if session.samples > 1 else self.blocks(session.max_context)

    def growth(self, live: LiveSession, tokens: int) -> int:
        """GPU blocks that ``tokens`` more resident tokens would take."""
        if live.samples > 1:
            return self.blocks_at(live, live.resident + tokens) - self.held_by(live)
        size, resident = self.block_size, live.resident
        return -(-(resident + tokens) // size) + -resident // size

    def lacking(self, live: LiveSession) -> int:
        """GPU blocks that a context still takes until all of it is resident."""
        return self.blocks_at(live, live.context) - self.held_by(live)

    def to_come(self, live: LiveSession) -> int:
        """The same less the blocks that a copy is filling."""
        arriving = live.copy is not None and live.copy.direction is Direction.IN
        return self.lacking(live) - (live.copy.blocks if live.copy is not None and arriving else 0)

    @property
    def idle_blocks(self) -> int:
        """GPU blocks that only contexts hold which compute nothing, those being copied out left out."""
        return self._idle_private if self.prefixes is None else self._idle_private + self.prefixes.idle

    def found(self, live: LiveSession) -> tuple[int, int]:
        """Missing tokens that are on the GPU in blocks of others, and the free blocks that the whole context takes."""
        growth = self.growth(live, live.missing)
        if self.prefixes is None:
            return 0, growth
        blocks, held = self.prefixes.found(live)
        return blocks * self.block_size, growth - held

    def take_found(self, live: LiveSession) -> None:
        """A context that is about to compute holds what others have of it."""
        if self.prefixes is not None:
            self.prefixes.take_found(live)
            self._index(live)

    def branch(self, live: LiveSession) -> None:
        """A session of several samples begins to compute for its call: the blocks that the layout wants are claimed."""
        live.fork = live.context

    def join_branches(self, live: LiveSession) -> None:
        """A call of several samples has ended: the first stays in the context, the others' blocks are free."""
        held = self.held_by(live)
        live.fork = 0
        self.gpu.give(held - self.held_by(live))
        if self.witness is not None:
            self.witness.joined(live)

    def computed(self, live: LiveSession) -> None:
        """Missing tokens of a context have come to be on the GPU: others may find them."""
        if self.prefixes is not None:
            shared = self.prefixes.publish(live)
            self._idle_private -= shared if live.idle else 0

    def _use_ends(self) -> int:
        self._uses += 1
        return self._uses

    def claim(self, blocks: int) -> None:
        """Take GPU blocks for tokens that the planned iteration computes."""
        self.gpu.take(blocks)
        self.claimed += blocks

    def coming_blocks(self) -> int:
        """GPU blocks that copies under way will free."""
        return sum([copy.blocks for copy in self.flying if copy.direction is Direction.OUT]) if self.flying else 0

    def set_idle(self, live: LiveSession, idle: bool) -> None:
        """Note that a context begins or ceases to hold memory without computing. It is not being copied."""
        assert live.copy is None, live
        if idle != live.idle:
            live.idle = idle
            private = self.held_by(live) - live.shared
            self._idle_private += private if idle else -private
            if self.prefixes is not None:
                self.prefixes.set_idle(live, idle)
                live.unused_since = self._use_ends()
            self._index(live)

    def _index(self, live: LiveSession) -> None:
        """Keep ``held`` and ``away`` what they say."""
        self.changes += 1
        idle, held, away = live.idle, self.held, self.away
        if idle and live.resident:
            held.setdefault(live)
        elif live in held:
            del held[live]
        if idle and live.offloaded:
            away.setdefault(live)
        elif live in away:
            del away[live]

    def keep_only(self, live: LiveSession, tokens: int) -> None:
        """Forget all but the first ``tokens`` tokens of what is resident or offloaded; the rest goes missing.

        Of a resident part whole blocks are kept, so up to a block less one token more than ``tokens`` may stay.
        """
        assert live.copy is None and live.group is None, live
        resident = live.resident
        live.peak = max(live.peak, resident + live.offloaded)
        if tokens < resident + live.offloaded and live.offloaded:
            kept = max(0, tokens - resident)
            self.host.give(self.blocks(live.offloaded) - self.blocks(kept))
            live.missing += live.offloaded - kept
            live.offloaded = kept
            self._lost(live)
        kept = min(resident, self.blocks(tokens) * self.block_size)
        if kept < resident:
            stays = self.branches.blocks(live, kept) if live.fork else self.blocks(kept)
            freed = self.held_by(live) - stays - self._unshare(live, self.blocks(kept))
            self.gpu.give(freed)
            self._lost(live)
            self._idle_private -= freed if live.idle else 0
            live.missing += resident - kept
            live.resident = kept
        self._index(live)
        if self.witness is not None:
            self.witness.kept(live)

    def _lost(self, live: LiveSession) -> None:
        self.losses += 1
        live.lost_at = live.progress

    def _unshare(self, live: LiveSession, keep: int) -> int:
        """Let go of the shared blocks beyond the first ``keep``. Returns how many."""
        if self.prefixes is None or live.shared <= keep:
            return 0
        return self.prefixes.release(live, keep, live.unused_since if live.idle else self._use_ends())

    def cut(self, live: LiveSession, tokens: int) -> None:
        """The client rewrote the context: only its first ``tokens`` tokens survive, as tokens and as KV.

        Of a shared block that does not survive whole nothing is kept: others go on with it as it is.
        """
        if tokens >= live.context:
            return
        whole = tokens // self.block_size
        live.unwritten = min(live.unwritten, tokens)
        self.keep_only(live, tokens if live.shared <= whole else whole * self.block_size)
        live.prefix_keys = live.prefix_keys[:whole]
        live.resident = min(live.resident, tokens)  # inside the same block
        self._index(live)
        live.missing = tokens - live.resident - live.offloaded
        live.peak = min(live.peak, tokens)

    def begin_out(self, live: LiveSession, keep: int, most_blocks: float, blocking: bool) -> Copy | None:
        """Begin to copy the resident tail beyond ``keep`` tokens to the host: as many whole blocks as ``most_blocks``
        and the host's free blocks allow. None if that is none. Blocks that others hold too stay, and so do branch sets
        in the middle of their call."""
        assert live.copy is None and live.group is None, live
        if live.fork:
            return None
        size, resident = self.block_size, live.resident
        held = -(-resident // size)
        stays = -(-min(keep, resident) // size)
        if live.prefixes is not None:
            stays = max(stays, live.prefixes.common(live))
        blocks = int(min(held - stays, most_blocks, self.host.free))
        if blocks <= 0:
            return None
        if self.prefixes is not None:
            private = self.prefixes.withdraw(live, held - blocks)
            self._idle_private += private if live.idle else 0
        copy = Copy(live, Direction.OUT, blocks, resident - (held - blocks) * size, blocking)
        self.host.take(blocks)
        self._begin(copy)
        return copy

    def begin_in(self, live: LiveSession, most_blocks: float, blocking: bool) -> Copy | None:
        """Begin to copy the leading offloaded blocks back: as many as ``most_blocks`` and the GPU's free ones allow."""
        assert live.copy is None and live.group is None, live
        blocks = int(min(self.blocks(live.offloaded), most_blocks, self.gpu.free))
        if blocks <= 0:
            return None
        copy = Copy(live, Direction.IN, blocks, min(live.offloaded, blocks * self.block_size), blocking)
        self.gpu.take(blocks)
        self._begin(copy)
        return copy

    def begin_over(self, live: LiveSession, tokens: int) -> Copy:
        """Begin to copy the first ``tokens`` missing tokens in from another replica; their blocks are free."""
        assert live.resident == live.offloaded == 0 and live.copy is None and tokens <= live.missing, live
        copy = Copy(live, Direction.IN, self.blocks(tokens), tokens, blocking=False, from_replica=True)
        self.gpu.take(copy.blocks)
        self._begin(copy)
        return copy

    def pin(self, live: LiveSession) -> None:
        """Another replica reads this context: nobody else may touch it until ``unpin``."""
        self.set_idle(live, False)
        self.copying_blocks += self.held_by(live) - live.shared

    def unpin(self, live: LiveSession) -> None:
        """The context has been read, or will not be."""
        self.copying_blocks -= self.held_by(live) - live.shared

    def _begin(self, copy: Copy) -> None:
        copy.live.copy = copy
        self.changes += 1
        self.flying[copy] = None
        self.copying_blocks += copy.blocks
        if copy.direction is Direction.OUT and copy.live.idle:
            self._idle_private -= copy.blocks
        if self.witness is not None:
            self.witness.begun(copy)

    def finish(self, copy: Copy) -> None:
        """A copy has ended: its tokens have moved, and the blocks that they left are free."""
        live = copy.live
        del self.flying[copy]
        live.copy = None
        self.copying_blocks -= copy.blocks
        if copy.direction is Direction.OUT:
            self.gpu.give(copy.blocks)
            self._lost(live)
            resident, tokens = live.resident, copy.tokens
            live.peak = max(live.peak, resident + live.offloaded)
            live.resident = resident - tokens
            live.offloaded += tokens
            live.swapped_out += tokens
        else:
            self._take_in(copy)
            self._idle_private += copy.blocks if live.idle else 0
            self.computed(live)
        self._index(live)
        if self.witness is not None:
            self.witness.finished(copy)

    def _take_in(self, copy: Copy) -> None:
        live = copy.live
        live.resident += copy.tokens
        if copy.from_replica:
            live.missing -= copy.tokens
            live.received += copy.tokens
        else:
            self.host.give(copy.blocks)
            live.offloaded -= copy.tokens
            live.swapped_in += copy.tokens

    def release(self, live: LiveSession) -> None:
        """The session has left: free all it holds."""
        self.keep_only(live, 0)
        assert live.resident == 0 and live.offloaded == 0

    def check(self, inside: list[LiveSession]) -> None:
        """INV-2, recounted from scratch: blocks in use are the sum over contexts and copies under way.

        Raises:
            AssertionError: a count is off.
        """
        resident = sum(self.held_by(live) - live.shared for live in inside)
        shared = 0 if self.prefixes is None else self.prefixes.check(inside)
        offloaded = sum(self.blocks(live.offloaded) for live in inside)
        inwards = sum(copy.blocks for copy in self.flying if copy.direction is Direction.IN)
        outwards = sum(copy.blocks for copy in self.flying if copy.direction is Direction.OUT)
        gpu = resident + shared + inwards + self.claimed
        assert self.gpu.used == gpu, (self.gpu.used, resident, shared, inwards, self.claimed)
        assert self.host.used == offloaded + outwards, (self.host.used, offloaded, outwards)
        assert 0 <= self.gpu.used <= self.gpu.capacity and 0 <= self.host.used <= self.host.capacity
        idle = sum(self.held_by(live) - live.shared for live in inside if live.idle)
        assert self._idle_private == idle - outwards, (self._idle_private, idle, outwards)
        read = sum(self.held_by(live) - live.shared for live in inside if live.state is State.DEPARTING)
        assert self.copying_blocks == inwards + outwards + read
        assert set(self.held) == {live for live in inside if live.idle and live.resident}
        assert set(self.away) == {live for live in inside if live.idle and live.offloaded}
        for live in inside:
            assert live.offloaded == 0 or live.resident % self.block_size == 0, live
