"""From an experiment file, and what the command line says beside it, to an experiment with nothing left to look up."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from caesura.config.cluster_setup import ClusterSetup, find_cluster
from caesura.config.generator_file import with_generator
from caesura.config.generator_schema import Generate, GeneratedTrace
from caesura.config.overrides import Override, apply_overrides
from caesura.config.profiles import profile_reference, replica_profile
from caesura.config.schema import Experiment, Objective, Workload
from caesura.config.systems import System, check_names, resolve
from caesura.config.validation import validated
from caesura.config.workload import draw_sessions, find_trace, read_trace, recorded_arrivals, replays_itself
from caesura.config.yaml_source import Loc, Source, read_yaml
from caesura.errors import ConfigError, UserError
from policies.contract import InterceptPolicy
from policies.registry import UnknownPolicy, make_order, make_policy
from sim.costs.profile import Profile

LEAST_BLOCKS = 2


@dataclass(frozen=True)
class ResolvedExperiment:
    """An experiment with nothing left to look up and nothing left to defaults.

    Two are equal where they ask for the same results; names and places for people do not count.

    Attributes:
        name: what the report is headed with.
        base: the folder that relative paths refer to; user policies are looked for there, too.
        workload: what the users send; ``max_context`` and the trace of a replay are found.
        trace: a shipped trace's name, the path of a file, or how to draw one.
        horizon: seconds of simulated time after which a run is cut; None serves every session to its end.
        systems: in the order written.
        seeds: of every system and load, one run a seed.
        objective: what a system must hold for a load to count as sustained.
        profile: with the capacities of this experiment.
        profile_reference: its name or, for one of the user's own, the absolute path.
        cluster: the replicas and the router; None for one replica. ``profile`` is then that of the first.
    """

    name: str = field(compare=False)
    base: Path = field(compare=False)
    workload: Workload
    trace: str | Path | GeneratedTrace
    horizon: float | None
    systems: tuple[System, ...]
    seeds: list[int]
    objective: Objective
    profile: Profile
    profile_reference: str
    cluster: ClusterSetup | None = None

    @property
    def loads(self) -> list[float]:
        """The rates in sessions per second, or the speeds of a replay."""
        return self.workload.arrivals.loads

    def of_one_run(self, system: System, load: float, seed: int) -> ResolvedExperiment:
        """The experiment of a single run; the load may be one that the experiment does not name."""
        workload = self.workload.model_copy(update={"arrivals": self.workload.arrivals.at(load)})
        return replace(self, systems=(system,), workload=workload, seeds=[seed], objective=Objective())


def read_experiment_file(path: Path, overrides: Sequence[Override] = ()) -> ResolvedExperiment:
    """The experiment in a YAML file.

    Raises:
        UserError: the file cannot be read.
        ConfigError: it does not hold; one line per fault.
    """
    return read_experiment(read_yaml(path), path.stem, path.resolve().parent, overrides)


def read_experiment(source: Source, name: str, base: Path, overrides: Sequence[Override] = ()) -> ResolvedExperiment:
    """The experiment that ``source`` and the overrides describe; what ``write_experiment`` wrote gives the same again.

    Raises:
        ConfigError: it does not hold; one line per fault.
    """
    apply_overrides(source, overrides)
    source = with_generator(source, base)
    experiment = validated(Experiment, source)
    if experiment.sweep:
        raise ConfigError([source.fault(("sweep",), "only `caesura sweep` carries this out; take the section out")])
    extend_search_path(base)
    faults: list[str] = []
    systems = _systems(experiment, source, base, faults)
    cluster = find_cluster(experiment, source, base, systems, faults)
    profiles = _profiles(experiment, source, base, systems, cluster, faults)
    trace = _trace(experiment, source, base, faults)
    experiment = _with_arrivals_found(experiment, source, base, faults)
    _check_sweep(experiment, source, faults)
    if faults or not profiles or trace is None:
        raise ConfigError(faults)
    check_names(systems, source)
    reference = profile_reference(experiment.replica.profile, base) if cluster is None else cluster.groups[0].reference
    found = {"max_context": _max_context(experiment, profiles), "trace": _written_trace(trace)}
    return ResolvedExperiment(
        name=name,
        base=base,
        workload=experiment.workload.model_copy(update=found),
        trace=trace,
        horizon=experiment.replica.horizon,
        systems=tuple(systems),
        seeds=experiment.seeds,
        objective=experiment.objective,
        profile=profiles[0],
        profile_reference=reference,
        cluster=cluster,
    )


def write_experiment(experiment: ResolvedExperiment) -> dict[str, Any]:
    """An experiment as plain data for a YAML file with nothing left to defaults, which ``read_experiment`` reads."""
    workload, profile = experiment.workload, experiment.profile
    trace = experiment.trace
    return {
        "workload": {
            "trace": trace.model_dump(exclude_none=True) if isinstance(trace, GeneratedTrace) else str(trace),
            "arrivals": workload.arrivals.written(),
            "duration": workload.duration,
            **({} if workload.samples is None else {"samples": workload.samples}),
            "too_long": workload.too_long,
            **({} if workload.max_context is None else {"max_context": workload.max_context}),
        },
        "replica": {
            "profile": experiment.profile_reference,
            "kv_capacity": f"{profile.kv_capacity_tokens} tokens",
            "host_capacity": f"{profile.host_capacity_tokens} tokens",
            **({} if experiment.horizon is None else {"horizon": experiment.horizon}),
        },
        **({} if experiment.cluster is None else {"cluster": experiment.cluster.written()}),
        "systems": [{"name": system.name, **system.rules()} for system in experiment.systems],
        "seeds": experiment.seeds,
        "objective": experiment.objective.model_dump(),
    }


def _written_trace(trace: str | Path | GeneratedTrace) -> str | GeneratedTrace:
    return trace if isinstance(trace, GeneratedTrace) else str(trace)


def _max_context(experiment: Experiment, profiles: Sequence[Profile]) -> int | None:
    """The longest context in tokens: the experiment's, or else the profile's, the smallest of a cluster."""
    limits = [profile.max_context for profile in profiles if profile.max_context is not None]
    return experiment.workload.max_context or min(limits, default=None)


def slow_notes(experiment: ResolvedExperiment) -> list[str]:
    """One line for each system whose policy says no review time: simulated time cannot leap while it runs."""
    notes = []
    for system in experiment.systems:
        kind = type(make_policy(system.policy))
        if kind.revise is not InterceptPolicy.revise and kind.review_at is InterceptPolicy.review_at:
            notes.append(
                f"{system.name}: its policy {kind.__name__} has revise and no review_at; it is asked every iteration, "
                "and that slows the run"
            )
    return notes


def extend_search_path(*folders: Path) -> None:
    """Let ``module:Class`` find modules in these folders and the current one, behind everything installed."""
    for folder in (*folders, Path.cwd()):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _systems(experiment: Experiment, source: Source, base: Path, faults: list[str]) -> list[System]:
    systems = []
    for index, entry in enumerate(experiment.systems):
        at: Loc = ("systems", index)
        try:
            system = resolve(entry, base)
            _check_rules(system)
        except ConfigError as error:
            faults.extend(error.faults)
        except (UserError, UnknownPolicy) as error:
            faults.append(source.fault(at, str(error)))
        else:
            systems.append(system)
    return systems


def _check_rules(system: System) -> None:
    """The policy and the order can be made; raises UnknownPolicy or UserError."""
    for what, make, rule in (("policy", make_policy, system.policy), ("order", make_order, system.order)):
        try:
            make(rule)
        except UnknownPolicy as error:
            raise UserError(f"{what}: {error}") from None
        except Exception as error:
            name = rule.get("name")
            raise UserError(f"{what} {name!r} cannot be made: {type(error).__name__}: {error}") from None


def _profiles(
    experiment: Experiment,
    source: Source,
    base: Path,
    systems: Sequence[System],
    cluster: ClusterSetup | None,
    faults: list[str],
) -> list[Profile]:
    """The profile of the replica, or of each group of a cluster, checked against what the systems need."""
    at: list[tuple[Loc, Profile]] = []
    if cluster is not None:
        at = [(("cluster", "replicas", index), group.profile) for index, group in enumerate(cluster.groups)]
    elif experiment.cluster is None:
        try:
            at = [(("replica",), replica_profile(experiment.replica, base))]
        except ConfigError as error:
            faults.extend(error.faults)
        except UserError as error:
            faults.append(source.fault(("replica", "profile"), str(error)))
    for place, profile in at:
        for system in systems:
            least = LEAST_BLOCKS * system.engine.block_size
            if profile.kv_capacity_tokens < least:
                fault = f"{profile.kv_capacity_tokens} tokens of KV cache; {system.name} needs at least {least}"
                faults.append(source.fault((*place, "kv_capacity"), fault))
        limit, wanted = profile.max_context, experiment.workload.max_context
        if limit is not None and wanted is not None and wanted > limit:
            fault = f"{wanted} tokens; the model {profile.model} takes at most {limit}"
            faults.append(source.fault(("workload", "max_context"), fault))
    return [profile for _, profile in at]


def _trace(experiment: Experiment, source: Source, base: Path, faults: list[str]) -> str | Path | GeneratedTrace | None:
    """The trace, read once so that its faults are found now; one that is described is drawn from once."""
    try:
        trace = find_trace(experiment.workload.trace, base)
        recorded = draw_sessions(_few(trace), 0) if isinstance(trace, GeneratedTrace) else read_trace(trace)
    except UserError as error:
        faults.append(source.fault(("workload", "trace"), str(error)))
        return None
    if replays_itself(experiment.workload.arrivals) and not any(session.arrival for session in recorded):
        advice = "write {poisson: {rate: 2}}"
        faults.append(source.fault(("workload", "arrivals"), f"the trace records no arrivals to replay; {advice}"))
    return trace


def _few(trace: GeneratedTrace) -> Generate:
    return trace.generate.model_copy(update={"sessions": min(trace.generate.sessions, 10)})


def _with_arrivals_found(experiment: Experiment, source: Source, base: Path, faults: list[str]) -> Experiment:
    """The experiment with the absolute path of the trace whose arrivals it replays."""
    arrivals = experiment.workload.arrivals
    if arrivals.replay is None or arrivals.replay.trace is None:
        return experiment
    try:
        found = str(find_trace(arrivals.replay.trace, base))
        recorded_arrivals(found)
    except UserError as error:
        faults.append(source.fault(("workload", "arrivals", "replay", "trace"), str(error)))
        return experiment
    replay = arrivals.replay.model_copy(update={"trace": found})
    workload = experiment.workload.model_copy(update={"arrivals": arrivals.model_copy(update={"replay": replay})})
    return experiment.model_copy(update={"workload": workload})


def _check_sweep(experiment: Experiment, source: Source, faults: list[str]) -> None:
    arrivals = experiment.workload.arrivals
    at: Loc = ("workload", "arrivals")
    loads = arrivals.loads
    twice = sorted({load for load in loads if loads.count(load) > 1})
    if twice:
        faults.append(source.fault(at, f"the load {twice[0]:g} is listed twice"))
    if replays_itself(arrivals) and len(experiment.seeds) > 1:
        faults.append(source.fault(("seeds",), "a replay draws nothing, so every seed gives the same run; keep one"))
