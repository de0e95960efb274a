"""One engine in simulated time: SimPy gives the clock, the cost model the durations.

What happens during an iteration (an arrival, a tool's answer, the end of a copy) is applied at its end. What happens at
one instant is applied in the order of ``sim.world.events.EventKind``; then the next iteration is planned.

Time leaps: while the engine says that the next iterations will all be alike, they are one event. Any other event cuts a
leap short at the end of the iteration in which it comes.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from simpy.events import Event, EventPriority

from sim.costs.copy_streams import CopyStreams
from sim.costs.cost_model import CostModel
from sim.costs.gpu_state import gpu_state_of
from sim.engine.engine import Engine
from sim.engine.plan import Plan
from sim.engine.truth import Tools
from sim.kv.copy import Copy
from sim.results.recorder import Recorder
from sim.results.run_record import ReplicaResult
from sim.session import SessionState, Status
from sim.world.clock import LAST, Clock, Timer
from sim.world.driver import Driver, Incoming
from sim.world.events import EventKind, PendingEvent
from traces.session import Session

_NONE: Sequence[Any] = ()
_FIRST_LOOK = 4
"""Passes of a leap that are timed at once, at least: an event of their own would cost more."""


class Replica:
    """Runs an engine: plans, lets the time pass that the plan takes, commits.

    Args:
        clock: the SimPy environment.
        engine: the rules.
        costs: the time that plans take; ``engine.costs`` is what the engine and its policies think of it.
        recorder: writes down what happens.
        tools: say when the answer to a pause comes.
        on_left: told of every session that finished, failed or was rejected.
        index: its place in its cluster; at one instant replicas act in this order.
        on_answer: told of every answer that lets a session go on; without it, sessions go on where they are.
    """

    def __init__(
        self,
        clock: Clock,
        engine: Engine,
        costs: CostModel,
        recorder: Recorder,
        tools: Tools,
        on_left: Callable[[SessionState], None],
        index: int = 0,
        on_answer: Callable[[SessionState], None] | None = None,
    ) -> None:
        self.clock = clock
        self.engine = engine
        self.recorder = recorder
        self.index = index
        self._on_left = on_left
        self._on_answer = on_answer
        self._coming = 0  # ready sessions whose event is pending
        self._sent_tokens = 0  # outstanding tokens, less what was emitted
        self._acting = False
        self._pending: list[PendingEvent] = []
        self._timer = Timer(clock, self._act, EventPriority(LAST + index))
        self._costs = costs
        self._channels = CopyStreams(costs)
        self._power = gpu_state_of(costs)
        self._plan: Plan | None = None  # under way
        self._stall = 0.0
        self._ends: list[float] = []  # of the iterations under way, as far as they have been looked ahead to
        self._passes: Iterator[float] | None = None  # seconds of those after them, unless there are none
        self._driver = Driver(engine, recorder, tools, self._session_paused, self._session_left)

    # ---- events

    def arrive(self, session: Session, place: int) -> None:
        """A session arrives now; ``place`` is its number among the arrivals."""
        self._expect(session.prompt)
        self.post(EventKind.REQUEST_ARRIVED, place, (session, place))

    def tool_returned(self, state: SessionState) -> None:
        """The answer that a session waits for is there now, and it goes on here."""
        if not state.last_call:
            self._expect(state.context_when_resumed(self.clock.now))
        self.post(EventKind.TOOL_RETURNED, state.serial, state)

    def begin_leave(self, state: SessionState, readable: bool) -> None:
        """The answer is there now, and the session goes on elsewhere."""
        self.post(EventKind.SESSION_LEAVING, state.serial, (state, readable))

    def release(self, state: SessionState) -> None:
        """The context of a session that left need not be read any more."""
        self.post(EventKind.CONTEXT_RELEASED, state.serial, state)

    def arrive_at(self, incoming: Incoming) -> None:
        """A session that paused elsewhere goes on here from now on."""
        self._expect(incoming.state.context)
        self.post(EventKind.SESSION_MOVED_IN, incoming.state.place, incoming)

    def receive(self, copy: Copy, end: float) -> None:
        """A context that comes from another replica will be here at ``end``."""
        self._post_at(end, EventKind.COPY_COMPLETED, copy.state.serial, copy)

    def post(self, kind: EventKind, number: int, what: Any) -> None:
        """An event happens now. It is applied at the end of the iteration under way, where a leap ends too."""
        now = self.clock.now
        self._pending.append((now, kind, number, what))
        if self._acting:
            return  # pending events are about to be applied
        if self._plan is None:
            self._timer.set(now)
        elif self._leaps:
            self._passes = None
            done = bisect_left(self._ends, now) + 1
            if done < len(self._ends):
                del self._ends[done:]
                self._timer.set(self._ends[-1])

    def _post_at(self, time: float, kind: EventKind, number: int, what: Any) -> None:
        self.clock.at(time, lambda _: self.post(kind, number, what))

    def _expect(self, tokens: int) -> None:
        self._coming += 1
        self._sent_tokens += tokens

    def _apply_pending(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self._coming = 0
            self._driver.apply(pending)

    def _session_left(self, state: SessionState) -> None:
        if state.status is not Status.FINISHED:
            self._sent_tokens -= state.context
        self._on_left(state)

    def _session_paused(self, state: SessionState, until: float) -> None:
        if until == self.clock.now:  # what was waited for is there already, or the pause is too short for the clock
            self._tool_answers(state)
        else:
            self.clock.at(until, partial(self._tool_answers, state))

    def _tool_answers(self, state: SessionState, _: Event | None = None) -> None:
        if self._on_answer is None or state.last_call:
            self.tool_returned(state)
        else:
            self._on_answer(state)

    # ---- iterations

    def _act(self) -> None:
        """An iteration, a leap or a sleep is over: commit it, apply what happened, and begin what comes next."""
        if self._passes is not None:
            self._look_ahead(self._ends[-1])
            return
        now = self.clock.now
        self._account(now)
        self._acting, self.clock.acting = True, self.index
        if self._plan is not None:
            plan, self._plan = self._plan, None
            plan.iterations, plan.ends = len(self._ends), self._ends
            if self._power is not None and plan.computes:
                self._power.took(plan.iterations, now)
            self._commit(plan, now)
        self._apply_pending()
        self._acting, self.clock.acting = False, -1
        self._begin(self.engine.plan(now), now)

    def _begin(self, plan: Plan, now: float) -> None:
        costs = self._costs
        stall, ending = self._channels.begin(plan.copies, now) if plan.copies else (0.0, _NONE)
        if stall == 0 and not plan.computes:
            self._await(ending, now)
            review = self.engine.next_wakeup()
            if review < math.inf:
                self._timer.set(review)
            return
        self._plan, self._stall = plan, stall
        passes = (
            costs.step_times(plan.batch, plan.iterations)
            if self._power is None or not plan.computes
            else self._power.step_times(plan.batch, now, plan.iterations, stall)
        )
        if plan.iterations > 1:
            self._passes, self._ends = passes, []
            self._look_ahead(now)
            return
        forward = next(passes)
        if self._channels.busy_until > now + stall:
            forward = costs.slowed_by_copies(forward, self._channels.beside(now + stall))
        if plan.copies and plan.computes:
            forward += costs.copy_launch_time(plan.copies) - (stall and min(stall, costs.hidden_host_time(plan.batch)))
        end = now + (stall + forward)
        self._ends = [end]
        self._timer.set(end)
        if ending:
            self._await(ending, end)

    def _look_ahead(self, end: float) -> None:
        """Time the next passes of a leap, from ``end`` on: those that begin before anything else happens anywhere.

        In a cluster most of that is no event of this replica, so there are at least as many as were timed before. Only
        its own events and the policy's review cut a leap short.
        """
        plan, passes, ends = self._plan, self._passes, self._ends
        assert plan is not None and passes is not None
        least, event, review = max(_FIRST_LOOK, 2 * len(ends)), self.clock.peek(), plan.review_at
        for seconds in passes:
            end += seconds
            ends.append(end)
            if end >= review or len(ends) == plan.iterations:
                self._passes = None
                break
            if end >= event and len(ends) >= least:
                break
        self._timer.set(end)

    @property
    def _leaps(self) -> bool:
        """Whether more than one iteration is under way."""
        return len(self._ends) > 1 or self._passes is not None

    def _await(self, ending: Sequence[tuple[float, Copy]], until: float) -> None:
        """Schedule copy completions. One that ends before this step needs no event: it is applied at its end."""
        for end, copy in ending:
            if end <= until:
                self._pending.append((end, EventKind.COPY_COMPLETED, copy.state.serial, copy))
            else:
                self._post_at(end, EventKind.COPY_COMPLETED, copy.state.serial, copy)

    def _commit(self, plan: Plan, now: float) -> None:
        outcome = self._driver.commit(plan, now)
        for state in outcome.ended:
            self._sent_tokens -= state.context + (state.samples - 1) * state.emitted
        self._driver.follow(outcome, now)

    def _account(self, now: float) -> None:
        """Book the time since the last account: to the iterations under way, or as idle."""
        if self._plan is not None:
            self._driver.worked(self._plan, self._stall, self._ends)
        else:
            self._driver.rested(now)

    # ---- what a router sees

    @property
    def outstanding_tokens(self) -> int:
        """Context tokens of ready and running sessions, all samples' own among them, with what was emitted by now."""
        engine = self.engine
        return (
            self._sent_tokens + engine.emitted_tokens + engine.queues.decoding.num_sequences * self._iterations_over()
        )

    @property
    def waiting_sessions(self) -> int:
        """Ready sessions that compute nothing, with those whose event is pending."""
        return self._coming + len(self.engine.queues.waiting) + len(self.engine.queues.swapped)

    @property
    def free_blocks(self) -> int:
        """Free GPU blocks, less those that a leap's iterations have taken by now."""
        free = self.engine.kv.gpu.free_blocks
        return free - self._plan.growth[self._iterations_over()] if self._plan is not None else free

    def _iterations_over(self) -> int:
        """Of the leap under way, how many iterations have ended before what happens now.

        Things happen before the iterations that end at the same instant, but a replica that acts has its turn after
        those that come before it.
        """
        if self._plan is None or len(self._ends) == 1:
            return 0
        count = bisect_right if self.index < self.clock.acting else bisect_left
        return count(self._ends, self.clock.now)

    # ---- the end of the run

    def close(self) -> None:
        """The run is cut now: commit the iterations that have ended, book the one under way so far, and apply the
        events that came during it, so that every session that has arrived is counted."""
        now = self.clock.now
        self._acting = True
        if self._plan is not None and self._leaps:
            self._passes = None
            done = bisect_right(self._ends, now)
            if done:
                del self._ends[done:]
                plan, at = self._plan, self._ends[-1]
                self._account(at)
                plan.iterations, plan.ends = done, self._ends
                self._plan = None
                self._commit(plan, at)
                self._plan = self.engine.plan(at)
        if self._plan is not None:
            self._stall = min(self._stall, now - self._driver.accounted)
            self._ends = [now]
            if now > self._driver.accounted:
                self._account(now)
        elif self._pending:
            self._account(now)
        self._pending = [event for event in self._pending if event[0] <= now]
        self._apply_pending()

    def result(self) -> ReplicaResult:
        """What the closed replica leaves behind, once every replica of its cluster is closed."""
        self._apply_pending()
        return self._driver.result()
