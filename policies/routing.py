"""What a router is asked, and what it may see.

A router spreads sessions over the replicas of a cluster. It is asked when a session arrives and, unless its choices
are free of the replicas' state, whenever a tool's answer lets one go on. It sees what a gateway can know: lengths so
far and the state of the replicas at that moment. How many tokens a session will still generate is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Routed(Protocol):
    """A session that is to be sent to a replica. ``context_tokens`` are all that its next token depends on.

    ``serial`` counts the arrivals from 0. A session that resumes has a ``home``, the replica where it last ran and
    where the first ``held_tokens`` of its context still have their KV; a new one has None and 0.
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
        free_blocks: GPU blocks that nobody holds.
        idle_blocks: GPU blocks of contexts that compute nothing, which a policy may let go.
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
    """Answers with the index of a replica. What moves is the session; its context is copied or computed anew.

    Attributes:
        stateless: whether ``on_arrival`` looks at nothing but the session and the number of replicas, and a session
            stays where it began. Such a cluster can be simulated in parts. The replicas of a router that says so refuse
            to show their state, and ``on_resume`` is not asked.
    """

    stateless = False

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        """Where does this new session go? Asked in order of arrival."""
        raise NotImplementedError

    def on_resume(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        """The answer came: where does the session go on? Default: where its context is."""
        assert session.home is not None
        return session.home
