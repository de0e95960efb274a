"""When sessions arrive: arrival processes, and workloads drawn with them.

A process gives ascending times in seconds since the workload's start. `draw_workload` uses common random numbers: with
one seed the k-th session is the same whatever the process and its rate, and the gaps of `Poisson` (and of `Gamma` at
one burstiness) are the same unit gaps divided by the rate. Comparisons over load are thus paired.
"""

from __future__ import annotations

import csv
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from traces.errors import TraceError
from traces.session import Session

Times = npt.NDArray[np.float64]

LEAST_BURSTINESS = 0.001
LEAST_WEIBULL_SHAPE = 0.1
MOST_ARRIVALS = 100_000_000


class ArrivalProcess(Protocol):
    """A source of arrival times. Equal generator states give equal times."""

    def first(self, count: int, rng: np.random.Generator) -> Times:
        """The first ``count`` arrival times."""

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        """Every arrival time below ``duration`` seconds."""


@dataclass(frozen=True, slots=True)
class _Renewal(ABC):
    """Arrivals with independent gaps: unit gaps divided by ``rate``, sessions a second on average."""

    rate: float

    def __post_init__(self) -> None:
        require_rate(self.rate)

    def first(self, count: int, rng: np.random.Generator) -> Times:
        """The first ``count`` arrival times."""
        times: Times = np.cumsum(self._unit_gaps(rng)(count)) / self.rate
        return times

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        """Every arrival time below ``duration`` seconds."""
        expected = self.rate * duration
        if not 0 <= expected <= MOST_ARRIVALS:
            rate = f"{self.rate!r} sessions/s over {duration!r} s"
            raise ValueError(f"{rate}: expected arrivals must be 0 to {MOST_ARRIVALS}")
        times: Times = sums_past(expected, self._unit_gaps(rng)) / self.rate
        return times[times < duration]

    @abstractmethod
    def _unit_gaps(self, rng: np.random.Generator) -> Callable[[int], Times]:
        """A function that draws so many gaps of mean 1."""


@dataclass(frozen=True, slots=True)
class Poisson(_Renewal):
    """Independent arrivals, ``rate`` sessions a second on average; the first after one exponential gap."""

    def _unit_gaps(self, rng: np.random.Generator) -> Callable[[int], Times]:
        return rng.standard_exponential


@dataclass(frozen=True, slots=True)
class Gamma(_Renewal):
    """Arrivals with gamma-distributed gaps, ``rate`` sessions a second on average.

    ``burstiness`` is the gaps' shape parameter, as in ``vllm bench serve``: 1 is Poisson, smaller is burstier, larger
    more regular. The coefficient of variation of the gaps is ``burstiness ** -0.5``.
    """

    burstiness: float = 1.0

    def __post_init__(self) -> None:
        require_rate(self.rate)
        if not (math.isfinite(self.burstiness) and self.burstiness >= LEAST_BURSTINESS):
            raise ValueError(f"burstiness is {self.burstiness!r}; it must be finite and >= {LEAST_BURSTINESS}")

    def _unit_gaps(self, rng: np.random.Generator) -> Callable[[int], Times]:
        return lambda count: rng.standard_gamma(self.burstiness, count) / self.burstiness


@dataclass(frozen=True, slots=True)
class Weibull(_Renewal):
    """Arrivals with Weibull-distributed gaps, ``rate`` sessions a second on average.

    ``shape`` 1 is Poisson; below 1 gaps have a heavier tail than those of `Gamma` with the same coefficient of
    variation, which is ``sqrt(Gamma(1 + 2 / shape) / Gamma(1 + 1 / shape)^2 - 1)``.
    """

    shape: float

    def __post_init__(self) -> None:
        require_rate(self.rate)
        if not (math.isfinite(self.shape) and self.shape >= LEAST_WEIBULL_SHAPE):
            raise ValueError(f"shape is {self.shape!r}; it must be finite and >= {LEAST_WEIBULL_SHAPE}")

    def _unit_gaps(self, rng: np.random.Generator) -> Callable[[int], Times]:
        mean = math.gamma(1 + 1 / self.shape)
        return lambda count: rng.weibull(self.shape, count) / mean


