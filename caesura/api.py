"""Caesura from Python: the same experiments as on the command line, with results as data frames."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caesura.cli.options import experiment_from_options, load_key
from caesura.config.experiment import ResolvedExperiment, read_experiment, read_experiment_file
from caesura.config.overrides import Override, parse_override
from caesura.config.slo import parse_slo
from caesura.config.yaml_source import Loc, Source, read_yaml
from caesura.explanation.explanation import Explanation, explain
from caesura.results.capacities import Capacities, write_capacities
from caesura.results.comparison import Comparison, load
from caesura.results.metrics import call_table, session_table, summarize
from caesura.results.report import write_results
from caesura.results.sweep import Sweep, load_sweep, write_sweep
from caesura.runs.capacity_search import DEFAULT_SEEDS, find_capacities, make_query
from caesura.runs.executors.choose import executor
from caesura.runs.run import expand
from caesura.runs.run_experiment import run_experiment
from caesura.runs.simulate import simulate as simulate_run
from caesura.runs.sweep import Axis, plan_sweep, run_sweep
from policies.contract import InterceptPolicy
from sim.results.run_record import RunRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Capacities",
    "Comparison",
    "Explanation",
    "Simulation",
    "Sweep",
    "capacity",
    "compare",
    "explain",
    "load",
    "load_sweep",
    "run",
    "simulate",
    "sweep",
]


def compare(
    experiment: str | Path | Mapping[str, Any] | None = None,
    *,
    systems: Sequence[str | Mapping[str, Any]] | None = None,
    rates: Sequence[float] | None = None,
    duration: float | str | None = None,
    trace: str | Path | None = None,
    profile: str | Path | None = None,
    seeds: int | Sequence[int] | None = None,
    objective: float | str | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    on: str | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Compare systems over loads and write the results to a folder, as ``caesura compare`` does.

    Runs that the folder holds already are not done again.

    Args:
        experiment: a YAML file, the same as a mapping, or None to let the other arguments say all.
        systems: presets' names, or mappings such as ``{"preset": "cache-lru", "engine": {...}}``.
        rates: sessions per second.
        duration: how long sessions arrive: seconds, or a text such as ``"5 min"``.
        trace: a shipped trace's name, or a session file.
        profile: a shipped profile's name, or a file.
        seeds: how many, or which.
        objective: mean normalized latency to hold: seconds per token, or a text such as ``"100 ms"``.
        out: the folder for the results; ``runs/NAME`` when left out.
        jobs: processes; every core when left out.
        on: a cluster instead: ``dask``, ``ray``, or ``dask=ADDRESS`` and ``ray=ADDRESS`` for one that is there.
        progress: show a progress bar; None shows it on a terminal.

    Raises:
        UserError: something in the experiment does not hold, a run cannot go on, or the folder cannot be written.
    """
    given: list[tuple[Loc, Any, str]] = [
        (("systems",), None if systems is None else [_plain(system) for system in systems], "systems"),
        (load_key(_data(experiment)), None if rates is None else list(rates), "rates"),
        (("workload", "duration"), duration, "duration"),
        (("workload", "trace"), None if trace is None else str(trace), "trace"),
        (("replica", "profile"), None if profile is None else str(profile), "profile"),
        (("seeds",), seeds if seeds is None or isinstance(seeds, int) else list(seeds), "seeds"),
        (("objective", "normalized_latency"), objective, "objective"),
    ]
    options = [Override(loc, value, f"argument {name}") for loc, value, name in given if value is not None]
    resolved = _read(experiment, options)
    folder = Path(out) if out is not None else Path("runs") / resolved.name
    runs, _ = run_experiment(resolved, folder, executor(on, jobs), progress)
    return write_results(resolved, runs, folder)


