"""One run: one system at one load with one seed. What names it, and how it is carried out."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import json
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caesura.config.arrivals_schema import Arrivals
from caesura.config.cluster_setup import ClusterSetup
from caesura.config.experiment import ResolvedExperiment, extend_search_path, write_experiment
from caesura.config.generator_schema import GeneratedTrace
from caesura.config.systems import System
from caesura.config.workload import (
    Lent,
    WorkloadSpec,
    lending,
    make_sessions,
    recorded_arrivals,
    trace_hash,
)
from caesura.errors import UserError, listed
from caesura.results.metrics import call_table, session_table, summarize
from caesura.runs.cluster_runs import Shard, can_be_split, joined, simulate_share
from caesura.runs.run_folder import Files, encode_run
from policies.contract import InterceptPolicy
from policies.registry import make_order, make_policy
from sim.costs.profile import Profile
from sim.errors import SimulationError
from sim.results.run_record import RunRecord
from sim.results.session_log import Diary
from sim.results.waste_bound import waste_bound
from sim.world.simulate import simulate
from traces.session import Session
from traces.workload_hash import workload_hash

_ROOT = Path(__file__).resolve().parents[2]
_CODE = (
    *("traces", "policies", "sim"),
    *(
        "caesura/results/metric.py",
        "caesura/results/metrics.py",
        "caesura/runs/run_folder.py",
        "caesura/config/workload.py",
        "caesura/config/generator_schema.py",
    ),
)
_SURE_TO_ARRIVE = 50
_loaded: dict[str, str] = {}
_LIBRARIES = ("numpy", "scipy", "simpy", "pyarrow")
Progress = Callable[[float], None]
InShards = Callable[["Run"], Sequence[Shard]]
"""Simulates all shards of a run's cluster."""


@dataclass(frozen=True)
class Run:
    """Everything that determines a result, and the names under which it is kept.

    Attributes:
        experiment: of one system, one load and one seed.
        sources: hashes of the code that decides: Caesura's, and that of each ``module:Class`` among the rules.
        key: a hash of everything that determines the result.
    """

    experiment: ResolvedExperiment
    sources: dict[str, str]
    key: str

    @property
    def system(self) -> System:
        """Policies and engine settings."""
        return self.experiment.systems[0]

    @property
    def workload(self) -> WorkloadSpec:
        """The workload with its load and seed."""
        said = self.experiment.workload
        return WorkloadSpec(
            trace=self.experiment.trace,
            arrivals=said.arrivals,
            load=said.arrivals.loads[0],
            duration=said.duration,
            too_long=said.too_long,
            max_context=said.max_context,
            seed=self.experiment.seeds[0],
            samples=said.samples,
        )

    @property
    def profile(self) -> Profile:
        """Costs and capacities."""
        return self.experiment.profile

    @property
    def cluster(self) -> ClusterSetup | None:
        """Replicas and router; None for one replica of ``profile``."""
        cluster = self.experiment.cluster
        return None if cluster is None else cluster.under(self.system)

    @property
    def horizon(self) -> float | None:
        """Simulated seconds after which the run is cut; None serves every session to its end."""
        return self.experiment.horizon

    @property
    def base(self) -> Path:
        """The folder where user policies are looked for."""
        return self.experiment.base

    @property
    def config(self) -> dict[str, Any]:
        """An experiment file that repeats this one run."""
        return write_experiment(self.experiment)

    @property
    def work(self) -> float:
        """Expected work, in sessions; only its proportions matter."""
        return self.workload.load * self.workload.duration

    @property
    def name(self) -> str:
        """The run folder's name: readable, and another one whenever the result could differ."""
        return f"{self.system.name}.load-{self.workload.load:g}.seed-{self.workload.seed}.{self.key[:10]}"

    @property
    def label(self) -> dict[str, Any]:
        """What a row of a table begins with."""
        return {"system": self.system.name, "load": self.workload.load, "seed": self.workload.seed}


@dataclass(frozen=True)
class Fault:
    """Why a run has no result.

    Attributes:
        error: what went wrong, for a person.
        trace: the traceback of what nobody foresaw; empty where the message says all.
    """

    error: str
    trace: str = ""


class ForeignCode(UserError):
    """A worker that would simulate by other rules than the process that asks it."""


