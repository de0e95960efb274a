"""What really comes. Only oracles may know it, so that a policy can be compared with one that knows the future."""

from __future__ import annotations

from typing import Protocol

from policies.contract import Paused, Queued
from policies.estimation import NextCall
from sim.session import SessionState, SessionView
from traces.session import Session


class Tools(Protocol):
    """What answers pauses: tools, services and persons (``sim.world.tools``)."""

    def returns_at(self, state: SessionState) -> float:
        """When the pause under way ends, s."""

    def duration(self, session: Session, call: int) -> float:
        """Seconds of the pause that follows a call, known before it begins."""


class Truth:
    """Answers oracles.

    Attributes:
        tools: what answers pauses; the driver of the engine says so before the run.
    """

    def __init__(self) -> None:
        self.tools: Tools | None = None

    def pause_end(self, paused: Paused) -> float:
        """When the pause under way really ends, s."""
        assert self.tools is not None, "the driver names the tools before the run"
        return self.tools.returns_at(_state_of(paused))

    def next_call(self, queued: Queued) -> NextCall:
        """What the call of a session really does."""
        assert self.tools is not None, "the driver names the tools before the run"
        state = _state_of(queued)
        call = state.call
        if call.pause is None:
            return NextCall(call.output)
        return NextCall(call.output, self.tools.duration(state.session, state.call_index), call.pause.returned)


def tokens_to_come(queued: Queued) -> int:
    """Tokens that a session will still generate in its call."""
    state = _state_of(queued)
    return state.call.output - state.emitted


def _state_of(queued: Paused | Queued) -> SessionState:
    assert isinstance(queued, SessionView)
    return queued._state
