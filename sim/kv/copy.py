"""What an iteration does to one context: blocks that are copied, tokens that are computed."""

from __future__ import annotations

from dataclasses import dataclass

from sim.costs.batch import Direction
from sim.session import SessionState


@dataclass(eq=False, slots=True)
class Copy:
    """A move of whole blocks between GPU and host.

    Attributes:
        state: the session that the context belongs to.
        direction: out or in.
        blocks: whole blocks moved.
        tokens: context tokens in them.
        blocking: the batch waits for it; else it runs beside the batch and its blocks change hands at its end.
        from_replica: it comes in from another replica, not from the host.
    """

    state: SessionState
    direction: Direction
    blocks: int
    tokens: int
    blocking: bool
    from_replica: bool = False


@dataclass(frozen=True, slots=True)
class Chunk:
    """Missing tokens of one context computed in an iteration.

    Attributes:
        state: the session that the context belongs to.
        start: resident tokens before.
        tokens: tokens computed, of each branch where there are several.
        recomputed: how many of them had been computed before.
    """

    state: SessionState
    start: int
    tokens: int
    recomputed: int
