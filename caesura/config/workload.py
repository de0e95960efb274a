"""From what an experiment says about its users to the sessions of one run."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from pathlib import Path

from caesura.config.arrivals_schema import ArrivalsSection
from caesura.config.generator_schema import Generate, GeneratedTrace
from caesura.errors import UserError, did_you_mean, listed
from traces import shipped
from traces.draw.arrivals import ArrivalProcess, Gamma, Poisson, Replay, Weibull, draw_workload, replay_workload
from traces.draw.generate import MIX_WEIGHTS, generate
from traces.draw.modulated_arrivals import Bursts, Diurnal
from traces.draw.shapes import draw_mixture
from traces.errors import TraceError
from traces.limits import TooLong, fit_to_limit
from traces.readers import read_sessions
from traces.session import Session
from traces.workload_hash import workload_hash

Broadcast = Mapping[str, tuple[Session, ...]]
"""The sessions of trace files by path, for machines that do not have the files."""
_broadcast: ContextVar[Broadcast] = ContextVar("lent", default={})  # noqa: B039


@dataclass(frozen=True)
class WorkloadSpec:
    """The workload of one run, ready to be made in any process.

    Attributes:
        trace: a shipped trace's name, the absolute path of a file, or how to draw one.
        arrivals: the arrival process.
        load: its rate, or the speed of a replay.
        duration: seconds of arrivals.
        too_long: what becomes of sessions that outgrow ``max_context`` tokens.
        max_context: None for no limit.
        seed: fixes every draw.
        samples: of every session; None leaves them as the trace says.
    """

    trace: str | Path | GeneratedTrace
    arrivals: ArrivalsSection
    load: float
    duration: float
    too_long: TooLong
    max_context: int | None
    seed: int
    samples: int | None = None


@dataclass(frozen=True)
class Sessions:
    """The sessions of one run; those in ``rejected`` outgrow the model and never reach the engine."""

    sessions: tuple[Session, ...]
    cut: int = 0
    rejected: int = 0


def find_trace(trace: str | GeneratedTrace, base: Path) -> str | Path | GeneratedTrace:
    """A shipped trace's name or the file it stands for, relative to ``base``.

    Raises:
        UserError: neither a shipped trace nor a file.
    """
    if isinstance(trace, GeneratedTrace) or trace in shipped.names():
        return trace
    path = (base / trace).expanduser()
    if path.is_file() and path.suffix in (".yaml", ".yml"):
        raise UserError(
            f"{path} is no trace; if it is a generator file, write generator: {trace} instead of trace, "
            f"or --set workload.generator={trace} on the command line"
        )
    if path.is_file():
        return path.resolve()
    if path.is_dir():
        raise UserError(f"the trace {path} is a folder; name a trace file")
    names = listed(shipped.names())
    if "/" in trace or "." in trace:
        raise UserError(f"the trace file {path} is not there; name a trace file or a shipped trace ({names})")
    raise UserError(
        f"unknown trace {trace!r}{did_you_mean(trace, shipped.names())} (shipped: {names}; or a trace file)"
    )


def make_sessions(spec: WorkloadSpec) -> Sessions:
    """The sessions of a run, by arrival.

    Raises:
        UserError: a trace that cannot be read or replayed, or a workload without sessions.
    """
    if replays_itself(spec.arrivals):
        sessions = _replayed(spec)
    else:
        process = arrival_process(spec.arrivals, spec.load)
        sessions = draw_workload(_trace(spec.trace, spec.seed), process, spec.duration, spec.seed)
    if not sessions:
        raise UserError(f"no session arrives within {spec.duration:g} s at load {spec.load:g}; raise one of them")
    if spec.samples is not None:
        sessions = [replace(session, samples=spec.samples) for session in sessions]
    if spec.max_context is None:
        return Sessions(tuple(sessions))
    limited = fit_to_limit(sessions, spec.max_context, spec.too_long)
    if not limited.sessions:
        raise UserError(
            f"every session is longer than {spec.max_context} tokens; write too_long: cut, or another trace"
        )
    return Sessions(limited.sessions, limited.cut, limited.rejected)


def replays_itself(arrivals: ArrivalsSection) -> bool:
    """Whether sessions arrive as their own trace recorded them, each once."""
    return arrivals.replay is not None and arrivals.replay.trace is None


def arrival_process(arrivals: ArrivalsSection, load: float) -> ArrivalProcess:
    """The process at one load; for a replay of another trace, at that speed.

    Raises:
        UserError: the other trace cannot be read, or records no arrivals.
    """
    if arrivals.gamma:
        return Gamma(load, arrivals.gamma.burstiness)
    if arrivals.weibull:
        return Weibull(load, arrivals.weibull.shape)
    if bursts := arrivals.bursts:
        return Bursts(load, bursts.busy, bursts.quiet, bursts.quiet_rate)
    if diurnal := arrivals.diurnal:
        peak = diurnal.period / 2 if diurnal.peak is None else diurnal.peak
        return Diurnal(load, diurnal.swing, diurnal.period, peak)
    if arrivals.replay and arrivals.replay.trace is not None:
        recorded = recorded_arrivals(arrivals.replay.trace)
        return Replay(tuple(time / load for time in recorded.recorded))
    return Poisson(load)


def recorded_arrivals(trace: str) -> Replay:
    """The arrivals of a trace, the path of a file or a shipped one's name, counted from the first.

    Raises:
        UserError: the trace cannot be read, or records no arrivals.
    """
    broadcast = _broadcast.get().get(trace)
    return _read_arrivals(trace) if broadcast is None else _arrivals(trace, broadcast)


@functools.lru_cache(maxsize=4)
def _read_arrivals(trace: str) -> Replay:
    found = find_trace(trace, Path.cwd())
    assert not isinstance(found, GeneratedTrace)
    return _arrivals(trace, read_trace(found))


def _arrivals(trace: str, sessions: Sequence[Session]) -> Replay:
    times = sorted(session.arrival for session in sessions)
    if not times[-1]:
        raise UserError(f"the trace {trace} records no arrivals; name one that does")
    return Replay(tuple(time - times[0] for time in times))


def _replayed(spec: WorkloadSpec) -> list[Session]:
    replayed = replay_workload(_trace(spec.trace, spec.seed))
    faster = (replace(session, arrival=session.arrival / spec.load) for session in replayed)
    return [session for session in faster if session.arrival < spec.duration]


def _trace(trace: str | Path | GeneratedTrace, seed: int) -> Sequence[Session]:
    return draw_sessions(trace.generate, seed) if isinstance(trace, GeneratedTrace) else read_trace(trace)


def draw_sessions(what: Generate, seed: int) -> list[Session]:
    """The sessions that ``what`` describes, all with arrival 0.

    Raises:
        UserError: a session longer than can be drawn.
    """
    if what.kinds is None:
        chosen = MIX_WEIGHTS if what.weights is None else {str(kind): weight for kind, weight in what.weights.items()}
        return generate(what.sessions, seed, chosen)
    try:
        shapes = {name: (kind.weight, kind.shape()) for name, kind in what.kinds.items()}
        return draw_mixture(shapes, what.sessions, seed)
    except ValueError as error:
        raise UserError(f"the generator cannot be drawn from: {error}") from None


def read_trace(trace: str | Path) -> tuple[Session, ...]:
    """Read once per process: the runs of a sweep share their trace. One that was lent is not read."""
    broadcast = _broadcast.get().get(str(trace))
    return _read(trace) if broadcast is None else broadcast


@contextlib.contextmanager
def with_broadcast(traces: Broadcast) -> Iterator[None]:
    """While the block runs, these traces are there without their files."""
    before = _broadcast.set(traces)
    try:
        yield
    finally:
        _broadcast.reset(before)


def trace_files(spec: WorkloadSpec) -> list[Path]:
    """The files that a workload is made from: its trace, and the one that lends it arrivals."""
    files = [spec.trace] if isinstance(spec.trace, Path) else []
    if spec.arrivals.replay is not None and spec.arrivals.replay.trace is not None:
        lender = find_trace(spec.arrivals.replay.trace, Path.cwd())
        files += [lender] if isinstance(lender, Path) else []
    return files


@functools.lru_cache(maxsize=4)
def trace_hash(trace: str | Path) -> str:
    """The content of a recorded trace, read once per process as the trace is."""
    return workload_hash(read_trace(trace))


@functools.lru_cache(maxsize=4)
def _read(trace: str | Path) -> tuple[Session, ...]:
    if isinstance(trace, str):
        return tuple(shipped.load(trace))
    try:
        return tuple(read_sessions(trace))
    except TraceError as error:
        raise UserError(str(error)) from None
