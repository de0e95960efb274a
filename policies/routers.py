"""The shipped routers: which replica serves a session that arrives or goes on. Ties fall to the first replica."""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence

from policies.routing import ReplicaView, Routed, Router


class RoundRobin(Router):
    """The next replica for every new session, in turn; a session stays where it began."""

    stateless = True

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        return session.serial % len(replicas)


class RoundRobinCalls(Router):
    """The next replica for every call, in turn: a load balancer without sessions."""

    def __init__(self) -> None:
        self._calls = 0

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        self._calls += 1
        return (self._calls - 1) % len(replicas)

    on_resume = on_arrival


class HashAffinity(Router):
    """A session's home follows from its id alone, so that any gateway finds it."""

    stateless = True

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        return zlib.crc32(session.id.encode()) % len(replicas)


class LeastOutstanding(Router):
    """Every call goes to the replica with the fewest outstanding tokens."""

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        return least_outstanding(replicas)

    on_resume = on_arrival


class Affinity(Router):
    """A new session goes to the replica with the fewest outstanding tokens, and stays there."""

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        return least_outstanding(replicas)


class AffinitySpill(Affinity):
    """A session stays at its home unless that is full; then it goes on where the fewest tokens are outstanding.

    A home is full when more than ``most_waiting`` sessions wait there, or when the session's context needs more blocks
    than are free there or held by contexts that compute nothing.

    Args:
        most_waiting: sessions that may wait at home before a resuming one goes elsewhere.
    """

    def __init__(self, most_waiting: int = 4) -> None:
        if most_waiting < 0:
            raise ValueError("most_waiting is a number of sessions, >= 0")
        self.most_waiting = most_waiting

    def on_resume(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        assert session.home is not None
        home = replicas[session.home]
        return least_outstanding(replicas) if self._full(home, session) else session.home

    def _full(self, home: ReplicaView, session: Routed) -> bool:
        missing = session.context_tokens - session.held_tokens
        blocks = -(-missing // home.block_size)
        return home.waiting_sessions > self.most_waiting or blocks > home.free_blocks + home.idle_blocks


class TwoChoices(Router):
    """Two replicas drawn at random for every call; the one with fewer outstanding tokens serves it.

    The power of two choices (Mitzenmacher, IEEE TPDS 12(10), 2001): nearly as even as asking all of them.

    Args:
        seed: fixes the draws.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        count = len(replicas)
        first = self._random.randrange(count)
        if count == 1:
            return first
        second = (first + self._random.randrange(1, count)) % count
        fewer = replicas[second].outstanding_tokens < replicas[first].outstanding_tokens
        return second if fewer else first

    on_resume = on_arrival


def least_outstanding(replicas: Sequence[ReplicaView]) -> int:
    """Index of the replica with the fewest outstanding tokens; the first of several."""
    tokens = [replica.outstanding_tokens for replica in replicas]
    return tokens.index(min(tokens))
