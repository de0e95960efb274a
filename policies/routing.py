"""The contract of routers: the questions, and what a router may see.

A router spreads sessions over the replicas of a cluster. It is asked when a session arrives and, unless it is
stateless, whenever a tool's answer lets a session go on. It sees what a gateway can know: lengths so far and the state
of the replicas at that moment. How many tokens a session will still generate is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Routed(Protocol):
    """A session that is to be sent to a replica.

    Attributes:
        id, kind: the session's name, and its class in the trace.
        serial: the session's place among the arrivals, from 0.
        calls_done: calls that have ended.
        context_tokens: all tokens that the next one depends on.
        home: the replica where the session last ran; None for a new one.
        held_tokens: tokens at the beginning of its context whose KV is still there; 0 for a new one.
    """

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def serial(self) -> int: ...
    @property
    def calls_done(self) -> int: ...
    @property
    def context_tokens(self) -> int: ...
    @property
    def home(self) -> int | None: ...
    @property
    def held_tokens(self) -> int: ...


class ReplicaView(Protocol):
    """A replica at the moment of asking.

    Attributes:
        gpu_blocks, block_size: the GPU pool, and tokens per block; these never change.
        outstanding_tokens: context tokens of the sessions that were sent here and are not paused: queued, being
            computed or decoding, each with the tokens that it has emitted by now.
        waiting_sessions: sessions that are ready and compute nothing, those still on their way into the queue included.
        running_sessions: sessions that decode or compute missing tokens.
        paused_sessions: sessions that wait for an answer, whether or not their context is still here.
        free_blocks: GPU blocks that no context holds.
        idle_blocks: GPU blocks of contexts that compute nothing, which a policy may evict.
    """

    @property
    def gpu_blocks(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def outstanding_tokens(self) -> int: ...
    @property
    def waiting_sessions(self) -> int: ...
    @property
    def running_sessions(self) -> int: ...
    @property
    def paused_sessions(self) -> int: ...
    @property
    def free_blocks(self) -> int: ...
    @property
    def idle_blocks(self) -> int: ...


class Router:
    """Answers with the index of a replica. The session moves there; its context is copied or recomputed.

    Attributes:
        stateless: whether ``on_arrival`` looks at nothing but the session and the number of replicas, and a session
            stays where it began. Such a cluster can be simulated in parts. The replicas of a stateless router refuse
            to show their state, and ``on_resume`` is not asked.
    """

    stateless = False

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        """Replica of a new session. Asked in order of arrival."""
        raise NotImplementedError

    def on_resume(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        """Replica where a session goes on, now that its answer came. Default: where its context is."""
        assert session.home is not None
        return session.home
