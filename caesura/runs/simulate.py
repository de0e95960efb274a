"""Simulates one run, in any process of any machine."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from caesura.config.experiment import extend_search_path
from caesura.config.workload import (
    Broadcast,
    make_sessions,
    with_broadcast,
)
from caesura.errors import UserError
from caesura.results.metrics import call_table, session_table, summarize
from caesura.runs.cluster_runs import Shard, can_be_split, merge_shards, simulate_replicas
from caesura.runs.code_hash import CodeMismatch, check_sources, versions
from caesura.runs.run import Run
from caesura.runs.run_folder import Files, encode_run
from policies.contract import InterceptPolicy
from policies.registry import make_order, make_policy
from sim.errors import SimulationError
from sim.results.run_record import RunRecord
from sim.results.session_log import SessionLog
from sim.results.waste_bound import waste_bound
from sim.world.simulate import simulate as simulate_sessions
from traces.session import Session
from traces.workload_hash import workload_hash

ReportProgress = Callable[[float], None]
InShards = Callable[["Run"], Sequence[Shard]]
"""Simulates all shards of a run's cluster."""


@dataclass(frozen=True)
class RunError:
    """Why a run has no result.

    Attributes:
        error: what went wrong, for a person.
        trace: the traceback of an unexpected error; empty where the message says all.
    """

    error: str
    trace: str = ""


def run_safely(
    run: Run,
    broadcast: Broadcast | None = None,
    on_progress: ReportProgress | None = None,
    in_shards: InShards | None = None,
) -> Files | RunError:
    """Simulate one run in any process of any machine.

    Args:
        run: what to simulate.
        lent: the sessions of trace files, for a machine that does not have them.
        on_progress: called now and then with the share of sessions that have left.
        in_shards: simulates a cluster that can be split in several processes.

    Returns:
        The files of the run's folder, or why there are none.

    Raises:
        CodeMismatch: this process would simulate by other rules than the one that asks.
    """
    try:
        extend_search_path(run.base)
        check_sources(run.sources, run.system, run.cluster)
        with with_broadcast(broadcast or {}):
            return run_one(run, on_progress, in_shards)
    except CodeMismatch:
        raise
    except UserError as error:
        return RunError(str(error))
    except Exception as error:
        return RunError(f"{type(error).__name__}: {error}", traceback.format_exc())


def run_one(run: Run, on_progress: ReportProgress | None = None, in_shards: InShards | None = None) -> Files:
    """Simulate a run; returns the files of its folder.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    begin = time.perf_counter()
    record, workload = simulate(run, on_progress=on_progress, in_shards=in_shards)
    sessions, calls = session_table(record), call_table(record)
    summary = run.label | summarize(record, sessions, calls, cut=workload["cut"], turned_away=workload["rejected"])
    summary["waste_bound_token_s"] = workload["waste_bound_token_s"]
    provenance = {
        "key": run.key,
        "seed": run.workload.seed,
        "base": str(run.base),
        "workload_sha256": workload["sha256"],
        "profile": run.profile.name,
        "profile_origin": run.profile.origin,
        "facts": record.facts,
        "wall_s": time.perf_counter() - begin,
        "versions": versions(),
    }
    return encode_run(run.config, provenance, summary, sessions, calls, record.timeline, record.replicas)


def simulate(
    run: Run,
    *,
    policy: InterceptPolicy | None = None,
    log_decisions: bool = False,
    session_log: SessionLog | None = None,
    on_progress: ReportProgress | None = None,
    in_shards: InShards | None = None,
) -> tuple[RunRecord, dict[str, Any]]:
    """Simulate a run; returns its record, and facts of its workload: hash, sessions cut or rejected, waste bound.

    Args:
        run: what to simulate.
        policy: a fresh policy object to use instead of the one that the run's system names.
        log_decisions: keep every decision with the numbers it was made from.
        session_log: a fresh one, that takes what happens to one session.
        on_progress: called now and then with the share of sessions that have left.
        in_shards: simulates a cluster that can be split in several processes.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    extend_search_path(run.base)
    workload = make_sessions(run.workload)
    try:
        record = _record(run, workload.sessions, policy, log_decisions, session_log, on_progress, in_shards)
    except SimulationError as error:
        raise UserError(f"{run.system.name} at load {run.workload.load:g}: {error}") from error
    facts = {"sha256": workload_hash(workload.sessions), "cut": workload.cut, "rejected": workload.rejected}
    return record, facts | {"waste_bound_token_s": _waste_bound(run, workload.sessions, record)}


def _waste_bound(run: Run, sessions: Sequence[Session], record: RunRecord) -> float | None:
    """Token-seconds that every policy wastes at least on the sessions that finished; None where
    ``sim.results.waste_bound`` has no proof: for a cluster, and where unreferenced blocks stay cached."""
    if run.cluster is not None or run.system.engine.prefix_sharing:
        return None
    rows = record.sessions
    finished = {name for name, status in zip(rows["id"], rows["status"], strict=True) if status == "finished"}
    return waste_bound([one for one in sessions if one.id in finished], run.profile, run.system.engine)


def _record(
    run: Run,
    sessions: Sequence[Session],
    policy: InterceptPolicy | None,
    log_decisions: bool,
    session_log: SessionLog | None,
    on_progress: ReportProgress | None,
    in_shards: InShards | None,
) -> RunRecord:
    cluster = run.cluster
    if cluster is None:
        return simulate_sessions(
            sessions,
            policy=policy if policy is not None else make_policy(run.system.policy),
            order=make_order(run.system.order),
            settings=run.system.engine,
            profile=run.profile,
            horizon=run.horizon,
            log_decisions=log_decisions,
            session_log=session_log,
            on_progress=on_progress,
        )
    if policy is not None:
        raise UserError("each replica of a cluster needs a policy of its own; name its class in the system")
    if in_shards is not None and session_log is None and can_be_split(cluster):
        return merge_shards(in_shards(run))
    shard = simulate_replicas(cluster, run.system, sessions, run.horizon, None, log_decisions, on_progress, session_log)
    return merge_shards([shard])


def simulate_shard_of(run: Run, only: Sequence[int]) -> Shard:
    """Some replicas of a run's cluster, in any process.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    assert run.cluster is not None
    extend_search_path(run.base)
    try:
        return simulate_replicas(run.cluster, run.system, make_sessions(run.workload).sessions, run.horizon, only)
    except SimulationError as error:
        raise UserError(f"{run.system.name} at load {run.workload.load:g}: {error}") from error
