"""Applies to an engine what happens at one place: the simulated replica and the wall-clock server.

A driver knows in which order events are applied, and what the engine and the recorder are told of each. What it does
not know is time: when iterations end, when copies do, and how one waits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from sim.engine import migration
from sim.engine.engine import Engine
from sim.engine.plan import Outcome, Plan
from sim.engine.truth import Tools
from sim.kv.copy import Copy
from sim.results.recorder import Recorder
from sim.results.run_record import ReplicaResult
from sim.session import SessionState, Status
from sim.world.events import EventKind, PendingEvent, in_order
from traces.session import Session


class Incoming(Protocol):
    """A session on its way from another replica to this one."""

    @property
    def state(self) -> SessionState: ...
    @property
    def tokens(self) -> int: ...
    @property
    def first_token_at(self) -> float: ...
    def arrived(self, copy: Copy | None) -> None:
        """The session has been queued, and perhaps its context begins to be copied over."""


class Driver:
    """Tells one engine, its recorder and its listeners what happens.

    Args:
        engine: the rules.
        recorder: writes down what happens.
        tools: say when the answer to a pause comes.
        on_pause: told of every session that pauses, and when its answer comes, s.
        on_left: told of every session that finished, failed or was rejected.

    Attributes:
        accounted: the time up to which the accounts are kept, s.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        tools: Tools,
        on_pause: Callable[[SessionState, float], None],
        on_left: Callable[[SessionState], None],
    ) -> None:
        self.engine = engine
        self.recorder = recorder
        self.accounted = 0.0
        self._tools = tools
        self._on_pause = on_pause
        self._on_left = on_left
        engine.policy_caller.truth.tools = tools
        self._apply: dict[EventKind, Callable[[Any, float], None]] = {
            EventKind.COPY_COMPLETED: self._copy_completed,
            EventKind.SESSION_LEAVING: self._session_leaving,
            EventKind.CONTEXT_RELEASED: self._context_released,
            EventKind.TOOL_RETURNED: self._tool_returned,
            EventKind.SESSION_MOVED_IN: self._session_moved_in,
            EventKind.REQUEST_ARRIVED: self._request_arrived,
        }

    def apply(self, events: list[PendingEvent]) -> None:
        """Apply events by time, and those of one instant in the order of ``EventKind``."""
        if len(events) > 1:
            events.sort(key=in_order)
        for at, kind, _, what in events:
            self._apply[kind](what, at)

    def commit(self, plan: Plan, now: float) -> Outcome:
        """An iteration is over. ``follow`` says what becomes of the sessions whose call has ended."""
        outcome = self.engine.commit(plan, now)
        self.recorder.committed(outcome, now)
        for listener in self.engine.listeners:
            listener.committed(outcome, now)
        return outcome

    def follow(self, outcome: Outcome, now: float) -> None:
        """Call the tools of the sessions that pause, and let those leave that have finished."""
        for state in outcome.paused:
            self._on_pause(state, self._tools.returns_at(state))
        for state in outcome.finished:
            self._finish(state, now)

    def worked(self, plan: Plan, stall: float, ends: Sequence[float]) -> None:
        """Book iterations that ended at ``ends``, the first after ``stall`` seconds of waiting for copies."""
        self.recorder.accounting.work(self.engine, plan, self.accounted, stall, ends)
        for listener in self.engine.listeners:
            listener.worked(plan, self.accounted, stall, ends)
        self.accounted = ends[-1]

    def rested(self, until: float) -> None:
        """Book the time until ``until`` as one in which nothing was computed."""
        self.recorder.accounting.idle(self.engine, self.accounted, until)
        for listener in self.engine.listeners:
            listener.rested(until)
        self.accounted = until

    def result(self) -> ReplicaResult:
        """What the run leaves behind. The recorder is empty afterwards."""
        return self.recorder.result(self.engine, self.accounted)

    # ---- events

    def _copy_completed(self, copy: Copy, at: float) -> None:
        over = self.engine.copied(copy, at)
        if over is not None:
            self._finish(over, over.ready_at)

    def _session_leaving(self, leaving: tuple[SessionState, bool], at: float) -> None:
        state, readable = leaving
        migration.begin_leave(self.engine, state, at, readable)
        self.recorder.moved_away(state)
        for listener in self.engine.listeners:
            listener.moved_away(state)

    def _context_released(self, state: SessionState, at: float) -> None:
        migration.release(self.engine, state, at)

    def _tool_returned(self, state: SessionState, at: float) -> None:
        self.recorder.tool_returned(state, at)
        for listener in self.engine.listeners:
            listener.tool_returned(state, at)
        if self.engine.resume(state, at):
            self._finish(state, at)

    def _session_moved_in(self, incoming: Incoming, at: float) -> None:
        state = incoming.state
        copy = migration.arrive_at(self.engine, state, at, incoming.tokens)
        self.recorder.moved_in(state, at, incoming.first_token_at)
        for listener in self.engine.listeners:
            listener.moved_in(state, at)
        incoming.arrived(copy)
        if state.status is Status.FAILED:
            self._on_left(state)

    def _request_arrived(self, arrival: tuple[Session, int], at: float) -> None:
        session, place = arrival
        state = self.engine.submit(session, at)
        state.place = place
        self.recorder.arrived(state)
        for listener in self.engine.listeners:
            listener.arrived(state)
        if state.status is Status.REJECTED:
            self._on_left(state)

    def _finish(self, state: SessionState, at: float) -> None:
        self.recorder.finished(state, at)
        for listener in self.engine.listeners:
            listener.finished(state, at)
        self._on_left(state)
        state.forget_view()
