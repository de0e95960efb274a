"""Simulates the cluster of a run: in this process or, where its router allows it, its replicas in several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from policies.registry import make_router
from sim.results.run_record import ReplicaResult, RunRecord, merge
from sim.world.cluster import simulate_shard

if TYPE_CHECKING:
    from caesura.config.cluster_setup import ClusterSetup
    from caesura.config.systems import System
    from sim.results.session_log import SessionLog
    from traces.session import Session

Shard = tuple[list[ReplicaResult], float]
"""What the replicas of a shard leave behind, and when the last of their sessions had left."""


def can_be_split(cluster: ClusterSetup) -> bool:
    """Whether its replicas can be simulated apart: the router never looks at them."""
    return cluster.count > 1 and make_router(cluster.router).stateless


def deal_replicas(cluster: ClusterSetup, count: int) -> list[list[int]]:
    """The replicas dealt to at most ``count`` shards."""
    return [list(range(first, cluster.count, count)) for first in range(min(count, cluster.count))]


def simulate_replicas(
    cluster: ClusterSetup,
    system: System,
    sessions: Sequence[Session],
    horizon: float | None,
    only: Sequence[int] | None = None,
    log_decisions: bool = False,
    on_progress: Callable[[float], None] | None = None,
    session_log: SessionLog | None = None,
) -> Shard:
    """The replicas ``only`` of a cluster that runs a system, or all of them.

    Raises:
        SimulationError: the simulation cannot go on.
    """
    options: dict[str, Any] = {"log_decisions": log_decisions, "on_progress": on_progress, "session_log": session_log}
    return simulate_shard(
        sessions,
        specs=cluster.specs(system),
        router=make_router(cluster.router),
        link=cluster.link,
        horizon=horizon,
        only=only,
        **options,
    )


def merge_shards(shards: Sequence[Shard]) -> RunRecord:
    """The record of the whole cluster."""
    return merge([part for parts, _ in shards for part in parts], max(end for _, end in shards))
