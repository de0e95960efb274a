"""One engine in simulated time: SimPy gives the clock, the cost model the durations.

What happens during an iteration (an arrival, an answer, the end of a copy) is taken up at its end. Things that happen
at the same instant are taken up in this order: ends of copies, sessions that go on elsewhere, answers, sessions that
come from elsewhere, arrivals, each by order of submission; then the next iteration is planned.

Time leaps: while the engine says that the next iterations will all be alike, they are one event. News cut a leap short
at the end of the iteration in which they come.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from functools import partial
from operator import itemgetter
from typing import Any, Protocol

from simpy.events import Event, EventPriority

from sim.costs.copy_streams import CopyStreams
from sim.costs.cost_model import CostModel
from sim.costs.gpu_state import gpu_state_of
from sim.engine import migration as moves
from sim.engine.engine import Engine
from sim.engine.plan import Plan
from sim.kv.copy import Copy
from sim.results.recorder import Recorder
from sim.results.run_record import Part
from sim.session import SessionState, Status
from sim.world.clock import LAST, Clock
from sim.world.timer import Timer
from traces.session import Session


class _News(IntEnum):
    """What can reach a replica, in the order in which one instant's news are taken up."""

    COPIED = 0
    WITHDRAWN = 1
    LET_GO = 2
    ANSWERED = 3
    ADOPTED = 4
    ARRIVED = 5


_IN_TURN = itemgetter(0, 1, 2)
_NONE: Sequence[Any] = ()
_FIRST_LOOK = 4
"""Passes of a leap that are timed at once, at least: an event of their own would cost more."""


class Incoming(Protocol):
    """A session on its way from another replica to this one."""

    @property
    def state(self) -> SessionState: ...
    @property
    def tokens(self) -> int: ...
    @property
    def first_token_at(self) -> float: ...
    def adopted(self, copy: Copy | None, now: float) -> None:
        """The session has been queued, and perhaps its context begins to be copied over."""


