"""Replicas behind a router: what moving a session costs, and that nothing is lost on the way.

An iteration of x tokens takes 1 s + 0.01 s * x; blocks hold one token (see ``worlds``).
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.contract import EngineView, PreemptiveOrder, Queued, QueueOrder
from policies.papers.fastserve import SkipJoinMLFQ
from policies.registry import make_policy, make_router
from policies.routers import RoundRobin
from policies.routing import ReplicaView, Routed, Router
from sim.errors import PolicyError
from sim.results.run_record import RunRecord, merge
from sim.world.cluster import Link, simulate_cluster, simulate_shard
from sim.world.simulate import ReplicaSpec
from sim.world.simulate import simulate as simulate_one
from tests.sim.cluster_worlds import ClusterWorld, Scripted, assert_conserved, run, simulate, specs
from tests.sim.random_worlds import SHIPPED, Plot, Whimsical, examples, plots
from tests.sim.worlds import pause, session
from traces.session import Session

THERE = Scripted(a=[0, 1])


def test_a_session_that_moves_recomputes_its_context() -> None:
    """Prompt 10 at replica 0: 1.10, then 4 tokens: 5.14. Back at 8.14 at replica 1 with 10 + 5 + 20 = 35 to compute:
    1.35 s, of which 14 had KV at replica 0."""
    world = run(session("a", 10, 5, pause(3.0, 20), 2), router=THERE)
    row = world.session("a")
    assert world.call("a", 0)["replica"] == 0 and world.call("a", 1)["replica"] == 1 == row["replica"]
    assert world.call("a", 1)["first_token_at"] == pytest.approx(8.14 + 1.35)
    assert row["finished_at"] == pytest.approx(8.14 + 1.35 + 1.01)
    assert (row["moves"], row["move_recomputed_tokens"], row["recomputed_tokens"]) == (1, 14, 14)
    assert row["transferred_bytes"] == 0


def test_its_accounts_go_with_it() -> None:
    """First token at 1.10, 5 + 2 tokens, both calls in the table; it waited for nothing but its iterations."""
    row = run(session("a", 10, 5, pause(3.0, 20), 2), router=THERE).session("a")
    assert row["first_token_at"] == pytest.approx(1.10)
    assert (row["output_tokens"], row["returned_tokens"], row["pause_s"]) == (7, 20, 3.0)
    assert row["queued_s"] == 0.0 and row["status"] == "finished"


def test_its_old_blocks_are_free_at_once_without_a_link() -> None:
    """14 blocks kept from 5.14 to 8.14 at replica 0, of token-seconds nothing more."""
    world = run(session("a", 10, 5, pause(3.0, 20), 2), router=THERE)
    assert world.record.replicas["waste_preserve_token_s"] == [pytest.approx(14 * 3.0), 0.0]


def test_over_a_link_a_context_is_copied_and_only_the_rest_computed() -> None:
    """14 tokens of 1 byte at 7 bytes/s after 0.5 s: 8.14 to 10.64. Then 1 + 20 tokens: 1.21 s."""
    world = run(session("a", 10, 5, pause(3.0, 20), 2), router=THERE, link=Link(7.0, 0.5))
    row = world.session("a")
    assert world.call("a", 1)["first_token_at"] == pytest.approx(10.64 + 1.21)
    assert (row["transferred_bytes"], row["move_recomputed_tokens"], row["recomputed_tokens"]) == (14, 0, 0)


def test_while_a_context_is_copied_both_replicas_hold_it() -> None:
    """14 blocks for 2.5 s at the sender, which are free then, and at the receiver."""
    world = run(session("a", 10, 5, pause(3.0, 20), 2), router=THERE, link=Link(7.0, 0.5))
    assert world.record.replicas["waste_swap_token_s"] == [pytest.approx(14 * 2.5), pytest.approx(14 * 2.5)]
    assert world.engines[0].kv.gpu.used == 0


def test_without_room_for_the_whole_context_it_is_recomputed() -> None:
    """b holds 30 of replica 1's 60 blocks while a comes back with 35."""
    world = run(
        session("a", 10, 5, pause(3.0, 20), 2),
        session("b", 25, 90),
        router=Scripted(a=[0, 1], b=[1]),
        link=Link(7.0),
        costs=[{"gpu": 200}, {"gpu": 116}],
    )
    assert world.session("a")["transferred_bytes"] == 14  # 116 - 32: room
    world = run(
        session("a", 10, 5, pause(3.0, 20), 2),
        session("b", 25, 30),
        router=Scripted(a=[0, 1], b=[1]),
        link=Link(7.0),
        costs=[{"gpu": 200}, {"gpu": 60}],
    )
    row = world.session("a")
    assert (row["transferred_bytes"], row["move_recomputed_tokens"]) == (0, 14)
    assert row["finished_at"] > world.session("b")["finished_at"]
    assert world.engines[0].kv.gpu.used == 0


