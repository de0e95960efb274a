"""Replay a workload on one replica under one system."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from simpy.events import Event

from policies.contract import InterceptPolicy, QueueOrder
from sim.clock import Clock
from sim.costs import CostModel
from sim.engine import Engine
from sim.errors import StalledEngine
from sim.ledger import Ledger
from sim.live import LiveSession
from sim.profile import Profile
from sim.recorder import Recorder, RunRecord
from sim.replica import Replica
from sim.settings import EngineSettings
from traces.session import Session


def simulate(
    sessions: Iterable[Session],
    *,
    policy: InterceptPolicy,
    order: QueueOrder,
    settings: EngineSettings,
    profile: Profile,
    horizon: float | None = None,
    timeline_step: float = 1.0,
    leap: bool = True,
    log_decisions: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> RunRecord:
    """Simulate one replica serving ``sessions`` until all have left, or until ``horizon`` seconds.

    Args:
        sessions: the workload; arrivals in seconds, in any order. An iterator is drawn from as time goes on, and must
            give the sessions by arrival: that way a workload need not fit in memory.
        policy: decides about paused contexts. It is told of this run only: pass a fresh one.
        order: decides who is served first.
        settings: the engine's rules.
        profile: costs and pool sizes.
        horizon: cut the run at this time; sessions still inside are recorded as unfinished.
        timeline_step: seconds of one row of the timeline.
        leap: take iterations that are alike in one event; without, the same results slower.
        log_decisions: keep every decision with the numbers it was made from.
        on_progress: called about a hundred times with the share of sessions that have left, where it is known.

    Raises:
        ValueError: an iterator gave sessions that are not in the order of their arrivals.
        PolicyError: the policy raised, or answered something impossible.
        UnsupportedSession: a session has a shape that the engine cannot serve.
        StalledEngine: a rule of the engine is broken.
    """
    block = settings.block_size
    gpu_blocks, host_blocks = profile.kv_capacity_tokens // block, profile.host_capacity_tokens // block
    costs = CostModel(profile)
    engine = Engine(settings, costs, policy, order, gpu_blocks, host_blocks, log_decisions, leap)
    recorder = Recorder(Ledger(costs, gpu_blocks, host_blocks, block, timeline_step), profile.kv_bytes_per_token)
    env = Clock()
    everyone_left = env.event()
    total = len(sessions) if isinstance(sessions, Sequence) else 0
    left = 0
    stride = max(1, total // 100)

    def on_left(live: LiveSession) -> None:
        nonlocal left
        left += 1
        if on_progress is not None and total and (left % stride == 0 or left == total):
            on_progress(left / total)
        if arrivals.over and left == arrivals.count:
            everyone_left.succeed()

    replica = Replica(env, engine, recorder, on_left)
    arrivals = _Arrivals(env, replica, _by_arrival(sessions))
    if not arrivals.over:
        until: Any = everyone_left if horizon is None else everyone_left | env.timeout(horizon)
        try:
            env.run(until=until)
        except RuntimeError as error:  # SimPy: nothing is scheduled and sessions are still inside
            raise StalledEngine(
                f"at {env.now:.6f} s nothing will ever happen again, and {arrivals.count - left} sessions wait"
            ) from error
    replica.close()
    return recorder.record(engine, env.now)


class _Arrivals:
    """Lets sessions arrive at their times, each drawn when the one before it has come.

    Attributes:
        count: sessions that have arrived.
        over: whether nobody is to come.
    """

    def __init__(self, clock: Clock, replica: Replica, sessions: Iterator[Session]) -> None:
        self._clock, self._replica, self._sessions = clock, replica, sessions
        self.count = 0
        self._next = next(sessions, None)
        self._await_next()

    def _await_next(self) -> None:
        self.over = self._next is None
        if self._next is not None:
            self._clock.at(self._next.arrival, self._arrive)

    def _arrive(self, _: Event) -> None:
        """All that come at this instant come in one event, so that nothing else of the instant parts them."""
        now = self._clock.now
        while self._next is not None and self._next.arrival == now:
            self._replica.arrive(self._next, self.count)
            self.count += 1
            self._next = next(self._sessions, None)
        self._await_next()


def _by_arrival(sessions: Iterable[Session]) -> Iterator[Session]:
    if isinstance(sessions, Sequence):
        yield from sorted(sessions, key=lambda session: session.arrival)
        return
    last = 0.0
    for session in sessions:
        if session.arrival < last:
            raise ValueError(f"session {session.id} arrives at {session.arrival} s, after one that came at {last} s")
        last = session.arrival
        yield session
