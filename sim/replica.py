"""One engine in simulated time: SimPy gives the clock, the cost model the durations.

What happens during an iteration (an arrival, an answer, the end of a copy) is taken up at its end. Things that happen
at the same instant are taken up in this order: ends of copies, answers, arrivals, each by order of submission; then the
next iteration is planned.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from enum import IntEnum
from typing import Any

import simpy
from simpy.events import Event, EventPriority

from sim.engine import Engine
from sim.live import LiveSession, State
from sim.plan import Copy, Direction, Plan
from sim.recorder import Recorder
from traces.session import Session

_LAST = EventPriority(2)  # SimPy serves an instant's events by priority, 0 urgent, 1 normal; this is last


class _News(IntEnum):
    """What can reach a replica, in the order in which one instant's news are taken up."""

    COPIED = 0
    ANSWERED = 1
    ARRIVED = 2


class Replica:
    """Runs an engine: plans, lets the time pass that the plan takes, commits.

    Args:
        env: the SimPy environment.
        engine: the rules.
        recorder: notes what happens.
        on_left: told of every session that finished or was rejected.
    """

    def __init__(
        self, env: simpy.Environment, engine: Engine, recorder: Recorder, on_left: Callable[[LiveSession], None]
    ) -> None:
        self.env = env
        self.engine = engine
        self.recorder = recorder
        self._on_left = on_left
        self._inbox: list[tuple[_News, int, float, Any]] = []
        self._asleep: Event | None = None
        self._channel_free = {Direction.OUT: 0.0, Direction.IN: 0.0}
        self._accounted = 0.0
        self._under_way: tuple[Plan, float] | None = None
        self._process = env.process(self._run())

    def arrive(self, session: Session, serial: int) -> None:
        """A session arrives now; ``serial`` is its place among the arrivals."""
        self._news(_News.ARRIVED, serial, session)

    def _news(self, kind: _News, serial: int, what: Any) -> None:
        self._inbox.append((kind, serial, self.env.now, what))
        if self._asleep is not None:
            self._asleep.succeed()
            self._asleep = None

    def _later(self, delay: float, kind: _News, serial: int, what: Any) -> None:
        timeout = self.env.timeout(delay)
        assert timeout.callbacks is not None
        timeout.callbacks.append(lambda _: self._news(kind, serial, what))

    def _pass(self, delay: float) -> Event:
        """An event after ``delay`` seconds that comes after everything else at its instant."""
        event = Event(self.env)
        event._ok, event._value = True, None
        self.env.schedule(event, priority=_LAST, delay=delay)
        return event

    def _run(self) -> Generator[Event, Any, None]:
        env, engine = self.env, self.engine
        while True:
            self._take_news()
            plan = engine.plan(env.now)
            self._start_copies(plan)
            stall, forward = self._durations(plan)
            if plan.computes or stall > 0:
                self._under_way = plan, stall
                yield self._pass(stall + forward)
                self.account()
                self._under_way = None
                self._commit(plan)
            else:
                yield from self._sleep()

    def _sleep(self) -> Generator[Event, Any, None]:
        """Nothing to do until news come, or until the policy wants to be asked again."""
        if not self._inbox:
            self._asleep = news = self.env.event()
            review = self.engine.counsel.next_review()
            if self.env.now < review < float("inf"):
                yield news | self.env.timeout(review - self.env.now)
                self._asleep = None
            else:
                yield news
        yield self._pass(0.0)
        self.account()

    def account(self) -> None:
        """Book the time since the last account: to the iteration under way, or as idle."""
        ledger, begin, seconds = self.recorder.ledger, self._accounted, self.env.now - self._accounted
        if self._under_way is not None:
            plan, stall = self._under_way
            stall = min(stall, seconds)
            ledger.iteration(self.engine, plan, begin, stall, seconds - stall)
        else:
            ledger.idle(self.engine, begin, seconds)
        self._accounted = self.env.now

    def _start_copies(self, plan: Plan) -> None:
        """Copies beside the batch queue for their direction's channel; their end is news."""
        for copy in plan.copies:
            if not copy.blocking:
                begin = max(self.env.now, self._channel_free[copy.direction])
                end = begin + self.engine.costs.copy_time(copy.tokens, copy.direction)
                self._channel_free[copy.direction] = end
                self._later(end - self.env.now, _News.COPIED, copy.live.serial, copy)

    def _durations(self, plan: Plan) -> tuple[float, float]:
        """Seconds that the batch waits for blocking copies, and seconds of its forward pass."""
        costs = self.engine.costs
        stall = sum(costs.copy_time(copy.tokens, copy.direction) for copy in plan.copies if copy.blocking)
        forward = costs.iteration_time(plan.batch)
        beside = {
            direction: free - self.env.now for direction, free in self._channel_free.items() if free > self.env.now
        }
        return stall, costs.slowed(forward, beside) if beside else forward

    def _commit(self, plan: Plan) -> None:
        now = self.env.now
        outcome = self.engine.commit(plan, now)
        for live in outcome.first_tokens:
            self.recorder.first_token(live, now)
        for live in outcome.ended:
            self.recorder.call_ended(live, now)
        for live in outcome.paused:
            pause = live.call.pause
            assert pause is not None
            if pause.duration == 0:
                self._inbox.append((_News.ANSWERED, live.serial, now, live))
            else:
                self._later(pause.duration, _News.ANSWERED, live.serial, live)
        for live in outcome.finished:
            self._leave(live)

    def _take_news(self) -> None:
        if not self._inbox:
            return
        news, self._inbox = sorted(self._inbox, key=lambda entry: (entry[2], entry[0], entry[1])), []
        for kind, _, at, what in news:
            if kind is _News.ARRIVED:
                self._admit(what, at)
            elif kind is _News.ANSWERED:
                self._answer(what, at)
            else:
                self._copied(what, at)

    def _admit(self, session: Session, at: float) -> None:
        live = self.engine.submit(session, at)
        self.recorder.arrived(live)
        if live.state is State.REJECTED:
            self._on_left(live)

    def _answer(self, live: LiveSession, at: float) -> None:
        self.recorder.answered(live, at)
        if self.engine.resume(live, at):
            self._leave(live, at)

    def _copied(self, copy: Copy, at: float) -> None:
        ended = self.engine.copied(copy, at)
        if ended is not None:
            self._leave(ended, ended.ready_at)

    def _leave(self, live: LiveSession, at: float | None = None) -> None:
        self.recorder.finished(live, self.env.now if at is None else at)
        self._on_left(live)
