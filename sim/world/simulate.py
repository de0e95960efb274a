"""Replay a workload on one replica under one system."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from policies.contract import InterceptPolicy, QueueOrder
from sim.costs.cost_model import CostModel
from sim.costs.profile import Profile
from sim.engine.engine import Engine
from sim.engine.settings import EngineSettings
from sim.errors import StalledEngine
from sim.results.memory_accounting import MemoryAccounting
from sim.results.recorder import Recorder
from sim.results.run_record import RunRecord, merge
from sim.results.session_follower import SessionFollower
from sim.results.session_log import SessionLog
from sim.session import SessionState
from sim.world.arrivals import Arrivals, by_arrival
from sim.world.clock import Clock
from sim.world.replica import Replica
from sim.world.tools import ReplayTools
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
    session_log: SessionLog | None = None,
    on_progress: Callable[[float], None] | None = None,
    policy_costs: Profile | None = None,
    short_cuts: bool = True,
) -> RunRecord:
    """Simulate one replica serving ``sessions`` until all have left, or until ``horizon`` seconds.

    Args:
        sessions: the workload; arrivals in seconds, in any order. An iterator is drawn from as time goes on, and must
            give the sessions by arrival: that way a workload need not fit in memory.
        policy: decides about paused contexts. It is told of this run only: pass a fresh one.
        order: decides which session is served first.
        settings: the engine's rules.
        profile: costs and pool sizes.
        horizon: cut the run at this time; sessions still inside are recorded as unfinished.
        timeline_step: seconds of one row of the timeline.
        leap: take iterations that are alike in one event; without, the same results slower.
        log_decisions: keep every decision with the numbers it was made from.
        session_log: takes what happens to one session; it is told of this run only: pass a fresh one.
        on_progress: called about a hundred times with the share of sessions that have left, where it is known.
        believed: costs by which the engine and its policies decide, where they know other ones than ``profile``.
        short_cuts: take every way that only makes the run faster, leaps among them; without, equal results, slower.

    Raises:
        ValueError: an iterator gave sessions that are not in the order of their arrivals.
        PolicyError: the policy raised, or answered something impossible.
        UnsupportedSession: a session has a shape that the engine cannot serve.
        StalledEngine: a rule of the engine is broken.
    """
    spec = ReplicaSpec(profile, settings, lambda: policy, lambda: order, policy_costs)
    env = Clock()
    tracker = CompletionTracker(env, len(sessions) if isinstance(sessions, Sequence) else 0, on_progress)
    replica = build(
        spec,
        env,
        tracker.left,
        timeline_step=timeline_step,
        leap=leap,
        log_decisions=log_decisions,
        session_log=session_log,
        short_cuts=short_cuts,
    )
    arrivals = Arrivals(env, replica.arrive, enumerate(by_arrival(sessions, settings.streamed_prompts)))
    tracker.watch(arrivals, horizon)
    replica.close()
    if session_log is not None:
        session_log.close(env.now)
    return merge([replica.result()], env.now)


@dataclass(frozen=True)
class ReplicaSpec:
    """What one replica is built from. Policies and orders are made anew for every replica: they may learn.

    Attributes:
        profile: costs and pool sizes.
        settings: the engine's rules.
        policy, order: make them.
        policy_costs: costs by which they and the engine decide, unless those are the profile's.
    """

    profile: Profile
    settings: EngineSettings
    policy: Callable[[], InterceptPolicy]
    order: Callable[[], QueueOrder]
    policy_costs: Profile | None = None


def build(
    spec: ReplicaSpec,
    env: Clock,
    on_left: Callable[[SessionState], None],
    index: int = 0,
    on_answer: Callable[[SessionState], None] | None = None,
    *,
    timeline_step: float = 1.0,
    leap: bool = True,
    log_decisions: bool = False,
    session_log: SessionLog | None = None,
    short_cuts: bool = True,
) -> Replica:
    """A replica with no session inside."""
    profile, block = spec.profile, spec.settings.block_size
    gpu_blocks, host_blocks = profile.kv_capacity_tokens // block, profile.host_capacity_tokens // block
    costs = CostModel(profile)
    logs = log_decisions or session_log is not None
    policy_costs = costs if spec.policy_costs is None else CostModel(spec.policy_costs)
    rules = (spec.settings, policy_costs, spec.policy(), spec.order())
    engine = Engine(*rules, gpu_blocks, host_blocks, logs, leap, short_cuts)
    accounting = MemoryAccounting(costs, gpu_blocks, host_blocks, block, timeline_step)
    if session_log is not None:
        engine.add_listener(SessionFollower(session_log, engine, accounting, index))
    tools = ReplayTools()
    recorder = Recorder(accounting, profile.kv_bytes_per_token, index, tools)
    return Replica(env, engine, costs, recorder, tools, on_left, index, on_answer)


class CompletionTracker:
    """Counts the sessions that have left, tells of progress, and lets a run go on until all have.

    Args:
        env: the clock.
        total: sessions of the run; 0 if that is not known.
        on_progress: called about a hundred times with the share of sessions that have left, where it is known.
    """

    def __init__(self, env: Clock, total: int, on_progress: Callable[[float], None] | None = None) -> None:
        self._env = env
        self._total = total
        self._on_progress = on_progress
        self._stride = max(1, total // 100)
        self._left = 0
        self._arrivals: Arrivals | None = None
        self._all_left = env.event()

    def left(self, state: SessionState) -> None:
        """A session has left."""
        self._left += 1
        if (
            self._on_progress is not None
            and self._total
            and (self._left % self._stride == 0 or self._left == self._total)
        ):
            self._on_progress(self._left / self._total)
        assert self._arrivals is not None
        if self._arrivals.over and self._left == self._arrivals.count:
            self._all_left.succeed()

    def watch(self, arrivals: Arrivals, horizon: float | None) -> None:
        """Run until all have left, or until ``horizon`` seconds.

        Raises:
            StalledEngine: nothing is scheduled and sessions are still inside.
        """
        self._arrivals = arrivals
        if arrivals.over:
            return
        env = self._env
        until: Any = self._all_left if horizon is None else self._all_left | env.timeout(horizon)
        try:
            with collecting_rarely():
                env.run(until=until)
        except RuntimeError as error:  # SimPy: nothing is scheduled
            inside = arrivals.count - self._left
            raise StalledEngine(
                f"at {env.now:.6f} s nothing will ever happen again, and {inside} sessions wait"
            ) from error


@contextmanager
def collecting_rarely() -> Iterator[None]:
    """Look for cycles of garbage after 50,000 new objects, not after 700, and only among those of the run.

    A run makes many short-lived objects and one small cycle for each session; looking for more took a fifth of it. What
    was there before, libraries for the most part, is frozen meanwhile, unless the caller has frozen objects already.
    """
    before, mine = gc.get_threshold(), gc.get_freeze_count() == 0
    gc.set_threshold(before[0] and max(before[0], 50_000), *before[1:])  # 0 stands for never
    if mine:
        gc.freeze()
    try:
        yield
    finally:
        if mine:
            gc.collect()  # otherwise the old threshold would at once have everything looked at
            gc.unfreeze()
        gc.set_threshold(*before)