def run(
    experiment: str | Path | Mapping[str, Any],
    *,
    set: Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    on: str | None = None,
    progress: bool | None = None,
) -> Comparison:
    """Do what an experiment says, as ``caesura run`` does.

    Args:
        experiment: a YAML file, or the same as a mapping.
        set: values to override by their dotted path, such as ``{"workload.duration": "5 min"}``.
        out: the folder for the results; ``runs/NAME`` when left out.
        jobs: processes; every core when left out.
        on: a cluster instead: ``dask``, ``ray``, or ``dask=ADDRESS`` and ``ray=ADDRESS`` for one that is there.
        progress: show a progress bar; None shows it on a terminal.

    Raises:
        UserError: as ``compare``.
    """
    options = [Override(parse_override(f"{key}=").loc, value, f"set {key}") for key, value in (set or {}).items()]
    resolved = _read(experiment, options)
    folder = Path(out) if out is not None else Path("runs") / resolved.name
    runs, _ = run_experiment(resolved, folder, executor(on, jobs), progress)
    return write_results(resolved, runs, folder)


def sweep(
    experiment: str | Path | Mapping[str, Any],
    *,
    over: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | Sequence[int] | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    on: str | None = None,
    retry_failed: bool = False,
    progress: bool | None = None,
) -> Sweep:
    """Repeat an experiment over the values of any of its keys, as ``caesura sweep`` does.

    A run that fails does not stop the others: see ``failures`` of the result.

    Args:
        experiment: a YAML file, or the same as a mapping.
        over: values by dotted key, such as ``{"replica.kv_capacity": ["8 GB", "16 GB"]}``.
        seeds: how many, or which.
        out: the folder for the results; ``runs/NAME-sweep`` when left out.
        jobs: processes; every core when left out.
        on: a cluster instead: ``dask``, ``ray``, or ``dask=ADDRESS`` and ``ray=ADDRESS`` for one that is there.
        retry_failed: do runs again that failed before.
        progress: show a progress bar; None shows it on a terminal.

    Raises:
        UserError: something in the experiment does not hold, or the folder cannot be written.
    """
    axes = [Axis(key, tuple(values), f"over {key}") for key, values in (over or {}).items()]
    options = [] if seeds is None else [Override(("seeds",), _plain(seeds), "argument seeds")]
    if isinstance(experiment, Mapping):
        plan = plan_sweep(Source("experiment", _plain(experiment)), "experiment", Path.cwd(), axes, options)
    else:
        file = Path(experiment)
        plan = plan_sweep(read_yaml(file), file.stem, file.resolve().parent, axes, options)
    folder = Path(out) if out is not None else Path("runs") / f"{plan.name}-sweep"
    run_sweep(plan, folder, executor(on, jobs), progress, retry_failed)
    return write_sweep(plan, folder)


def capacity(
    experiment: str | Path | Mapping[str, Any] | None = None,
    *,
    slo: str,
    systems: Sequence[str | Mapping[str, Any]] | None = None,
    seeds: int | Sequence[int] | None = DEFAULT_SEEDS,
    low: float | None = None,
    high: float | None = None,
    tolerance: float | None = None,
    out: str | Path | None = None,
    jobs: int | None = None,
    on: str | None = None,
    progress: bool | None = None,
) -> Capacities:
    """The highest load that each system sustains under an objective, as ``caesura capacity`` finds it.

    Args:
        experiment: a YAML file, the same as a mapping, or None for the defaults of ``compare``.
        slo: the objective, such as ``"p90 normalized_latency<0.1 and mean ttft<2s"``.
        systems: as in ``compare``; ratios refer to the first.
        seeds: how many, or which; None takes the experiment's.
        low: a load that should hold; the experiment's lowest when left out.
        high: a load that should not; its highest when left out.
        tolerance: relative distance of two loads that are told apart; 0.02 when left out.
        out: the folder for the results; ``runs/NAME-capacity`` when left out.
        jobs: processes; every core when left out.
        on: a cluster instead, as in ``sweep``.
        progress: show a progress bar; None shows it on a terminal.

    Raises:
        UserError: the objective or the experiment does not hold, or a run cannot go on.
    """
    given: list[tuple[Loc, Any, str]] = [
        (("systems",), None if systems is None else [_plain(system) for system in systems], "systems"),
        (("seeds",), None if seeds is None else _plain(seeds), "seeds"),
    ]
    resolved = _read(
        experiment, [Override(loc, value, f"argument {name}") for loc, value, name in given if value is not None]
    )
    question = make_query(resolved, parse_slo(slo), low, high, tolerance)
    folder = Path(out) if out is not None else Path("runs") / f"{resolved.name}-capacity"
    found, probes = find_capacities(resolved, question, folder, executor(on, jobs), progress)
    return write_capacities(resolved, question, found, probes, folder)