def expand(experiment: ResolvedExperiment) -> list[Run]:
    """The runs of an experiment: systems x loads x seeds, in this order."""
    runs = [
        make_run(experiment, system, load, seed)
        for system in experiment.systems
        for load in experiment.loads
        for seed in experiment.seeds
    ]
    _check_workload(runs[0].workload, experiment.loads)
    return runs


def make_run(experiment: ResolvedExperiment, system: System, load: float, seed: int) -> Run:
    """The run of one system of an experiment at any load, with any seed."""
    one = experiment.of_one_run(system, load, seed)
    workload, trace = write_experiment(one)["workload"], one.trace
    # A drawn trace is its parameters and the code.
    drawn_from = trace.model_dump_json() if isinstance(trace, GeneratedTrace) else trace_hash(trace)
    cluster = None if one.cluster is None else one.cluster.under(system)
    policies, code = _policy_sources(system, cluster), _code_hash()
    determinants = {
        "workload": workload | {"trace": drawn_from, "max_context": one.workload.max_context},
        "arrivals": _arrivals_hash(one.workload.arrivals),
        "seed": seed,
        "profile": one.profile.model_dump(mode="json"),
        "horizon": one.horizon,
        "system": system.rules(),
        "cluster": None if cluster is None else _content(cluster),
        "policy": policies,
        "code": code,
    }
    key = hashlib.sha256(json.dumps(determinants, sort_keys=True).encode()).hexdigest()
    return Run(one, {"caesura": code, **policies}, key)


def _content(cluster: ClusterSetup) -> dict[str, Any]:
    return cluster.written() | {"profiles": [group.profile.model_dump(mode="json") for group in cluster.groups]}


def _check_workload(first: WorkloadSpec, loads: Sequence[float]) -> None:
    """Find what is wrong with a workload before anything runs, where that is cheap; raises UserError."""
    if first.arrivals.replay is not None or min(loads) * first.duration < _SURE_TO_ARRIVE:
        for load in loads:
            make_sessions(replace(first, load=load))


def attempt(
    run: Run, lent: Lent | None = None, on_progress: Progress | None = None, in_shards: InShards | None = None
) -> Files | Fault:
    """Simulate one run in any process of any machine.

    Args:
        run: what to simulate.
        lent: the sessions of trace files, for a machine that does not have them.
        on_progress: called now and then with the share of sessions that have left.
        in_shards: simulates a cluster that can be split in several processes.

    Returns:
        The files of the run's folder, or why there are none.

    Raises:
        ForeignCode: this process would simulate by other rules than the one that asks.
    """
    try:
        _check_sources(run)
        with lending(lent or {}):
            return perform(run, on_progress, in_shards)
    except ForeignCode:
        raise
    except UserError as error:
        return Fault(str(error))
    except Exception as error:
        return Fault(f"{type(error).__name__}: {error}", traceback.format_exc())


def perform(run: Run, on_progress: Progress | None = None, in_shards: InShards | None = None) -> Files:
    """Simulate; the files of the run's folder.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    begin = time.perf_counter()
    record, workload = simulate_run(run, on_progress=on_progress, in_shards=in_shards)
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


def simulate_run(
    run: Run,
    *,
    policy: InterceptPolicy | None = None,
    log_decisions: bool = False,
    diary: Diary | None = None,
    on_progress: Progress | None = None,
    in_shards: InShards | None = None,
) -> tuple[RunRecord, dict[str, Any]]:
    """The record of a run, and of its workload the hash and how many sessions were cut or rejected beforehand.

    Args:
        run: what to simulate.
        policy: a fresh policy object to use instead of the one that the run's system names.
        log_decisions: keep every decision with the numbers it was made from.
        diary: a fresh one, that notes what happens to one session.
        on_progress: called now and then with the share of sessions that have left.
        in_shards: simulates a cluster that can be split in several processes.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    extend_search_path(run.base)
    workload = make_sessions(run.workload)
    try:
        record = _record(run, workload.sessions, policy, log_decisions, diary, on_progress, in_shards)
    except SimulationError as error:
        raise UserError(f"{run.system.name} at load {run.workload.load:g}: {error}") from error
    facts = {"sha256": workload_hash(workload.sessions), "cut": workload.cut, "rejected": workload.rejected}
    return record, facts | {"waste_bound_token_s": _waste_bound(run, workload.sessions, record)}