def test_a_replica_sends_one_context_at_a_time() -> None:
    """a and b pause at 1.20 with 10 tokens; both leave at 4.20 for other replicas: 10 s each, one after the other."""
    world = run(
        session("a", 10, 1, pause(3.0), 1),
        session("b", 10, 1, pause(3.0), 1),
        router=Scripted(a=[0, 1], b=[0, 2]),
        count=3,
        link=Link(1.0),
    )
    assert world.call("a", 1)["first_token_at"] == pytest.approx(4.20 + 10 + 1.01)
    assert world.call("b", 1)["first_token_at"] == pytest.approx(4.20 + 20 + 1.01)


def test_a_context_on_the_host_can_be_copied_too() -> None:
    """swap: 10 tokens were copied out while a paused; they are sent all the same and their host blocks freed."""
    world = run(session("a", 10, 1, pause(5.0), 1), router=THERE, policy="swap", link=Link(10.0))
    row = world.session("a")
    assert (row["swapped_out_bytes"], row["swapped_in_bytes"], row["transferred_bytes"]) == (10, 0, 10)
    assert world.engines[0].kv.host.used == 0


def test_a_session_that_comes_to_too_small_a_replica_fails() -> None:
    """Its context grows to 37; replica 1 has 30 blocks."""
    world = run(session("a", 10, 5, pause(3.0, 20), 2), router=THERE, costs=[{}, {"gpu": 30}])
    row = world.session("a")
    assert row["status"] == "failed" and "too small: its context grows to 37 tokens" in row["reason"]


def test_an_order_forgets_who_goes_on_elsewhere() -> None:
    """a falls to queue 3 at replica 0 and goes on at replica 1, where it pauses at 8.14 + 18 * 0.01 + 1 + 1.01 = 10.33.
    Back at 13.50 it joins queue 1 like a new session; without a move it would have kept its queue."""
    order = partial(SkipJoinMLFQ, skip_join=False, quantum=2, promote_after=100.0, resumed="keeps")
    a = session("a", 10, 5, pause(3.0, 3), 2, pause(3.17), 1)
    world = simulate([a], [replace(spec, order=order) for spec in specs()], Scripted(a=[0, 1, 0]))
    before, back = world.engines[0].all_sessions
    assert before.key[0] == 3
    assert back.key[:2] == (1, pytest.approx(13.50))


def test_service_elsewhere_counts_as_service() -> None:
    """At replica 0 1.10 s for 10 tokens and 4 * 1.01 for the others: 5.14. At replica 1 18 tokens and one more: 1.18 +
    1.01."""
    world = simulate([session("a", 10, 5, pause(3.0, 3), 2)], specs(), Scripted(a=[0, 1]))
    assert [one.served(100.0) for engine in world.engines for one in engine.all_sessions] == pytest.approx([5.14, 7.33])


def test_replicas_may_differ() -> None:
    """Replica 1 is ten times faster: 0.11 s for the prompt of 10 where replica 0 takes 1.10 s."""
    fast = {"fixed": 0.1, "per_token": 0.001}
    world = run(session("a", 10, 1), session("b", 10, 1), router=RoundRobin(), costs=[{}, fast])
    assert world.session("a")["finished_at"] == pytest.approx(1.10)
    assert world.session("b")["finished_at"] == pytest.approx(0.11)


# ---- what holds for every cluster


@dataclass(frozen=True)
class ClusterPlot:
    """Everything that a run of a cluster is made from."""

    first: Plot
    others: tuple[Plot, ...]
    router: Any
    link: Link | None

    @property
    def specs(self) -> list[ReplicaSpec]:
        return [_spec(plot) for plot in (self.first, *self.others)]

    def run(self, leap: bool) -> ClusterWorld:
        router = make_router(self.router) if not isinstance(self.router, int) else AnyWhere(self.router)
        return simulate(
            self.first.sessions,
            self.specs,
            router,
            link=self.link,
            leap=leap,
            horizon=self.first.horizon,
            step=self.first.step,
        )


