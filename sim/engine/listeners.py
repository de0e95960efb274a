"""What can be told of an engine while it happens: ``engine.add_listener(listener)``."""

from __future__ import annotations

from collections.abc import Sequence

from sim.engine.plan import Outcome, Plan
from sim.kv.listeners import BlockTableListener
from sim.session import SessionState


class EngineListener(BlockTableListener):
    """Is told of blocks, of places in the queue and of events. Sub-classes override what they need.

    A listener changes nothing. The engine tells of places; its driver of events, of iterations and of idle time.
    """

    def ranked(self, state: SessionState, key: tuple[float, ...]) -> None:
        """A session becomes ready with this key, and is about to take its place in the queue."""

    def reranked(self, moved: list[tuple[SessionState, tuple[float, ...]]]) -> None:
        """Ready sessions are about to have these keys."""

    def arrived(self, state: SessionState) -> None:
        """A session was submitted; it is queued or rejected."""

    def tool_returned(self, state: SessionState, now: float) -> None:
        """A pause is over; the engine is told next."""

    def moved_in(self, state: SessionState, now: float) -> None:
        """A session that paused on another replica goes on here, or has failed."""

    def moved_away(self, state: SessionState) -> None:
        """A session goes on at another replica."""

    def committed(self, outcome: Outcome, now: float) -> None:
        """An iteration is over."""

    def finished(self, state: SessionState, now: float) -> None:
        """A session has left."""

    def worked(self, plan: Plan, begin: float, stall: float, ends: Sequence[float]) -> None:
        """Iterations ended at ``ends``; the first began at ``begin`` and waited ``stall`` seconds for copies. What they
        computed is committed next."""

    def rested(self, until: float) -> None:
        """Nothing was computed until ``until``."""
