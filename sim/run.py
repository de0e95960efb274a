"""Replay a workload on one replica under one system."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
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
    sessions: Sequence[Session],
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
        sessions: the workload; arrivals in seconds, in any order.
        policy: decides about paused contexts. It is told of this run only: pass a fresh one.
        order: decides who is served first.
        settings: the engine's rules.
        profile: costs and pool sizes.
        horizon: cut the run at this time; sessions still inside are recorded as unfinished.
        timeline_step: seconds of one row of the timeline.
        leap: take iterations that are alike in one event; without, the same results slower.
        log_decisions: keep every decision with the numbers it was made from.
        on_progress: called about a hundred times with the share of sessions that have left.

    Raises:
        PolicyError: the policy raised, or answered something impossible.
        UnsupportedSession: a session has a shape that the engine cannot serve.
        StalledEngine: a rule of the engine is broken.
    """
    block = settings.block_size
    gpu_blocks, host_blocks = profile.kv_capacity_tokens // block, profile.host_capacity_tokens // block
    costs = CostModel(profile)
    engine = Engine(settings, costs, policy, order, gpu_blocks, host_blocks, log_decisions, leap)
    recorder = Recorder(Ledger(costs, gpu_blocks, host_blocks, block, timeline_step))
    env = Clock()
    everyone_left = env.event()
    total = len(sessions)
    left = 0
    stride = max(1, total // 100)

    def on_left(live: LiveSession) -> None:
        nonlocal left
        left += 1
        if on_progress is not None and (left % stride == 0 or left == total):
            on_progress(left / total)
        if left == total:
            everyone_left.succeed()

    replica = Replica(env, engine, recorder, on_left)
    for serial, session in enumerate(sorted(sessions, key=lambda session: session.arrival)):
        env.at(session.arrival, partial(_arrive, replica, session, serial))
    if total:
        until: Any = everyone_left if horizon is None else everyone_left | env.timeout(horizon)
        try:
            env.run(until=until)
        except RuntimeError as error:  # SimPy: nothing is scheduled and sessions are still inside
            raise StalledEngine(
                f"at {env.now:.6f} s nothing will ever happen again, and {total - left} sessions wait"
            ) from error
    replica.close()
    return recorder.record(engine, profile.kv_bytes_per_token, env.now)


def _arrive(replica: Replica, session: Session, serial: int, _: Event) -> None:
    replica.arrive(session, serial)
