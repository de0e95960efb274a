"""Arrivals whose rate changes over time: Poisson arrivals on a clock that runs faster and slower.

Both processes take unit exponential gaps, add them up, and ask when the integral of the rate reaches each sum (time
rescaling). So with one seed the k-th arrival at twice the rate stands for the same unit gaps, as with `Poisson`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from traces.draw.arrivals import MOST_ARRIVALS, Times, require_rate, sums_past

_HALVINGS = 60
_MOST_PHASES = 10_000_000


@dataclass(frozen=True, slots=True)
class Diurnal:
    """Poisson arrivals whose rate follows a sine: ``rate * (1 + swing * cos(2 pi (t - peak) / period))``.

    Attributes:
        rate: mean sessions a second.
        swing: how far the rate rises above and falls below its mean, 0 to 1.
        period: seconds of one cycle; a day unless said otherwise.
        peak: when the rate is highest, seconds after the workload's start.
    """

    rate: float
    swing: float
    period: float = 86400.0
    peak: float = 43200.0

    def __post_init__(self) -> None:
        require_rate(self.rate)
        if not 0 <= self.swing <= 1:
            raise ValueError(f"swing is {self.swing!r}; it must be 0 to 1, or the rate would fall below 0")
        _require_seconds("period", self.period)
        if not math.isfinite(self.peak):
            raise ValueError(f"peak is {self.peak!r}; it must be finite")

    def first(self, count: int, rng: np.random.Generator) -> Times:
        """The first ``count`` arrival times."""
        return self._at(np.cumsum(rng.standard_exponential(count)))

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        """Every arrival time below ``duration`` seconds."""
        sums = _sums_up_to(float(self.expected(np.array([duration]))[0]), rng)
        times = self._at(sums)
        return times[times < duration]

    def expected(self, times: Times) -> Times:
        """Arrivals to expect from the start up to each of ``times``: the integral of the rate."""
        turn = 2 * math.pi / self.period
        wave = np.sin(turn * (times - self.peak)) + math.sin(turn * self.peak)
        arrivals: Times = self.rate * (times + self.swing / turn * wave)
        return arrivals

    def _at(self, sums: Times) -> Times:
        """When the expected arrivals reach ``sums``, by bisection: they never fall, and stray by ``reach`` at most."""
        reach = self.swing * self.period / math.pi
        low, high = np.maximum(sums / self.rate - reach, 0.0), sums / self.rate + reach
        for _ in range(_HALVINGS):
            middle = (low + high) / 2
            short = self.expected(middle) < sums
            low, high = np.where(short, middle, low), np.where(short, high, middle)
        return np.maximum.accumulate(high)


@dataclass(frozen=True, slots=True)
class Bursts:
    """Poisson arrivals that switch between busy and quiet phases of exponential length, beginning with a busy one.

    The phases come from a stream of their own and are in seconds: another rate has its bursts at the same times.

    Attributes:
        rate: mean sessions a second over busy and quiet phases.
        busy: mean seconds of a busy phase.
        quiet: mean seconds of a quiet phase.
        quiet_rate: rate in quiet phases as a share of that in busy ones, 0 to 1; 0 leaves them empty.
    """

    rate: float
    busy: float
    quiet: float
    quiet_rate: float = 0.0

    def __post_init__(self) -> None:
        require_rate(self.rate)
        _require_seconds("busy", self.busy)
        _require_seconds("quiet", self.quiet)
        if not 0 <= self.quiet_rate <= 1:
            raise ValueError(f"quiet_rate is {self.quiet_rate!r}; it must be 0 to 1, a share of the rate in bursts")

    @property
    def busy_rate(self) -> float:
        """Sessions a second in a busy phase."""
        return self.rate * (self.busy + self.quiet) / (self.busy + self.quiet_rate * self.quiet)

    def first(self, count: int, rng: np.random.Generator) -> Times:
        """The first ``count`` arrival times."""
        (phases,) = rng.spawn(1)
        sums: Times = np.cumsum(rng.standard_exponential(count))
        last = float(sums[-1]) if count else 0.0
        ends, expected = self._phases(phases, lambda ends, expected: bool(expected[-1] >= last))
        times: Times = np.interp(sums, expected, ends)
        return times

    def times(self, duration: float, rng: np.random.Generator) -> Times:
        """Every arrival time below ``duration`` seconds."""
        (phases,) = rng.spawn(1)
        ends, expected = self._phases(phases, lambda ends, expected: bool(ends[-1] >= duration))
        sums = _sums_up_to(float(np.interp(duration, ends, expected)), rng)
        times: Times = np.interp(sums[sums <= expected[-1]], expected, ends)
        return times[times < duration]

    def _phases(self, stream: np.random.Generator, enough: Callable[[Times, Times], bool]) -> tuple[Times, Times]:
        """Phases until they are enough: the times of their ends, and the arrivals expected up to each of these."""
        lengths = np.empty(0)
        while True:
            more = max(16, len(lengths))
            means = np.resize([self.busy, self.quiet], more)
            lengths = np.concatenate([lengths, stream.standard_exponential(more) * means])
            rates = np.resize([self.busy_rate, self.quiet_rate * self.busy_rate], len(lengths))
            ends: Times = np.concatenate([[0.0], np.cumsum(lengths)])
            expected: Times = np.concatenate([[0.0], np.cumsum(lengths * rates)])
            if enough(ends, expected):
                return ends, expected
            if len(lengths) > _MOST_PHASES:
                raise ValueError(f"more than {_MOST_PHASES:,} bursts; lengthen busy and quiet")


def _sums_up_to(expected: float, rng: np.random.Generator) -> Times:
    """Sums of unit exponential gaps, past ``expected``."""
    if not 0 <= expected <= MOST_ARRIVALS:
        raise ValueError(f"{expected:g} arrivals are expected; they must be 0 to {MOST_ARRIVALS}")
    return sums_past(expected, rng.standard_exponential)


def _require_seconds(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} is {value!r}; it must be finite and > 0 seconds")
