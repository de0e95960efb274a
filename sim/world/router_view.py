"""Sessions and replicas as a router sees them: read-only, and without a future. Implements ``policies.routing``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from sim.session import SessionState
from traces.session import Session

if TYPE_CHECKING:
    from sim.world.replica import Replica
    from sim.world.simulate import ReplicaSpec


@dataclass(frozen=True, slots=True)
class RoutedSession:
    """Implements ``policies.routing.Routed``."""

    id: str
    kind: str
    serial: int
    calls_done: int
    context_tokens: int
    home: int | None
    held_tokens: int

    @classmethod
    def new(cls, session: Session, serial: int) -> RoutedSession:
        """A session that arrives."""
        return cls(session.id, session.kind, serial, 0, session.prompt, None, 0)

    @classmethod
    def resuming(cls, state: SessionState, home: int, now: float) -> RoutedSession:
        """A paused session whose answer has come."""
        session, (call, joined) = state.session, state.next_call(now)
        held = min(state.resident + state.offloaded, state.kept())
        return cls(session.id, session.kind, state.place, call, state.kept() + joined, home, held)


class ReplicaState:
    """A replica at the moment of asking, in the middle of a leap as if time had not leapt."""

    __slots__ = ("_replica", "block_size", "gpu_blocks")

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self.gpu_blocks = replica.engine.kv.gpu.capacity
        self.block_size = replica.engine.kv.block_size

    @property
    def outstanding_tokens(self) -> int:
        """Context tokens of ready and running sessions."""
        return self._replica.outstanding_tokens

    @property
    def waiting_sessions(self) -> int:
        """Ready sessions that compute nothing."""
        return self._replica.waiting_sessions

    @property
    def running_sessions(self) -> int:
        """Sessions that decode or compute missing tokens."""
        return self._replica.engine.queues.running

    @property
    def paused_sessions(self) -> int:
        """Sessions that wait for an answer."""
        return len(self._replica.engine.queues.paused)

    @property
    def free_blocks(self) -> int:
        """Free GPU blocks."""
        return self._replica.free_blocks

    @property
    def idle_blocks(self) -> int:
        """GPU blocks of contexts that compute nothing."""
        return self._replica.engine.kv.idle_blocks


class BlindView:
    """A replica as the router of a cluster sees it that can be simulated in parts: its state is not to be had."""

    __slots__ = ("block_size", "gpu_blocks")

    def __init__(self, spec: ReplicaSpec) -> None:
        self.block_size = spec.settings.block_size
        self.gpu_blocks = spec.profile.kv_capacity_tokens // self.block_size

    def _refuse(self) -> NoReturn:
        raise TypeError("a router that says it is stateless looked at the state of a replica")

    outstanding_tokens = waiting_sessions = running_sessions = property(_refuse)
    paused_sessions = free_blocks = idle_blocks = property(_refuse)