def _waste_bound(run: Run, sessions: Sequence[Session], record: RunRecord) -> float | None:
    """What any policy would have wasted at least on the sessions that finished; None where
    ``sim.results.waste_bound`` has no proof:
    for a cluster, and where blocks that nobody holds stay to be found again."""
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
    diary: Diary | None,
    on_progress: Progress | None,
    in_shards: InShards | None,
) -> RunRecord:
    cluster = run.cluster
    if cluster is None:
        return simulate(
            sessions,
            policy=policy if policy is not None else make_policy(run.system.policy),
            order=make_order(run.system.order),
            settings=run.system.engine,
            profile=run.profile,
            horizon=run.horizon,
            log_decisions=log_decisions,
            diary=diary,
            on_progress=on_progress,
        )
    if policy is not None:
        raise UserError("each replica of a cluster needs a policy of its own; name its class in the system")
    if in_shards is not None and diary is None and can_be_split(cluster):
        return joined(in_shards(run))
    return joined([simulate_share(cluster, run.system, sessions, run.horizon, None, log_decisions, on_progress, diary)])


def simulate_shard_of(run: Run, only: Sequence[int]) -> Shard:
    """Some replicas of a run's cluster, in any process.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    assert run.cluster is not None
    extend_search_path(run.base)
    try:
        return simulate_share(run.cluster, run.system, make_sessions(run.workload).sessions, run.horizon, only)
    except SimulationError as error:
        raise UserError(f"{run.system.name} at load {run.workload.load:g}: {error}") from error


def versions() -> dict[str, str]:
    """What the results were made with."""
    return dict(_versions())


@functools.cache
def _versions() -> dict[str, str]:
    found = {name: importlib.metadata.version(name) for name in ("caesura", *_LIBRARIES)}
    return {"python": platform.python_version(), **found, "code_sha256": _code_hash()}


def _arrivals_hash(arrivals: Arrivals) -> str:
    """The arrivals that another trace lends, by content; nothing where there is none."""
    lender = arrivals.replay.trace if arrivals.replay is not None else None
    return "" if lender is None else _lender_hash(lender)


@functools.lru_cache(maxsize=4)
def _lender_hash(trace: str) -> str:
    return hashlib.sha256(repr(recorded_arrivals(trace).recorded).encode()).hexdigest()


@functools.cache
def _code_hash() -> str:
    """The rules themselves, by content: every module that has a say in a result, and the libraries below them."""
    digest = hashlib.sha256()
    for part in _CODE:
        for file in sorted((_ROOT / part).rglob("*.py")) if "." not in part else [_ROOT / part]:
            digest.update(file.relative_to(_ROOT).as_posix().encode() + b"\0" + file.read_bytes() + b"\0")
    for library in _LIBRARIES:
        digest.update(f"{library}=={importlib.metadata.version(library)}\0".encode())
    return digest.hexdigest()


def _check_sources(run: Run) -> None:
    extend_search_path(run.base)
    here = {"caesura": _code_hash(), **_policy_sources(run.system, run.cluster)}
    foreign = [name for name, content in run.sources.items() if here.get(name) != content]
    if foreign:
        raise ForeignCode(
            f"the worker on {platform.node()} has not the same {foreign[0]} as this process: install the same versions "
            f"of Caesura, {listed(_LIBRARIES, ' and ')} there, and the same policy files"
        )


def _policy_sources(system: System, cluster: ClusterSetup | None) -> dict[str, str]:
    """The content of every module that ``module:Class`` names in a system's rules; one that changed is loaded anew."""
    sources = {}
    for name in [*_names(system.policy), *_names(system.order), *_names(cluster.router if cluster else {})]:
        module = name.partition(":")[0]
        found = importlib.util.find_spec(module) if ":" in name else None
        if found is not None and found.origin is not None:
            sources[module] = hashlib.sha256(Path(found.origin).read_bytes()).hexdigest()
            if _loaded.setdefault(module, sources[module]) != sources[module]:
                importlib.reload(importlib.import_module(module))
                _loaded[module] = sources[module]
    return sources


def _names(rule: dict[str, Any]) -> Iterator[str]:
    for value in rule.values():
        if isinstance(value, dict):
            yield from _names(value)
        elif isinstance(value, str):
            yield value