class AnyWhere(Router):
    """Sends every call anywhere; what it sees has a say."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.seen: list[tuple[int, ...]] = []

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        for one in replicas:
            self.seen.append(
                (one.outstanding_tokens, one.waiting_sessions, one.running_sessions, one.free_blocks, one.idle_blocks)
            )
        state = sum(map(sum, self.seen[-len(replicas) :]))
        return (state + self._random.randrange(7)) % len(replicas)

    on_resume = on_arrival


def _spec(plot: Plot) -> ReplicaSpec:
    policy: Any = partial(Whimsical if isinstance(plot.policy, int) else make_policy, plot.policy)
    return ReplicaSpec(plot.profile, plot.settings, policy, plot.order)


STATELESS = ["round-robin", "hash-affinity"]
ROUTERS = ["round-robin-calls", "least-outstanding", "affinity", "affinity-spill", "two-choices"]
LINKS = st.none() | st.builds(Link, st.sampled_from([0.5, 30.0, 1e6]), st.sampled_from([0.0, 0.01, 3.0]))


@st.composite
def clusters(draw: st.DrawFn, policies: st.SearchStrategy[Any], routers: st.SearchStrategy[Any]) -> ClusterPlot:
    """Two or three replicas, alike or not."""
    first = replace(draw(plots(policies)), horizon=draw(st.none() | st.none() | st.floats(0, 60)))
    count = draw(st.integers(1, 2))
    if draw(st.booleans()):
        others = [first] * count
    else:
        others = [draw(plots(policies)) for _ in range(count)]
    return ClusterPlot(first, tuple(others), draw(routers), draw(LINKS))


@examples(50)
@given(clusters(st.sampled_from(SHIPPED), st.sampled_from(ROUTERS) | st.integers(0, 99)))
def test_leaps_change_no_timestamp_and_no_choice_of_a_router(plot: ClusterPlot) -> None:
    """Routers see outstanding tokens and free blocks in the middle of a leap as if there were none."""
    assert_alike(plot.run(leap=True).record, plot.run(leap=False).record)


def assert_alike(one: RunRecord, other: RunRecord) -> None:
    """Rows to the bit; sums to rounding, as they are added up in another order."""
    assert repr(one.sessions) == repr(other.sessions)
    assert repr(one.calls) == repr(other.calls)
    for name, value in one.totals.items():
        if name != "events":
            assert value == pytest.approx(other.totals[name], rel=1e-9, abs=1e-9), name
    for name, column in one.timeline.items():
        assert column == pytest.approx(other.timeline[name], rel=1e-6, abs=1e-6), name


@examples(50)
@given(
    clusters(st.sampled_from(SHIPPED) | st.integers(0, 99), st.sampled_from(ROUTERS + STATELESS) | st.integers(0, 99))
)
def test_nothing_is_lost_between_replicas(plot: ClusterPlot) -> None:
    """The engines check INV-1 to INV-5 all the while; here: each session once, and all of them done."""
    world = plot.run(leap=True)
    horizon = plot.first.horizon
    arrived = [one for one in plot.first.served() if horizon is None or one.arrival <= horizon]
    assert_conserved(world, arrived)
    rows = world.record.sessions
    if horizon is None:
        assert set(rows["status"]) <= {"finished", "rejected", "failed"}
        inferring = {one.id: [pause.not_before is not None for pause in one.pauses] for one in arrived}
        lengths = {
            one.id: one.output_tokens
            - sum(call.output for call, infers in zip(one.calls, inferring[one.id], strict=False) if infers)
            for one in arrived
        }
        columns = ("id", "status", "output_tokens", "inference_tokens")
        for name, status, output, inferred in zip(*(rows[column] for column in columns), strict=True):
            assert status != "finished" or output - inferred == lengths[name]  # INV-6
        for engine in world.engines:
            assert engine.kv.gpu.used == 0 or engine.queues.inside()
    totals = world.record.totals
    uses = [value for name, value in totals.items() if name.endswith("_token_s") and name != "memory_token_s"]
    assert sum(uses) == pytest.approx(totals["memory_token_s"], rel=1e-9, abs=1e-6)


def bytes_of(record: RunRecord) -> list[str]:
    """Every column and total, to the last digit."""
    tables = (record.sessions, record.calls, record.timeline, record.replicas, record.totals, record.facts)
    return [repr(entry) for table in tables for entry in table.items()]


@examples(25)
@given(clusters(st.sampled_from(SHIPPED), st.sampled_from(STATELESS)))
def test_shards_are_identical_to_the_whole(plot: ClusterPlot) -> None:
    """Each replica simulated apart, in any order, merged: the same to the last digit."""
    plot = replace(plot, link=None)
    options: dict[str, Any] = {"specs": plot.specs, "horizon": plot.first.horizon, "timeline_step": plot.first.step}
    whole = simulate_cluster(plot.first.sessions, router=make_router(plot.router), **options)
    shards = [
        simulate_shard(plot.first.sessions, router=make_router(plot.router), only=[index], **options)
        for index in reversed(range(len(plot.specs)))
    ]
    record = merge([part for parts, _ in shards for part in parts], max(end for _, end in shards))
    assert bytes_of(record) == bytes_of(whole)


def test_a_session_that_leaves_at_its_pause_is_not_copied_out_in_a_shard_or_in_the_whole() -> None:
    """b's last pause takes 0 s: it would be swapped out at 1.10 and leaves at 1.10. Replica 0 works until 5.14."""
    workload = [session("a", 10, 5), session("b", 10, 1, pause(0.0))]
    options: dict[str, Any] = {"specs": specs(policy="swap", swap="blocking"), "timeline_step": 1.0}
    whole = simulate_cluster(workload, router=RoundRobin(), **options)
    shards = [simulate_shard(workload, router=RoundRobin(), only=[index], **options) for index in (0, 1)]
    record = merge([part for parts, _ in shards for part in parts], max(end for _, end in shards))
    assert bytes_of(record) == bytes_of(whole)


