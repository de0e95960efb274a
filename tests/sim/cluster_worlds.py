"""Tiny clusters: two or three tiny GPUs (see ``worlds``) behind a router, each engine watched.

run(session("a", 90, 10, pause(3.0, returned=20), 5), router=ToAndFro(), count=2).session("a")["moves"]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import sim.world.cluster
import sim.world.simulate
from policies.basic.fcfs import FirstCome
from policies.registry import make_policy
from policies.routing import ReplicaView, Routed, Router
from sim.engine.engine import Engine
from sim.engine.settings import EngineSettings
from sim.kv.copy import Copy
from sim.results.run_record import RunRecord
from sim.session import SessionState, Status
from sim.world.cluster import Link
from sim.world.replica import Replica
from sim.world.simulate import ReplicaSpec
from tests.sim.worlds import GONE, WatchedEngine, profile, row
from traces.session import Session


class Scripted(Router):
    """Sends each session to the replicas that its script names, call by call; the last one for the rest."""

    def __init__(self, **scripts: Sequence[int]) -> None:
        self._scripts = scripts

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        script = self._scripts[session.id]
        return script[min(session.calls_done, len(script) - 1)]

    on_resume = on_arrival


@dataclass
class ClusterWorld:
    """A cluster that has run."""

    record: RunRecord
    engines: list[WatchedEngine]

    def session(self, name: str) -> dict[str, Any]:
        """A session's row."""
        return row(self.record.sessions, id=name)

    def call(self, name: str, index: int) -> dict[str, Any]:
        """A call's row."""
        return row(self.record.calls, session=name, call=index)


DEFAULTS: dict[str, Any] = {"block_size": 1, "watermark": 0.0, "token_budget": 64}


def specs(
    count: int = 2,
    policy: Any = "preserve",
    costs: Sequence[dict[str, float]] = (),
    make: Callable[[], Any] | None = None,
    **rules: Any,
) -> list[ReplicaSpec]:
    """Tiny replicas; ``costs`` are those of each ``profile``, alike where there are none."""
    costs = costs or [{}] * count
    settings = EngineSettings(**DEFAULTS | rules)
    return [
        ReplicaSpec(profile(**one), settings, make or partial(make_policy, policy), FirstCome)  # type: ignore[arg-type]
        for one in costs
    ]


def run(*sessions: Session, router: Router, leap: bool = False, link: Link | None = None, **more: Any) -> ClusterWorld:
    """Sessions served by two replicas that preserve, unless ``more`` says otherwise."""
    horizon, step = more.pop("horizon", None), more.pop("step", 1.0)
    return simulate(sessions, specs(**more), router, link=link, leap=leap, horizon=horizon, step=step)


class WatchedReplica(Replica):
    """Checks what a router sees against a recount, whenever one is asked."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.engine.replica = self  # type: ignore[attr-defined]

    def recount(self) -> int:
        """Outstanding tokens, from the sessions themselves; only while no event is pending."""
        ready = [
            state for state in self.engine.queues.inside() if state.status not in (Status.PAUSED, Status.DEPARTING)
        ]
        return sum(state.context + (state.samples - 1) * state.emitted for state in ready) + sum(
            state.context_when_resumed(state.ready_at)
            for state in self.engine.queues.paused
            if state.answered and not state.last_call
        )

    def _act(self) -> None:
        super()._act()
        if not self._pending and (self._plan is None or len(self._ends) == 1):
            assert self.outstanding_tokens == self.recount()
            assert self.free_blocks == self.engine.kv.gpu.free_blocks


def simulate(
    sessions: Iterable[Session],
    specs: Sequence[ReplicaSpec],
    router: Router,
    *,
    link: Link | None = None,
    leap: bool = False,
    horizon: float | None = None,
    step: float = 1.0,
) -> ClusterWorld:
    """``sim.world.cluster.simulate_cluster`` with watched engines."""
    engines: list[WatchedEngine] = []

    def watched(*args: Any) -> WatchedEngine:
        engines.append(WatchedEngine(*args))
        return engines[-1]

    arrive_at = sim.engine.migration.arrive_at

    def arriving(engine: Engine, state: SessionState, now: float, tokens: int) -> Copy | None:
        copy = arrive_at(engine, state, now, tokens)
        assert isinstance(engine, WatchedEngine)
        engine.all_sessions.append(state)
        engine._check()
        return copy

    with (
        patch.object(sim.world.simulate, "Engine", watched),
        patch.object(sim.world.simulate, "Replica", WatchedReplica),
        patch.object(sim.engine.migration, "arrive_at", arriving),
    ):
        record = sim.world.cluster.simulate_cluster(
            sessions,
            specs=specs,
            router=router,
            link=link,
            horizon=horizon,
            timeline_step=step,
            leap=leap,
            log_decisions=True,
        )
    return ClusterWorld(record, engines)


def assert_conserved(world: ClusterWorld, sessions: Sequence[Session]) -> None:
    """Every session is in one row and, but for those that it left, in one engine; none that left holds memory."""
    assert sorted(world.record.sessions["id"]) == sorted(session.id for session in sessions)
    known = [state for engine in world.engines for state in engine.all_sessions]
    stays = [state for state in known if not state.leaving]
    assert sorted(state.session.id for state in stays) == sorted(session.id for session in sessions)
    assert len(known) - len(stays) == sum(world.record.sessions["moves"])
    for state in known:
        assert state.status not in GONE or state.resident == state.offloaded == 0
