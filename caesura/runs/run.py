"""One run: one system at one load with one seed. What determines its result, and what names it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from caesura.config.arrivals_schema import ArrivalsSection
from caesura.config.cluster_setup import ClusterSetup
from caesura.config.experiment import ResolvedExperiment, write_experiment
from caesura.config.generator_schema import GeneratedTrace
from caesura.config.systems import System
from caesura.config.workload import (
    WorkloadSpec,
    make_sessions,
    recorded_arrivals,
    trace_hash,
)
from caesura.runs.code_hash import code_hash, policy_sources
from sim.costs.profile import Profile

_SURE_TO_ARRIVE = 50


@dataclass(frozen=True)
class Run:
    """Everything that determines a result, and the names of its folder.

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
    policies, code = policy_sources(system, cluster), code_hash()
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


def _arrivals_hash(arrivals: ArrivalsSection) -> str:
    """The content of the trace whose arrivals are replayed, hashed; empty where there is none."""
    lender = arrivals.replay.trace if arrivals.replay is not None else None
    return "" if lender is None else _lender_hash(lender)


@functools.lru_cache(maxsize=4)
def _lender_hash(trace: str) -> str:
    return hashlib.sha256(repr(recorded_arrivals(trace).recorded).encode()).hexdigest()