class AsksEverySecond(PreemptiveOrder):
    """First come, first served, but wants to be asked every second."""

    def key(self, queued: Queued, view: EngineView) -> float:
        return queued.arrival

    def review_at(self, view: EngineView) -> float:
        return math.floor(view.now) + 1.0


def test_an_order_that_asks_again_and_again_is_not_asked_about_nobody() -> None:
    """Replica 0 is done at 1.10 and idle for 8 s in one piece, which gives the same sums in a shard of its own."""
    workload = [session("a", 10, 1), session("b", 10, 8)]
    options: dict[str, Any] = {
        "specs": [replace(spec, order=AsksEverySecond) for spec in specs()],
        "timeline_step": 0.3,
    }
    whole = simulate_cluster(workload, router=RoundRobin(), **options)
    shards = [simulate_shard(workload, router=RoundRobin(), only=[index], **options) for index in (0, 1)]
    record = merge([part for parts, _ in shards for part in parts], max(end for _, end in shards))
    assert bytes_of(record) == bytes_of(whole)


@examples(25)
@given(plots(st.sampled_from(SHIPPED)), st.sampled_from(["round-robin", "least-outstanding"]))
def test_a_cluster_of_one_is_a_replica(plot: Plot, router: str) -> None:
    order: QueueOrder = plot.order()
    alone = simulate_one(
        plot.sessions,
        policy=make_policy(plot.policy),
        order=order,
        settings=plot.settings,
        profile=plot.profile,
    )
    cluster = simulate_cluster(plot.sessions, specs=[_spec(plot)], router=make_router(router))
    assert bytes_of(cluster) == bytes_of(alone)


# ---- what a router may not do


class Broken(Router):
    def __init__(self, answer: Any, stateless: bool = False) -> None:
        self.answer, self.stateless = answer, stateless

    def on_arrival(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
        return self.answer(replicas) if callable(self.answer) else self.answer  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (2, "expected the index of a replica, 0 to 1, got 2"),
        (-1, "got -1"),
        (True, "got True"),
        (None, "got None"),
        (lambda replicas: replicas[7], "IndexError"),
    ],
)
def test_a_router_that_answers_nonsense_stops_the_run(answer: Any, said: str) -> None:
    with pytest.raises(PolicyError, match=r"Broken failed in on_arrival for session a at 2\.500000 s") as error:
        run(session("a", 1, 1, at=2.5), router=Broken(answer))
    assert said in str(error.value)


def test_a_router_that_fails_when_a_session_resumes_is_named_likewise() -> None:
    """1.10 + a pause of 3 s."""

    class Fails(Scripted):
        def on_resume(self, session: Routed, replicas: Sequence[ReplicaView]) -> int:
            raise KeyError(session.id)

    with pytest.raises(PolicyError, match=r"Fails failed in on_resume for session a at 4\.100000 s: KeyError"):
        run(session("a", 10, 1, pause(3.0), 1), router=Fails(a=[0]))


def test_a_router_that_says_it_is_stateless_sees_no_state() -> None:
    peeps = Broken(lambda replicas: replicas[0].outstanding_tokens, stateless=True)
    with pytest.raises(PolicyError, match="a router that says it is stateless looked at the state of a replica"):
        run(session("a", 1, 1), router=peeps)


def test_sessions_drawn_one_by_one_are_routed_alike() -> None:
    workload = [Session(f"s{i}", i / 3, 5 + i, session("x", 1, 4).calls) for i in range(9)]
    both = [
        simulate_cluster(drawn, specs=specs(), router=make_router("least-outstanding"))
        for drawn in (workload, iter(workload))
    ]
    assert bytes_of(both[0]) == bytes_of(both[1])
