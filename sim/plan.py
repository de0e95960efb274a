"""What one iteration does, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from sim.live import LiveSession


class Direction(Enum):
    """Which way a copy goes."""

    OUT = "out"
    """From the GPU to the host."""
    IN = "in"
    """From the host to the GPU."""

    __hash__ = object.__hash__  # an Enum's own goes by the name, in Python


@dataclass(eq=False, slots=True)
class Copy:
    """A move of whole blocks between GPU and host.

    Attributes:
        live: whose context.
        direction: out or in.
        blocks: whole blocks moved.
        tokens: context tokens in them.
        blocking: the batch waits for it; else it runs beside the batch and its blocks change hands at its end.
        from_replica: it comes in from another replica, not from the host.
    """

    live: LiveSession
    direction: Direction
    blocks: int
    tokens: int
    blocking: bool
    from_replica: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Missing tokens of one context computed in an iteration.

    Attributes:
        live: whose context.
        start: resident tokens before.
        tokens: tokens computed, of each branch where there are several.
        recomputed: how many of them had been computed before.
    """

    live: LiveSession
    start: int
    tokens: int
    recomputed: int


@dataclass(slots=True)
class Batch:
    """The sums that an iteration's cost depends on. Tokens; ``pairs`` are query-key pairs of chunk attention, ``begun``
    calls that begin to compute, ``opened`` the first calls among them. ``decode_spread`` is n * (c1^2 + ... + cn^2) -
    (c1 + ... + cn)^2 of the contexts of n decoding sessions: n^2 times their variance, 0 where all are equally long,
    and the same after each has grown by a token."""

    decode_sessions: int = 0
    decode_context: int = 0
    prefill_sessions: int = 0
    prefill_tokens: int = 0
    prefill_context: int = 0
    prefill_pairs: int = 0
    begun: int = 0
    opened: int = 0
    decode_spread: int = 0

    def add_missing(self, live: LiveSession, start: int, tokens: int) -> None:
        """Add missing tokens of a context; beyond the fork of a branch set each branch has a chunk of its own."""
        if not live.fork or start + tokens <= live.fork:
            self.add_chunk(start, tokens)
            return
        shared = max(0, live.fork - start)
        if shared:
            self.add_chunk(start, shared)
        for _ in range(live.samples):
            self.add_chunk(start + shared, tokens - shared)

    @property
    def query_tokens(self) -> int:
        """Tokens computed."""
        return self.decode_sessions + self.prefill_tokens

    @property
    def sums(self) -> tuple[int, ...]:
        """All of them: equal for batches of equal cost."""
        return (
            self.decode_sessions,
            self.decode_context,
            self.prefill_sessions,
            self.prefill_tokens,
            self.prefill_context,
            self.prefill_pairs,
            self.begun,
            self.opened,
            self.decode_spread,
        )

    def add_chunk(self, start: int, tokens: int) -> None:
        """Add ``tokens`` computed after ``start`` resident ones."""
        self.prefill_sessions += 1
        self.prefill_tokens += tokens
        self.prefill_context += start + tokens
        self.prefill_pairs += tokens * start + tokens * (tokens + 1) // 2


@dataclass(slots=True)
class Plan:
    """What one iteration does, or several that are alike.

    Attributes:
        now: when it begins, s.
        batch: what it computes, as sums.
        decoding: whether every decoding session computes a token.
        chunks: missing tokens of other sessions.
        copies: both directions; blocking ones come before the forward pass.
        growth: for each of the iterations that are alike, GPU blocks that its contexts have grown by since the first.
        iterations: how many of them are taken; a driver may lower it before it commits.
        ends: when each of these ends, s, if there are several.
        review_at: no iteration after the first may begin at this time or later: the policy wants to be asked.
        started: sessions whose call begins to compute.
        withheld: whether the order keeps the head of the queue waiting.
    """

    now: float
    batch: Batch = field(default_factory=Batch)
    decoding: bool = False
    chunks: list[Chunk] = field(default_factory=list)
    copies: list[Copy] = field(default_factory=list)
    growth: Sequence[int] = (0,)
    iterations: int = 1
    ends: Sequence[float] = ()
    review_at: float = math.inf
    started: list[LiveSession] = field(default_factory=list)
    withheld: bool = False

    @property
    def computes(self) -> bool:
        """Whether there is a forward pass."""
        return self.decoding or bool(self.chunks)

    @property
    def empty(self) -> bool:
        """Whether nothing is to be done."""
        return not (self.computes or self.copies)

    @property
    def recomputes(self) -> bool:
        """Whether any of the tokens had been computed before."""
        return bool(self.chunks) and any(chunk.recomputed for chunk in self.chunks)

    def batch_without_recompute(self) -> Batch:
        """The batch, had nobody recomputed anything."""
        whole = self.batch
        rest = Batch(
            whole.decode_sessions,
            whole.decode_context,
            begun=whole.begun,
            opened=whole.opened,
            decode_spread=whole.decode_spread,
        )
        for chunk in self.chunks:
            if chunk.tokens > chunk.recomputed:
                rest.add_missing(chunk.live, chunk.start + chunk.recomputed, chunk.tokens - chunk.recomputed)
        return rest


@dataclass(slots=True)
class Outcome:
    """What an iteration brought: sessions whose call began to emit, ended, and so paused or finished."""

    first_tokens: list[LiveSession] = field(default_factory=list)
    ended: list[LiveSession] = field(default_factory=list)
    paused: list[LiveSession] = field(default_factory=list)
    finished: list[LiveSession] = field(default_factory=list)
