"""Distributions fitted to values: the candidate of scipy with the least AIC, and how far each lies off.

All candidates are fitted by maximum likelihood with their lower end at 0. Where even the best lies far off, in the
distance of Kolmogorov and Smirnov or in its mean, a curve through quantiles stands for the values instead; where there
are only a few different values, these stand for themselves.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from traces.draw.distributions import (
    Constant,
    Cumulative,
    Distribution,
    Quantiles,
    Scipy,
    Values,
    WeightedValues,
    WithZeros,
)

CANDIDATES = ("expon", "gamma", "lognorm", "weibull_min", "fisk", "lomax")
MOST_FITTED = 20_000
FEW_DIFFERENT = 12
FAR_OFF = 0.05
MOST_OFF = 0.15
LEAST_BESIDE_A_KNOT = 5
TAIL = (0.99, 0.995, 0.998, 0.999, 0.9995, 0.9998)


@dataclass(frozen=True, slots=True)
class DistributionCandidate:
    """A distribution of scipy with its best parameters.

    Attributes:
        name: in ``scipy.stats``.
        parameters: shapes and scale, rounded to four digits.
        aic: Akaike's information criterion on the values that are not 0; less is better.
        ks: greatest distance between the cumulative probabilities of the values and of the distribution.
    """

    name: str
    parameters: dict[str, float]
    aic: float
    ks: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """The distribution that stands for some values.

    Attributes:
        distribution: to draw from.
        written: the distribution as a generator file writes it.
        ks: its distance from the values.
        candidates: what was tried, the least AIC first; empty where nothing had to be.
        count: how many values there were.
    """

    distribution: Distribution
    written: float | dict[str, object]
    ks: float
    candidates: tuple[DistributionCandidate, ...]
    count: int

    @property
    def name(self) -> str:
        """Its name in a table: ``lognorm``, ``41 quantiles``, ``4 values``, ``constant``."""
        if isinstance(self.written, float):
            return "constant"
        if "dist" in self.written:
            return str(self.written["dist"])
        sort = "quantiles" if "quantiles" in self.written else "values"
        points = self.written[sort]
        assert isinstance(points, list)
        return f"{len(points)} {sort}"


def fit_distribution(
    values: Values, whole: bool = False, points: int = 41, candidates: Sequence[str] = CANDIDATES
) -> Fitted:
    """Find the distribution that stands for these values, all >= 0.

    Args:
        values: at least one.
        whole: whether they are counts; a distribution that stands for them is rounded when it is drawn from.
        points: evenly spaced quantiles of a curve that stands for them where no candidate fits (there are fewer
            for less than five values a quantile, and some more in the tail); 0 for no such curve.
        candidates: names in ``scipy.stats``, continuous ones.
    """
    values = np.sort(np.asarray(values, dtype=np.float64))
    different, counts = np.unique(values, return_counts=True)
    if len(different) == 1:
        return Fitted(Constant(float(values[0])), float(values[0]), 0.0, (), len(values))
    if len(different) <= FEW_DIFFERENT and len(values) >= 2 * len(different):
        return _as_they_are(different, counts.astype(np.float64))
    zeros = float((values == 0).mean())
    above = values[values > 0]
    tried = tuple(sorted((_candidate(name, above, whole) for name in candidates), key=lambda one: one.aic))
    fitted = _as_candidate(tried, values, zeros, whole)
    points = min(points, len(values) // LEAST_BESIDE_A_KNOT)
    return _as_curve(values, whole, points, tried) if points >= 5 and _is_far_off(fitted, values) else fitted


def ks_distance(values: Values, distribution: Cumulative, whole: bool) -> float:
    """Greatest distance between the empirical cumulative probabilities of ``values`` and those of ``distribution``.

    Counts are compared at each count, with the probability of being rounded to it or below.
    """
    different, counts = np.unique(values, return_counts=True)
    reached = np.cumsum(counts) / len(values)
    if whole:
        return float(np.abs(distribution.cdf(different + 0.5) - reached).max())
    model = distribution.cdf(different)
    below = distribution.cdf(np.nextafter(different, -math.inf))
    before = np.concatenate([[0.0], reached[:-1]])
    return float(max(np.abs(model - reached).max(), np.abs(below - before).max()))


def likeness(groups: Sequence[Values]) -> float:
    """How alike the values of one group are: the intraclass correlation of their normal scores, 0 to 0.95.

    One-way analysis of variance over groups of at least two values; 0 where there is no sign of likeness.
    """
    from scipy.stats import norm, rankdata

    groups = [group for group in groups if len(group) >= 2]
    if len(groups) < 5:
        return 0.0
    sizes = np.array([len(group) for group in groups])
    everything = np.concatenate(groups)
    scores = norm.ppf((rankdata(everything) - 0.5) / len(everything))
    parts = np.split(scores, np.cumsum(sizes)[:-1])
    means = np.array([part.mean() for part in parts])
    within = sum(float(((part - mean) ** 2).sum()) for part, mean in zip(parts, means, strict=True))
    between = float((sizes * (means - scores.mean()) ** 2).sum())
    inside = within / (len(scores) - len(groups))
    typical = (len(scores) - (sizes**2).sum() / len(scores)) / (len(groups) - 1)
    outside = (between / (len(groups) - 1) - inside) / typical
    share = outside / (outside + inside) if outside + inside > 0 else 0.0
    return float(np.clip(round(share, 2), 0.0, 0.95))


def rounded(value: float) -> float:
    """Four significant digits."""
    return float(f"{value:.4g}")


def _candidate(name: str, values: Values, whole: bool) -> DistributionCandidate:
    from scipy import stats

    family = getattr(stats, name)
    few = values[:: max(1, len(values) // MOST_FITTED)]
    scale = float(np.median(few))
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        *shapes, _, width = _maximum_likelihood(name, family, few / scale)
        names = family.shapes.split(", ") if family.shapes else []
        parameters = {key: rounded(float(value)) for key, value in zip(names, shapes, strict=True)}
        parameters["scale"] = rounded(float(width) * scale)
        likelihood = float(np.sum(family.logpdf(values, **parameters)))
        aic = 2 * len(parameters) - 2 * likelihood if math.isfinite(likelihood) else math.inf
        try:
            distribution = Scipy(name, parameters, least=0.5 if whole else 0.0)
        except ValueError:
            return DistributionCandidate(name, parameters, math.inf, 1.0)
        return DistributionCandidate(name, parameters, aic, ks_distance(values, distribution, whole))


def _maximum_likelihood(name: str, family: object, values: Values) -> tuple[float, ...]:
    """Shapes, loc and scale; in closed form where there is one."""
    from scipy import stats

    logs = np.log(values)
    if name == "expon":
        return (0.0, float(values.mean()))
    if name == "lognorm":
        return (max(float(logs.std()), 1e-3), 0.0, float(np.exp(logs.mean())))
    if name == "lomax":
        # Its likelihood is flat towards an exponential; the exceedances of scipy's generalised Pareto end there too.
        shape, _, scale = stats.genpareto.fit(values, floc=0)
        return (1 / max(shape, 1e-2), 0.0, scale / max(shape, 1e-2))
    fitted: tuple[float, ...] = family.fit(values, floc=0)  # type: ignore[attr-defined]
    return fitted


def mean_of(distribution: Distribution) -> float:
    """The mean of a distribution, from 20,000 evenly spaced quantiles."""
    return float(distribution.values((np.arange(20_000) + 0.5) / 20_000).mean())


def _is_far_off(fitted: Fitted, values: Values) -> bool:
    """Further off than `FAR_OFF`, and than chance alone would take it."""
    chance = 1 / math.sqrt(len(values))
    if fitted.ks > max(FAR_OFF, 1.36 * chance):
        return True
    off = abs(mean_of(fitted.distribution) / values.mean() - 1)
    by_chance = 2 * chance * values.std() / values.mean()
    return bool(off > min(max(FAR_OFF, by_chance), MOST_OFF))


def _as_they_are(different: Values, counts: Values) -> Fitted:
    weights = [rounded(float(count)) for count in counts / counts.sum()]
    distribution = WeightedValues(tuple(different.tolist()), tuple(weights))
    written: dict[str, object] = {"values": [_plain(value) for value in different], "weights": weights}
    return Fitted(distribution, written, 0.0, (), int(counts.sum()))


def _as_curve(values: Values, whole: bool, points: int, tried: tuple[DistributionCandidate, ...]) -> Fitted:
    places, knots = _knots(values, points)
    knots = np.rint(knots) if whole else np.array([rounded(float(knot)) for knot in knots])
    distribution = Quantiles(tuple(knots.tolist()), tuple(places.tolist()))
    written: dict[str, object] = {"quantiles": [_plain(knot) for knot in knots]}
    if not np.array_equal(places, np.linspace(0, 1, len(places))):
        written["at"] = [float(place) for place in places]
    return Fitted(distribution, written, ks_distance(values, distribution, whole), tried, len(values))


def _knots(values: Values, points: int) -> tuple[Values, Values]:
    """Probabilities and quantiles of a curve, denser in the tail, that has the mean of the values between its knots.

    Between two quantiles a and b the curve is a straight line. Where the values there have another mean than its
    middle, one more knot is added, of value a (or b), after which (or up to which) the line runs.
    """
    tail = [place for place in TAIL if (1 - place) * len(values) >= LEAST_BESIDE_A_KNOT]
    places = np.unique(np.round([*np.linspace(0, 1, points), *tail], 6))
    knots = np.quantile(values, places)
    sums = np.interp(places * len(values), np.arange(len(values) + 1), np.concatenate([[0.0], np.cumsum(values)]))
    means = np.diff(sums) / len(values) / np.diff(places)
    allowed = 0.0005 * values.mean()
    found: list[tuple[float, float]] = [(0.0, float(knots[0]))]
    for index, mean in enumerate(means.tolist()):
        (before, here), (low, high) = places[index : index + 2].tolist(), knots[index : index + 2].tolist()
        width = here - before
        if high > low and abs(mean - (low + high) / 2) * width > allowed:
            share = 2 * min(max((mean - low) / (high - low), 0.002), 0.998)
            knot = (here - share * width, low) if share < 1 else (before + (2 - share) * width, high)
            found.append(knot)
        found.append((here, high))
    at, curve = np.array(found).T
    at = np.round(at, 6)
    last = np.concatenate([np.diff(at) > 0, [True]])
    return at[last], curve[last]


def _as_candidate(tried: tuple[DistributionCandidate, ...], values: Values, zeros: float, whole: bool) -> Fitted:
    best, most = tried[0], float(values[-1])
    distribution: Distribution = Scipy(best.name, best.parameters, 0.5 if whole else 0.0, most)
    written: dict[str, object] = {"dist": best.name, **best.parameters, "max": _plain(most)}
    if zeros:
        distribution = WithZeros(rounded(zeros), distribution)
        written["zeros"] = rounded(zeros)
    return Fitted(distribution, written, ks_distance(values, distribution, whole), tried, len(values))


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) and abs(value) < 1e15 else rounded(float(value))