class Replica:
    """Runs an engine: plans, lets the time pass that the plan takes, commits.

    Args:
        clock: the SimPy environment.
        engine: the rules.
        costs: the time that plans take; ``engine.costs`` is what the engine and its policies think of it.
        recorder: notes what happens.
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
        self._coming = 0  # ready sessions that the engine has not heard of
        self._sent_tokens = 0  # outstanding tokens, less what was emitted
        self._acting = False
        self._inbox: list[tuple[float, _News, int, Any]] = []
        self._timer = Timer(clock, self._act, EventPriority(LAST + index))
        self._costs = costs
        self._channels = CopyStreams(costs)
        self._power = gpu_state_of(costs)
        self._plan: Plan | None = None  # under way
        self._stall = 0.0
        self._ends: list[float] = []  # of the iterations under way, as far as they have been looked ahead to
        self._passes: Iterator[float] | None = None  # seconds of those after them, unless there are none
        self._accounted = 0.0

    # ---- news

    def arrive(self, session: Session, serial: int) -> None:
        """A session arrives now; ``serial`` is its place among the arrivals."""
        self._expect(session.prompt)
        self._news(_News.ARRIVED, serial, session)

    def answer(self, state: SessionState) -> None:
        """The answer that a session waits for is there now, and it goes on here."""
        if not state.last_call:
            self._expect(state.context_when_resumed(self.clock.now))
        self._news(_News.ANSWERED, state.serial, state)

    def withdraw(self, state: SessionState, readable: bool) -> None:
        """The answer is there now, and the session goes on elsewhere."""
        self._news(_News.WITHDRAWN, state.serial, (state, readable))

    def let_go(self, state: SessionState) -> None:
        """The context of a session that was withdrawn need not be read any more."""
        self._news(_News.LET_GO, state.serial, state)

    def adopt(self, incoming: Incoming) -> None:
        """A session that paused elsewhere goes on here from now on."""
        self._expect(incoming.state.context)
        self._news(_News.ADOPTED, incoming.state.place, incoming)

    def receive(self, copy: Copy, end: float) -> None:
        """A context that comes from another replica will be here at ``end``."""
        self._later(end, _News.COPIED, copy.state.serial, copy)

    def _expect(self, tokens: int) -> None:
        self._coming += 1
        self._sent_tokens += tokens

    def _news(self, kind: _News, serial: int, what: Any) -> None:
        now = self.clock.now
        self._inbox.append((now, kind, serial, what))
        if self._acting:
            return  # it is about to take the news
        if self._plan is None:
            self._timer.set(now)
        elif self._leaps:
            self._passes = None
            done = bisect_left(self._ends, now) + 1
            if done < len(self._ends):
                del self._ends[done:]
                self._timer.set(self._ends[-1])

    def _later(self, time: float, kind: _News, serial: int, what: Any) -> None:
        self.clock.at(time, lambda _: self._news(kind, serial, what))

    def _take_news(self) -> None:
        if not self._inbox:
            return
        news, self._inbox = self._inbox, []
        if len(news) > 1:
            news.sort(key=_IN_TURN)
        self._coming = 0
        for at, kind, serial, what in news:
            if kind is _News.COPIED:
                self._copied(what, at)
            elif kind is _News.ANSWERED:
                self._answer(what, at)
            elif kind is _News.ARRIVED:
                self._admit(what, serial, at)
            elif kind is _News.ADOPTED:
                self._adopt(what, at)
            elif kind is _News.WITHDRAWN:
                self._withdraw(what[0], what[1], at)
            else:
                moves.let_go(self.engine, what, at)

    def _admit(self, session: Session, serial: int, at: float) -> None:
        state = self.engine.submit(session, at)
        state.place = serial
        self.recorder.arrived(state)
        if state.status is Status.REJECTED:
            self._sent_tokens -= state.context
            self._on_left(state)

    def _withdraw(self, state: SessionState, readable: bool, at: float) -> None:
        moves.withdraw(self.engine, state, at, readable)
        self.recorder.withdrawn(state)

    def _adopt(self, incoming: Incoming, at: float) -> None:
        state = incoming.state
        copy = moves.adopt(self.engine, state, at, incoming.tokens)
        self.recorder.adopted(state, at, incoming.first_token_at)
        incoming.adopted(copy, self.clock.now)
        if state.status is Status.FAILED:
            self._sent_tokens -= state.context
            self._on_left(state)

    def _answer(self, state: SessionState, at: float) -> None:
        self.recorder.answered(state, at)
        if self.engine.resume(state, at):
            self._leave(state, at)

    def _copied(self, copy: Copy, at: float) -> None:
        ended = self.engine.copied(copy, at)
        if ended is not None:
            self._leave(ended, ended.ready_at)

    def _leave(self, state: SessionState, at: float) -> None:
        self.recorder.finished(state, at)
        self._on_left(state)
        state.forget_view()

    # ---- iterations

    def _act(self) -> None:
        """An iteration, a leap or a sleep is over: commit it, take the news, and begin what comes next."""
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
        self._take_news()
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

        In a cluster most of that is no news here, so there are at least as many as were timed before. Nothing but news
        and the policy's review cut a leap short.
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
        """The ends of copies are news. Those until the end of the iteration wake nobody, and need no event."""
        for end, copy in ending:
            if end <= until:
                self._inbox.append((end, _News.COPIED, copy.state.serial, copy))
            else:
                self._later(end, _News.COPIED, copy.state.serial, copy)

    def _commit(self, plan: Plan, now: float) -> None:
        outcome = self.engine.commit(plan, now)
        self.recorder.committed(outcome, now)
        for state in outcome.ended:
            self._sent_tokens -= state.context + (state.samples - 1) * state.emitted
        for state in outcome.paused:
            pause = state.call.pause
            assert pause is not None
            back = pause.end(now, state.session.arrival)
            if back == now:  # also where what was waited for is there already, or the pause is too short for the clock
                self._answered(state)
            else:
                self.clock.at(back, partial(self._answered, state))
        for state in outcome.finished:
            self._leave(state, now)

    def _answered(self, state: SessionState, _: Event | None = None) -> None:
        if self._on_answer is None or state.last_call:
            self.answer(state)
        else:
            self._on_answer(state)

    def _account(self, now: float) -> None:
        """Book the time since the last account: to the iterations under way, or as idle."""
        ledger, begin = self.recorder.ledger, self._accounted
        if self._plan is not None:
            ledger.work(self.engine, self._plan, begin, self._stall, self._ends)
        else:
            ledger.idle(self.engine, begin, now)
        self._accounted = now

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
        """Ready sessions that compute nothing, with those that the engine has not heard of yet."""
        return self._coming + len(self.engine.queues.waiting) + len(self.engine.queues.swapped)

    @property
    def free_blocks(self) -> int:
        """GPU blocks that nobody holds, less those that a leap's iterations have taken by now."""
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
        """The run is cut now: commit the iterations that have ended, book the one under way so far, and take the news
        that have come during it, so that whoever has arrived is counted."""
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
            self._stall = min(self._stall, now - self._accounted)
            self._ends = [now]
            if now > self._accounted:
                self._account(now)
        elif self._inbox:
            self._account(now)
        self._inbox = [news for news in self._inbox if news[0] <= now]
        self._take_news()

    def part(self) -> Part:
        """What the closed replica leaves behind, once every replica of its cluster is closed."""
        self._take_news()
        return self.recorder.part(self.engine, self._accounted)
