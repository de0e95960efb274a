"""Replicas behind a router, in one simulated time.

The router is asked about every session at the instant at which it arrives or its answer comes, and sees the replicas as
they are then, in the middle of a leap too. At one instant arrivals are routed first, in the order of the workload, then
answers, by when their pauses began; then the replicas act, in their order.

A session that goes on at another replica leaves its context behind. Without a ``Link`` the context is freed and
computed anew. With one it is copied over as soon as the new replica, at the end of its iteration, has room for all of
it: both hold it until the copy has ended, and then the old one frees it. Where there is no room at once it is computed
anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from policies.routing import ReplicaView, Routed, Router
from sim.engine.migration import successor
from sim.engine.policy_calls import Guard
from sim.kv.copy import Copy
from sim.results.run_record import ReplicaResult, RunRecord, merge
from sim.results.session_log import SessionLog
from sim.session import SessionState
from sim.world.arrivals import Arrivals, by_arrival
from sim.world.clock import Clock
from sim.world.replica import Replica
from sim.world.router_view import BlindView, ReplicaState, RoutedSession
from sim.world.simulate import CompletionTracker, ReplicaSpec, build
from traces.session import Session


@dataclass(frozen=True)
class Link:
    """The network between replicas. A copy takes latency_s + bytes / bytes_per_s; a replica sends one at a time, and
    receives one at a time."""

    bytes_per_s: float
    latency_s: float = 0.0


def simulate_cluster(
    sessions: Iterable[Session],
    *,
    specs: Sequence[ReplicaSpec],
    router: Router,
    link: Link | None = None,
    horizon: float | None = None,
    timeline_step: float = 1.0,
    leap: bool = True,
    log_decisions: bool = False,
    session_log: SessionLog | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> RunRecord:
    """Simulate replicas behind a router serving ``sessions``; arguments and errors as for
    ``sim.world.simulate.simulate``.

    Args:
        specs: what the replicas are built from, in the order of their indices.
        router: sends each session to a replica. It is told of this run only: pass a fresh one.
        link: copies contexts between replicas; None recomputes them.
    """
    results, end = simulate_shard(
        sessions,
        specs=specs,
        router=router,
        link=link,
        horizon=horizon,
        timeline_step=timeline_step,
        leap=leap,
        log_decisions=log_decisions,
        session_log=session_log,
        on_progress=on_progress,
    )
    return merge(results, end)


def simulate_shard(
    sessions: Iterable[Session],
    *,
    specs: Sequence[ReplicaSpec],
    router: Router,
    only: Iterable[int] | None = None,
    link: Link | None = None,
    horizon: float | None = None,
    timeline_step: float = 1.0,
    leap: bool = True,
    log_decisions: bool = False,
    session_log: SessionLog | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[list[ReplicaResult], float]:
    """Simulate the replicas ``only`` of a cluster whose router is stateless, or all of any cluster.

    Returns:
        What each of them leaves behind, and the time when all their sessions had left, or the horizon. A cluster ends
        with the latest of its shards: ``merge`` of all parts at that time is the record of the whole.
    """
    mine = range(len(specs)) if only is None else sorted(only)
    assert router.stateless or len(mine) == len(specs), "a router that looks at the replicas needs all of them"
    env = Clock()
    total = len(sessions) if isinstance(sessions, Sequence) and only is None else 0
    tracker = CompletionTracker(env, total, on_progress)
    cluster = Cluster(env, router, specs, link)
    for index in mine:
        on_answer = None if router.stateless else partial(cluster.tool_returned, index)
        replica = build(
            specs[index],
            env,
            tracker.left,
            index,
            on_answer,
            timeline_step=timeline_step,
            leap=leap,
            log_decisions=log_decisions,
            session_log=session_log,
        )
        cluster.add(replica)
    arrivals = Arrivals(
        env, cluster.arrive, cluster.own(enumerate(by_arrival(sessions, specs[0].settings.streamed_prompts)))
    )
    tracker.watch(arrivals, horizon)
    replicas = cluster.replicas.values()
    for replica in replicas:
        replica.close()
    if session_log is not None:
        session_log.close(env.now)
    return [replica.result() for replica in replicas], env.now


class Cluster:
    """Asks the router and moves sessions.

    Args:
        clock: the SimPy environment of all replicas.
        router: sends each session to a replica.
        specs: what the replicas of the whole cluster are built from.
        link: copies contexts between replicas; None recomputes them.

    Attributes:
        replicas: those simulated here, by index.
    """

    def __init__(self, clock: Clock, router: Router, specs: Sequence[ReplicaSpec], link: Link | None) -> None:
        self.clock = clock
        self.replicas: dict[int, Replica] = {}
        self._router = router
        self._link = link
        self._count = len(specs)
        self._blind = [BlindView(spec) for spec in specs]
        self._views: Sequence[ReplicaView] = self._blind
        self._homes: deque[int] = deque()  # of sessions drawn before they arrive
        self._sending_until = [0.0] * len(specs)
        self._receiving_until = [0.0] * len(specs)

    def add(self, replica: Replica) -> None:
        """A replica of this cluster is simulated here."""
        self.replicas[replica.index] = replica
        if not self._router.stateless and len(self.replicas) == self._count:
            self._views = [ReplicaState(self.replicas[index]) for index in range(self._count)]

    # ---- routing

    def own(self, numbered: Iterator[tuple[int, Session]]) -> Iterator[tuple[int, Session]]:
        """Of all numbered sessions, those that come to replicas simulated here."""
        for number, session in numbered:
            if self._router.stateless:
                home = self._ask(self._router.on_arrival, RoutedSession.new(session, number), session.arrival)
                if home not in self.replicas:
                    continue
                self._homes.append(home)
            yield number, session

    def arrive(self, session: Session, number: int) -> None:
        """A session arrives now."""
        if self._router.stateless:
            home = self._homes.popleft()
        else:
            home = self._ask(self._router.on_arrival, RoutedSession.new(session, number), self.clock.now)
        self.replicas[home].arrive(session, number)

    def tool_returned(self, home: int, state: SessionState) -> None:
        """An answer comes now that lets a session of the replica ``home`` go on."""
        session = RoutedSession.resuming(state, home, self.clock.now)
        target = self._ask(self._router.on_resume, session, self.clock.now)
        source = self.replicas[home]
        if target == home:
            source.tool_returned(state)
            return
        move = _Move(self, state, home, target, session.held_tokens)
        source.begin_leave(state, move.readable)
        self.replicas[target].arrive_at(move)

    def _ask(self, question: Callable[[Routed, Sequence[ReplicaView]], int], session: RoutedSession, now: float) -> int:
        """The router's answer, checked.

        Raises:
            PolicyError: the router raised, or answered with no index of a replica.
        """
        with Guard(self._router, question.__name__, session.id, now, "router"):
            answer = question(session, self._views)
            if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < self._count:
                raise ValueError(f"expected the index of a replica, 0 to {self._count - 1}, got {answer!r}")
            return answer

    # ---- the network

    @property
    def copies_contexts(self) -> bool:
        """Whether a context can go to another replica."""
        return self._link is not None

    def send(self, source: int, target: int, tokens: int, now: float) -> float:
        """When the KV of ``tokens`` tokens, sent now, has arrived, s: each replica sends and receives one at a time."""
        assert self._link is not None
        size = tokens * self.replicas[source].engine.costs.profile.kv_bytes_per_token
        begin = max(now, self._sending_until[source], self._receiving_until[target])
        end = begin + self._link.latency_s + size / self._link.bytes_per_s
        self._sending_until[source] = self._receiving_until[target] = end
        return end


class _Move:
    """A session on its way from one replica to another. Implements ``sim.world.driver.Incoming``.

    Attributes:
        live: the session as the new replica sees it.
        first_token_at: when it emitted its first token, s.
        tokens: leading context tokens that can be copied.
        readable: whether there are any.
    """

    def __init__(self, cluster: Cluster, old: SessionState, source: int, target: int, held: int) -> None:
        self._cluster = cluster
        self._old, self._source, self._target, self._held = old, source, target, held
        self.state = successor(old, cluster.clock.now)
        self.first_token_at = cluster.replicas[source].recorder.first_token_at(old)
        self.tokens = held if cluster.copies_contexts else 0
        self.readable = self.tokens > 0

    def arrived(self, copy: Copy | None) -> None:
        """The session has been queued, and perhaps its context begins to be copied over."""
        cluster, source = self._cluster, self._cluster.replicas[self._source]
        if copy is not None:
            end = cluster.send(self._source, self._target, copy.tokens, cluster.clock.now)
            cluster.replicas[self._target].receive(copy, end)
            cluster.clock.at(end, lambda _: source.release(self._old))
            return
        self.state.stats.left_behind += self._held
        if self.readable:
            source.release(self._old)