@dataclass(frozen=True, slots=True)
class Replay:
    """Recorded arrival times, in seconds, ascending. The generator is not used."""

    recorded: tuple[float, ...]

    def __post_init__(self) -> None:
        before = 0.0
        for index, time in enumerate(self.recorded):
            if not (math.isfinite(time) and time >= before):
                raise ValueError(f"recorded[{index}] is {time!r}; times must be finite, >= 0 and ascending")
            before = time

    @classmethod
    def of(cls, sessions: Iterable[Session]) -> Replay:
        """The arrivals of another workload."""
        return cls(tuple(sorted(session.arrival for session in sessions)))

    @classmethod
    def from_csv(cls, path: str | Path, column: str, unit: float = 1.0) -> Replay:
        """The arrivals in one column of a CSV file with a header, counted from its earliest.

        Args:
            path: the file.
            column: its column of numbers, or of ISO dates with times (without a zone: UTC).
            unit: seconds that a number stands for (0.001 for milliseconds); dates ignore it.

        Raises:
            TraceError: no such file or column, or a value that is no time.
        """
        times = sorted(_csv_times(Path(path), column, unit))
        return cls(tuple(time - times[0] for time in times))

    def first(self, count: int, rng: np.random.Generator | None = None) -> Times:
        """The first ``count`` arrival times; raises `ValueError` when there are fewer."""
        if count > len(self.recorded):
            raise ValueError(f"{count} arrivals wanted, but only {len(self.recorded)} are recorded")
        return np.array(self.recorded[:count], dtype=np.float64)

    def times(self, duration: float, rng: np.random.Generator | None = None) -> Times:
        """Every arrival time below ``duration`` seconds."""
        recorded = np.array(self.recorded, dtype=np.float64)
        return recorded[recorded < duration]


def draw_workload(sessions: Sequence[Session], arrivals: ArrivalProcess, duration: float, seed: int) -> list[Session]:
    """Draw a workload as InferCept's benchmark does: sessions uniformly, with replacement, at the process's times.

    Args:
        sessions: what to draw from; their own arrivals are ignored.
        arrivals: when the drawn sessions arrive.
        duration: seconds of arrivals; every arrival is below it.
        seed: fixes both the order of the draws and the gaps, by separate streams.

    Returns:
        The drawn sessions by arrival; the k-th of them (from 0) has the id ``<its own id>#<k>``.

    Raises:
        ValueError: nothing to draw from, a duration that is not positive and finite, or sessions that wait for others.
    """
    if not sessions:
        raise ValueError("there are no sessions to draw from")
    if not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration is {duration!r}; it must be finite and > 0 seconds")
    for session in sessions:
        if any(pause.session for pause in session.pauses):
            raise ValueError(
                f"session {session.id!r} waits for another session: replay such a workload, do not draw it"
            )
    choice_stream, gap_stream = (np.random.default_rng(stream) for stream in np.random.SeedSequence(seed).spawn(2))
    times = arrivals.times(duration, gap_stream)
    choices = choice_stream.integers(len(sessions), size=len(times))
    drawn = (sessions[choice] for choice in choices.tolist())
    return [
        replace(session, id=f"{session.id}#{k}", arrival=time)
        for k, (session, time) in enumerate(zip(drawn, times.tolist(), strict=True))
    ]


def replay_workload(sessions: Iterable[Session], duration: float = math.inf) -> list[Session]:
    """The sessions themselves, each once, at their own arrivals below ``duration``; ties keep their order."""
    return sorted((s for s in sessions if s.arrival < duration), key=lambda session: session.arrival)


def sums_past(expected: float, draw_unit_gaps: Callable[[int], Times]) -> Times:
    """Sums of unit gaps, past ``expected``. How many are drawn at once does not change them."""
    gaps = draw_unit_gaps(int(1.1 * expected) + 16)
    sums: Times = np.cumsum(gaps)
    while sums[-1] <= expected:
        gaps = np.concatenate([gaps, draw_unit_gaps(len(gaps))])
        sums = np.cumsum(gaps)
    return sums


def require_rate(rate: float) -> None:
    """Refuse a rate that is not finite and > 0 with a `ValueError`."""
    if not (math.isfinite(rate) and rate > 0):
        raise ValueError(f"rate is {rate!r}; it must be finite and > 0 sessions a second")


def _csv_times(path: Path, column: str, unit: float) -> list[float]:
    expected = f"a CSV file with a header and a column {column!r}"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file)
            if column not in (rows.fieldnames or ()):
                found = f"the columns {', '.join(rows.fieldnames or ()) or '(none)'}"
                raise TraceError(str(path), found, expected, "name one of these columns", 1)
            times = [_csv_time(path, rows.line_num, column, row[column], unit) for row in rows]
    except OSError as error:
        raise TraceError(str(path), f"no readable file ({error.strerror})", expected, "check the path") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise TraceError(str(path), f"no CSV text ({error})", expected, "save it as CSV in UTF-8") from None
    if not times:
        raise TraceError(str(path), "a header only", "at least one arrival", "name a file that holds arrivals")
    return times


def _csv_time(path: Path, line: int, column: str, value: str | None, unit: float) -> float:
    text = (value or "").strip()
    time = math.nan
    try:
        time = float(text) * unit
    except ValueError:
        try:
            moment = datetime.fromisoformat(text)
            time = moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
        except ValueError:
            pass
    if not math.isfinite(time):
        expected = "a finite number, or a date with a time such as 2023-11-16 18:15:46.68"
        raise TraceError(str(path), repr(text), expected, "correct the value, or remove the line", line, column)
    return time
