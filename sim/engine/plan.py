"""What one iteration does, and what came of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from sim.costs.batch import Batch
from sim.kv.copy import Chunk, Copy
from sim.session import SessionState


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
    started: list[SessionState] = field(default_factory=list)
    head_refused: bool = False

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
            new_calls=whole.new_calls,
            first_calls=whole.first_calls,
            decode_spread=whole.decode_spread,
        )
        for chunk in self.chunks:
            if chunk.tokens > chunk.recomputed:
                rest.add_missing(chunk.state, chunk.start + chunk.recomputed, chunk.tokens - chunk.recomputed)
        return rest


@dataclass(slots=True)
class Outcome:
    """What an iteration brought: sessions whose call began to emit, ended, and so paused or finished."""

    first_tokens: list[SessionState] = field(default_factory=list)
    ended: list[SessionState] = field(default_factory=list)
    paused: list[SessionState] = field(default_factory=list)
    finished: list[SessionState] = field(default_factory=list)
