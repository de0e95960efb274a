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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caesura.arrivals_schema import Arrivals
from caesura.config import Setup, extend_search_path, max_context, resolved
from caesura.errors import UserError
from caesura.generator_schema import GeneratedTrace
from caesura.metrics import call_table, session_table, summarize
from caesura.run_folder import write_run
from caesura.systems import System
from caesura.workload import WorkloadSpec, content_hash, make_sessions, read_trace, recorded_arrivals
from policies.contract import InterceptPolicy
from policies.registry import make_order, make_policy
from sim.errors import SimulationError
from sim.profile import Profile
from sim.recorder import RunRecord
from sim.run import simulate

_ROOT = Path(__file__).resolve().parent.parent
_CODE = (
    *("traces", "policies", "sim"),
    *("caesura/metrics.py", "caesura/run_folder.py", "caesura/workload.py", "caesura/generator_schema.py"),
)
_SURE_TO_ARRIVE = 50
_loaded: dict[str, str] = {}
_LIBRARIES = ("numpy", "scipy", "simpy", "pyarrow")


@dataclass(frozen=True)
class Run:
    """Everything that determines a result, and the names under which it is kept.

    Attributes:
        system: policies and engine settings.
        workload: the load and the seed are in it.
        profile: costs and capacities.
        horizon: simulated seconds after which the run is cut; None serves everybody.
        config: the same as an experiment file that repeats this one run.
        base: the folder where user policies are looked for.
        key: a hash of everything that determines the result.
    """

    system: System
    workload: WorkloadSpec
    profile: Profile
    horizon: float | None
    config: dict[str, Any]
    base: Path
    key: str

    @property
    def name(self) -> str:
        """The run folder's name: readable, and another one whenever the result could differ."""
        return f"{self.system.name}.load-{self.workload.load:g}.seed-{self.workload.seed}.{self.key[:10]}"

    @property
    def label(self) -> dict[str, Any]:
        """What a row of a table begins with."""
        return {"system": self.system.name, "load": self.workload.load, "seed": self.workload.seed}


def expand(setup: Setup) -> list[Run]:
    """The runs of an experiment: systems x loads x seeds, in this order."""
    experiment = setup.experiment
    trace_hash = _trace_hash(setup.trace)
    arrivals_hash = _arrivals_hash(experiment.workload.arrivals)
    runs: list[Run] = []
    for system in setup.systems:
        for load in experiment.workload.arrivals.loads:
            for seed in experiment.seeds:
                workload = WorkloadSpec(
                    trace=setup.trace,
                    arrivals=experiment.workload.arrivals,
                    load=load,
                    duration=experiment.workload.duration,
                    too_long=experiment.workload.too_long,
                    max_context=max_context(setup),
                    seed=seed,
                )
                config = resolved(setup, [system], load, [seed])
                determinants = {
                    "workload": config["workload"] | {"trace": trace_hash, "max_context": workload.max_context},
                    "arrivals": arrivals_hash,
                    "seed": seed,
                    "profile": setup.profile.model_dump(mode="json"),
                    "horizon": experiment.replica.horizon,
                    "system": system.rules(),
                    "policy": _policy_sources(system),
                    "code": _code_hash(),
                }
                key = hashlib.sha256(json.dumps(determinants, sort_keys=True).encode()).hexdigest()
                runs.append(Run(system, workload, setup.profile, experiment.replica.horizon, config, setup.base, key))
    _check_workload(runs[0].workload)
    return runs


def _check_workload(first: WorkloadSpec) -> None:
    """Find what is wrong with a workload before anything runs, where that is cheap; raises UserError."""
    if first.arrivals.replay is not None or min(first.arrivals.loads) * first.duration < _SURE_TO_ARRIVE:
        for load in first.arrivals.loads:
            make_sessions(replace(first, load=load))


def perform(run: Run, folder: Path, on_progress: Callable[[float], None] | None = None) -> None:
    """Simulate and write the run folder ``folder``, whole or not at all.

    Raises:
        UserError: the workload cannot be made, the simulation cannot go on, or the folder cannot be written.
    """
    begin = time.perf_counter()
    record, workload = simulate_run(run, on_progress=on_progress)
    sessions, calls = session_table(record), call_table(record)
    summary = run.label | summarize(record, sessions, calls, cut=workload["cut"], turned_away=workload["rejected"])
    provenance = {
        "key": run.key,
        "seed": run.workload.seed,
        "workload_sha256": workload["sha256"],
        "profile": run.profile.name,
        "profile_origin": run.profile.origin,
        "facts": record.facts,
        "wall_s": time.perf_counter() - begin,
        "versions": versions(),
    }
    write_run(folder, run.config, provenance, summary, sessions, calls, record.timeline)


def simulate_run(
    run: Run,
    *,
    policy: InterceptPolicy | None = None,
    log_decisions: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[RunRecord, dict[str, Any]]:
    """The record of a run, and of its workload the hash and how many sessions were cut or rejected beforehand.

    Args:
        run: what to simulate.
        policy: a fresh policy object to use instead of the one that the run's system names.
        log_decisions: keep every decision with the numbers it was made from.
        on_progress: called now and then with the share of sessions that have left.

    Raises:
        UserError: the workload cannot be made, or the simulation cannot go on.
    """
    extend_search_path(run.base)
    workload = make_sessions(run.workload)
    try:
        record = simulate(
            workload.sessions,
            policy=policy if policy is not None else make_policy(run.system.policy),
            order=make_order(run.system.order),
            settings=run.system.engine,
            profile=run.profile,
            horizon=run.horizon,
            log_decisions=log_decisions,
            on_progress=on_progress,
        )
    except SimulationError as error:
        raise UserError(f"{run.system.name} at load {run.workload.load:g}: {error}") from error
    facts = {"sha256": content_hash(workload.sessions), "cut": workload.cut, "rejected": workload.rejected}
    return record, facts


def versions() -> dict[str, str]:
    """What the results were made with."""
    found = {name: importlib.metadata.version(name) for name in ("caesura", *_LIBRARIES)}
    return {"python": platform.python_version(), **found, "code_sha256": _code_hash()}


def _trace_hash(trace: str | Path | GeneratedTrace) -> str:
    """What is drawn from, by content; a drawn trace is its parameters and the code."""
    return trace.model_dump_json() if isinstance(trace, GeneratedTrace) else content_hash(read_trace(trace))


def _arrivals_hash(arrivals: Arrivals) -> str:
    """The arrivals that another trace lends, by content; nothing where there is none."""
    lender = arrivals.replay.trace if arrivals.replay is not None else None
    return "" if lender is None else hashlib.sha256(repr(recorded_arrivals(lender).recorded).encode()).hexdigest()


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


def _policy_sources(system: System) -> dict[str, str]:
    """The content of every module that ``module:Class`` names in a system's rules; one that changed is loaded anew."""
    sources = {}
    for name in [*_names(system.policy), *_names(system.order)]:
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
