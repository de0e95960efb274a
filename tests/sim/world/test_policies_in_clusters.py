"""What policies know of sessions that move between replicas: nothing where they left, the facts where they go on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from enum import Enum
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.caesura.policy import Caesura
from policies.contract import EngineView, InterceptPolicy, Paused, Queued
from policies.learning.estimators import Elapsed
from policies.registry import make_order
from sim.session import Status
from sim.world.cluster import Link
from tests.sim.cluster_worlds import Scripted, simulate, specs
from tests.sim.random_worlds import SHIPPED, examples
from tests.sim.world.test_cluster import ROUTERS, ClusterPlot, clusters
from tests.sim.worlds import pause, session

TO_AND_FRO = Scripted(a=[0, 1, 0, 1])
REMEMBERING: list[tuple[Any, str]] = [
    ({"name": "caesura", "estimator": "empirical"}, "due-first"),
    ({"name": "continuum", "enough": 1, "window": 3}, "pinned-first"),
    ({"name": "mori", "tick": 0.7, "headroom": 0.5}, "fcfs"),
    ({"name": "thunderagent", "tick": 0.7}, "active-first"),
    ({"name": "lamps", "predictor": "kind-mean"}, "smallest-memory"),
]


def names_in(known: object, seen: set[int] | None = None) -> Iterator[str]:
    """Every text in what a policy remembers, at any depth. Contexts that it ranked for its last answer do not count."""
    seen = set() if seen is None else seen
    if isinstance(known, str):
        yield known
    if id(known) in seen or isinstance(known, str | Enum | type):
        return
    seen.add(id(known))
    inside: Iterable[object] = ()
    if isinstance(known, Mapping):
        inside = (*known.keys(), *known.values())
    elif isinstance(known, list | tuple | set | deque):
        inside = tuple(known)
    elif type(known).__module__.startswith("policies."):
        names = (*getattr(known, "__dict__", ()), *getattr(known, "__slots__", ()))
        inside = [getattr(known, name) for name in names]
    for one in inside:
        yield from names_in(one, seen)


@pytest.mark.parametrize(("policy", "order"), REMEMBERING)
def test_a_policy_forgets_who_has_left_its_replica(policy: Any, order: str) -> None:
    """Whoever ended there or goes on elsewhere; where a run is cut short, those who are inside may be known."""

    @examples(20)
    @given(clusters(st.just(policy), st.integers(0, 99)))
    def holds(plot: ClusterPlot) -> None:
        made = partial(make_order, order)
        others = tuple(replace(one, order=made) for one in plot.others)
        assert_forgets(replace(plot, first=replace(plot.first, order=made), others=others))

    holds()


@examples(40)
@given(clusters(st.sampled_from(SHIPPED), st.sampled_from(ROUTERS) | st.integers(0, 99)))
def test_no_shipped_policy_remembers_who_has_left_its_replica(plot: ClusterPlot) -> None:
    assert_forgets(plot)


def assert_forgets(plot: ClusterPlot) -> None:
    """Run it, and look for the names of those who are gone."""
    for engine in plot.run(leap=True).engines:
        inside = {state.session.id for state in engine.queues.inside() if state.status is not Status.DEPARTING}
        gone = {state.session.id for state in engine.all_sessions} - inside
        assert not gone & set(names_in(engine.policy_caller.policy))


class Told(InterceptPolicy):
    """Notes what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self.told.append(("resume", paused.emitted_before, paused.paused_s))

    def on_leave(self, left: Paused, view: EngineView) -> None:
        self.told.append(("leave", left.emitted_before, left.paused_s, view.now))

    def on_join(self, joined: Paused, view: EngineView) -> None:
        self.told.append(("join", joined.emitted_before, joined.paused_s, joined.moving))

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self.told.append(("finish", finished.emitted_before, finished.paused_s))


@pytest.mark.parametrize(("link", "copied"), [(None, False), (Link(7.0, 0.5), True)])
def test_a_policy_hears_who_leaves_and_who_comes_with_what_they_did_elsewhere(link: Link | None, copied: bool) -> None:
    """5 tokens by 5.14 and 3 s of pause at replica 0; 2 tokens more at replica 1. Over a link its context follows."""
    three = pytest.approx(3.0)
    world = simulate([session("a", 10, 5, pause(3.0, 20), 2)], specs(make=Told), TO_AND_FRO, link=link)
    first, second = (engine.policy_caller.policy.told for engine in world.engines)  # type: ignore[attr-defined]
    assert first == [("resume", 5, three), ("leave", 5, three, pytest.approx(8.14))]
    assert second == [("join", 5, three, copied), ("finish", 7, three)]


def test_caesura_counts_tokens_and_pauses_of_other_replicas() -> None:
    """Served for 5.14 s before its pause of 3 s and for 1.35 + 1.01 s after it, with 7 tokens in all."""
    world = simulate([session("a", 10, 5, pause(3.0, 20), 2)], specs(make=partial(Caesura, Elapsed())), TO_AND_FRO)
    policy = world.engines[1].policy_caller.policy
    assert isinstance(policy, Caesura)
    assert policy.mean_normalized_latency == pytest.approx((5.14 + 1.35 + 1.01) / 7)
