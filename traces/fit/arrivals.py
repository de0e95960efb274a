"""An arrival process fitted to recorded arrivals: Poisson, gamma, Weibull, bursts, or a rate that rises and falls.

All have the recorded rate. The one with the least AIC is taken among those whose gaps vary about as recorded, for how
bursty arrivals are matters more to a server than the shape of short gaps. Bursts are those with empty quiet phases;
their gaps are hyperexponential with two phases, converted exactly (Kuczura, Bell System Technical Journal 52(3), 1973).
They are fitted twice: by expectation-maximisation, and by the division into short and long gaps that gives the recorded
variation. A rate that rises and falls is a sine with a whole number of periods in the trace, by the Fourier coefficient
of the arrivals; it is tried where that is more than chance gives. Its likelihood is that of a Poisson process with this
rate, which for a constant rate is that of the gaps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from traces.draw.arrivals import LEAST_BURSTINESS, LEAST_WEIBULL_SHAPE
from traces.draw.distributions import Cumulative, Scipy, Values
from traces.draw.modulated_arrivals import Diurnal
from traces.fit.distributions import ks_distance, rounded
from traces.portrait import tick

STEPS = 300
MOST_GAPS = 50_000
MOST_CV_OFF = 1.25
REGULAR = 0.01
MOST_PERIODS = 14
LEAST_SWING, MOST_SWING = 0.1, 0.99


@dataclass(frozen=True, slots=True)
class ArrivalCandidate:
    """A process with its best parameters.

    Attributes:
        name: as in an experiment file.
        parameters: all but the rate.
        aic: on the gaps; less is better.
        ks: greatest distance between the cumulative probabilities of its gaps and of those recorded.
        gap_cv: coefficient of variation of its gaps.
        gaps: its gaps at one arrival a second.
    """

    name: str
    parameters: dict[str, float]
    aic: float
    ks: float
    gap_cv: float
    gaps: Cumulative


@dataclass(frozen=True, slots=True)
class FittedArrivals:
    """The processes that were fitted to recorded arrivals.

    Attributes:
        rate: sessions a second.
        gap_cv: of the recorded gaps, those on a grid spread inside their ticks.
        candidates: the best first.
        tick_s: step of the grid on which the recorded arrivals lie, if they do.
        gaps: the recorded ones that were fitted, ascending.
    """

    rate: float
    gap_cv: float
    candidates: tuple[ArrivalCandidate, ...]
    tick_s: float | None
    gaps: Values

    @property
    def written(self) -> dict[str, object]:
        """The best candidate as an experiment file writes it."""
        best = self.candidates[0]
        return {best.name: {"rate": rounded(self.rate), **best.parameters}}


@dataclass(frozen=True)
class Hyperexponential:
    """Exponential gaps of one of two rates: ``share`` of them of the first. `traces.draw.modulated_arrivals.Bursts`
    draws them."""

    share: float
    rates: tuple[float, float]

    def cdf(self, values: Values) -> Values:
        fast, slow = (1 - np.exp(-rate * np.maximum(values, 0.0)) for rate in self.rates)
        reached: Values = self.share * fast + (1 - self.share) * slow
        return reached


@dataclass(frozen=True)
class Swinging:
    """Gaps of a Poisson process whose rate follows a slow sine around 1, seen from its arrivals."""

    swing: float

    def cdf(self, values: Values) -> Values:
        rates = 1 + self.swing * np.cos((np.arange(64) + 0.5) * (2 * math.pi / 64))
        reached: Values = sum(rate * -np.expm1(-rate * np.maximum(values, 0.0)) for rate in rates) / rates.sum()
        return reached


def fit_arrivals(times: Values) -> FittedArrivals | None:
    """Fit a process to ascending arrival times in seconds; None for fewer than ten different ones."""
    if len(np.unique(times)) < 10:
        return None
    step = tick(np.diff(times))
    if step is not None:
        times = np.sort(times + np.random.default_rng(0).uniform(0, step, len(times)))
    gaps = np.diff(times)
    rate, cv = 1 / float(gaps.mean()), max(float(gaps.std() / gaps.mean()), 1e-6)
    above = np.sort(gaps[gaps > 0])
    unit = above[:: max(1, len(above) // MOST_GAPS)] / gaps.mean()
    tried = [_poisson(unit), _gamma(unit), _weibull(unit)] if cv > REGULAR else [_regular(unit)]
    if cv > 1:
        tried += [*_bursts(unit, rate, _two_phases(unit)), *_bursts(unit, rate, _divided(unit, cv))]
    tried += _swinging(times, unit)
    tried.sort(key=lambda one: (abs(math.log(one.gap_cv / cv)) > math.log(MOST_CV_OFF), one.aic))
    return FittedArrivals(rate, cv, tuple(tried), step, above)


def _poisson(unit: Values) -> ArrivalCandidate:
    return _candidate("poisson", {}, unit, Scipy("expon", {}), 1, 1.0)


def _gamma(unit: Values) -> ArrivalCandidate:
    from scipy import stats

    shape = max(rounded(stats.gamma.fit(unit, floc=0)[0]), LEAST_BURSTINESS)
    gaps = Scipy("gamma", {"a": shape, "scale": 1 / shape})
    return _candidate("gamma", {"burstiness": shape}, unit, gaps, 2, shape**-0.5)


def _regular(unit: Values) -> ArrivalCandidate:
    """Gaps that are all alike, to within `REGULAR`: maximum likelihood has no end there."""
    shape = REGULAR**-2
    gaps = Scipy("gamma", {"a": shape, "scale": 1 / shape})
    return _candidate("gamma", {"burstiness": shape}, unit, gaps, 2, REGULAR)


def _weibull(unit: Values) -> ArrivalCandidate:
    from scipy import stats

    shape = max(rounded(stats.weibull_min.fit(unit, floc=0)[0]), LEAST_WEIBULL_SHAPE)
    mean, square = math.gamma(1 + 1 / shape), math.gamma(1 + 2 / shape)
    gaps = Scipy("weibull_min", {"c": shape, "scale": 1 / mean})
    return _candidate("weibull", {"shape": shape}, unit, gaps, 2, math.sqrt(square / mean**2 - 1))


def _swinging(times: Values, unit: Values) -> list[ArrivalCandidate]:
    """The sine that fits best; empty where its swing is no more than chance gives, or too little to matter."""
    since, span = times[1:] - times[0], float(times[-1] - times[0])
    waves = [np.exp(2j * math.pi * periods / span * since).mean() for periods in range(1, MOST_PERIODS + 1)]
    periods = 1 + int(np.argmax(np.abs(waves)))
    wave, by_chance = 2 * waves[periods - 1], 2 * math.sqrt(math.log(len(since)) / len(since))
    swing, period = min(rounded(abs(wave)), MOST_SWING), rounded(span / periods)
    if swing < max(LEAST_SWING, by_chance):
        return []
    peak = rounded(float(np.angle(wave)) / (2 * math.pi) % 1 * period) or period
    sine = Diurnal(1.0, swing, period, peak)
    rates = 1 + swing * np.cos(2 * math.pi / period * (since - peak))
    expected = float(sine.expected(np.array([span]))[0]) / span
    likelihood = (float(np.log(rates).mean()) - expected) * len(unit)
    gaps = Swinging(swing)
    cv = math.sqrt(2 / math.sqrt(1 - swing**2) - 1)
    ks = ks_distance(unit, gaps, whole=False)
    return [
        ArrivalCandidate("diurnal", {"swing": swing, "period": period, "peak": peak}, 6 - 2 * likelihood, ks, cv, gaps)
    ]


def _bursts(unit: Values, rate: float, phases: tuple[float, float, float]) -> list[ArrivalCandidate]:
    """Bursts whose gaps have these phases; empty where the phases are one."""
    share, fast, slow = phases
    busy_rate = share * fast + (1 - share) * slow
    begins = fast * slow / busy_rate
    ends = fast + slow - busy_rate - begins
    if not (begins > 1e-9 and ends > 1e-9):
        return []
    parameters = {"busy": rounded(1 / ends / rate), "quiet": rounded(1 / begins / rate)}
    return [_candidate("bursts", parameters, unit, Hyperexponential(share, (fast, slow)), 3, _variation(phases))]


def _variation(phases: tuple[float, float, float]) -> float:
    """Deviation over mean of gaps with two phases."""
    share, fast, slow = phases
    mean = share / fast + (1 - share) / slow
    return math.sqrt(2 * (share / fast**2 + (1 - share) / slow**2) / mean**2 - 1)


def _divided(unit: Values, cv: float) -> tuple[float, float, float]:
    """The phases of ascending gaps, divided where their variation comes closest to ``cv``."""
    sums, whole, count = np.cumsum(unit), float(unit.sum()), len(unit)
    short = np.unique(np.linspace(count // 2, count - 2, 500).astype(int))
    tried = [(n / count, n / float(sums[n - 1]), (count - n) / (whole - float(sums[n - 1]))) for n in short.tolist()]
    return min(tried, key=lambda phases: abs(_variation(phases) - cv))


def _two_phases(unit: Values) -> tuple[float, float, float]:
    """Share of the faster phase, and the two rates: expectation-maximisation from the halves of the gaps."""
    middle = len(unit) // 2
    share, fast, slow = 0.5, 1 / unit[:middle].mean(), 1 / unit[middle:].mean()
    for _ in range(STEPS):
        quick, late = share * fast * np.exp(-fast * unit), (1 - share) * slow * np.exp(-slow * unit)
        chance = quick / np.maximum(quick + late, 1e-300)
        share = float(chance.mean())
        fast = float(chance.sum() / (chance * unit).sum())
        slow = float((1 - chance).sum() / ((1 - chance) * unit).sum())
    return share, fast, slow


def _candidate(
    name: str, parameters: dict[str, float], unit: Values, gaps: Scipy | Hyperexponential, free: int, cv: float
) -> ArrivalCandidate:
    with np.errstate(all="ignore"):
        likelihood = float(np.log(np.maximum(_density(gaps, unit), 1e-300)).sum())
    return ArrivalCandidate(name, parameters, 2 * free - 2 * likelihood, ks_distance(unit, gaps, whole=False), cv, gaps)


def _density(gaps: Scipy | Hyperexponential, unit: Values) -> Values:
    if isinstance(gaps, Hyperexponential):
        fast, slow = (rate * np.exp(-rate * unit) for rate in gaps.rates)
        return gaps.share * fast + (1 - gaps.share) * slow
    from scipy import stats

    density: Values = getattr(stats, gaps.name).pdf(unit, **gaps.parameters)
    return density