@dataclass(frozen=True)
class Simulation:
    """One run, not written anywhere.

    Attributes:
        record: what the simulation recorded.
        summary: every measure, under the names of ``vllm bench serve`` where it has them.
    """

    record: RunRecord
    summary: dict[str, Any]

    @functools.cached_property
    def sessions(self) -> pd.DataFrame:
        """One row a session."""
        return _frame(session_table(self.record))

    @functools.cached_property
    def calls(self) -> pd.DataFrame:
        """One row a call."""
        return _frame(call_table(self.record))

    @functools.cached_property
    def timeline(self) -> pd.DataFrame:
        """One row a second: sessions by state, GPU blocks by use."""
        return _frame(self.record.timeline)

    @functools.cached_property
    def decisions(self) -> pd.DataFrame:
        """One row a decision of the policy with its reasons; empty unless they were asked for."""
        import pandas as pd

        return pd.DataFrame(self.record.decisions)


def simulate(
    system: str | Mapping[str, Any] = "infercept",
    *,
    policy: InterceptPolicy | None = None,
    rate: float = 2.0,
    duration: float | str = "5 min",
    trace: str | Path = "infercept-mix",
    profile: str | Path = "published/gpt-j-6b-a100-40g",
    seed: int = 0,
    log_decisions: bool = False,
) -> Simulation:
    """Simulate one system at one load and keep the result in memory.

    Args:
        system: a preset's name, or a mapping such as ``{"preset": "vllm", "engine": {...}}``.
        policy: a fresh policy object to use instead of the system's, for a policy still being written.
        rate: sessions per second, Poisson.
        duration: how long sessions arrive: seconds, or a text such as ``"5 min"``.
        trace: a shipped trace's name, or a session file.
        profile: a shipped profile's name, or a file.
        seed: fixes every draw.
        log_decisions: keep every decision of the policy with the numbers it was made from.

    Raises:
        UserError: an argument does not hold, or the simulation cannot go on.
    """
    data = {
        "workload": {"trace": str(trace), "arrivals": {"poisson": {"rate": rate}}, "duration": duration},
        "replica": {"profile": str(profile)},
        "systems": [_plain(system)],
        "seeds": [seed],
    }
    (only,) = expand(_read(data, []))
    record, workload = simulate_run(only, policy=policy, log_decisions=log_decisions)
    summary = summarize(
        record,
        session_table(record),
        call_table(record),
        cut=workload["cut"],
        turned_away=workload["rejected"],
    )
    return Simulation(record, summary)


def _read(experiment: str | Path | Mapping[str, Any] | None, options: list[Override]) -> ResolvedExperiment:
    if experiment is None:
        return experiment_from_options(options)
    if isinstance(experiment, Mapping):
        return read_experiment(Source("experiment", _plain(experiment)), "experiment", Path.cwd(), options)
    return read_experiment_file(Path(experiment), options)


def _data(experiment: str | Path | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if experiment is None or isinstance(experiment, Mapping):
        return _plain(experiment or {})  # type: ignore[no-any-return]
    return read_yaml(Path(experiment)).data


def _plain(value: Any) -> Any:
    """A copy in plain dicts and lists, so that overrides never reach the caller's own."""
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _frame(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(dict(columns))
