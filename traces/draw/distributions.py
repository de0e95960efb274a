"""Distributions that lengths and times are drawn from, each by turning uniform numbers into values.

Drawing by the inverse of the cumulative distribution keeps workloads paired: the k-th uniform number gives the k-th
value whatever the distribution, so two generators that differ in one distribution differ in nothing else.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]

MOST_TOKENS = 10**9


class Cumulative(Protocol):
    """A distribution that values can be compared with."""

    def cdf(self, values: Values) -> Values:
        """The probability of a value at or below each of these."""


class Distribution(Cumulative, Protocol):
    """A distribution that values are drawn from."""

    def values(self, uniform: Values) -> Values:
        """The values at these cumulative probabilities (0 <= u < 1)."""


@dataclass(frozen=True, slots=True)
class Constant:
    """Always the same value."""

    value: float

    def values(self, uniform: Values) -> Values:
        return np.full(len(uniform), self.value)

    def cdf(self, values: Values) -> Values:
        return (np.asarray(values) >= self.value).astype(np.float64)


@dataclass(frozen=True)
class Scipy:
    """A distribution of ``scipy.stats`` by name, truncated to ``least`` <= x <= ``most``.

    Attributes:
        name: such as ``lognorm``, ``gamma``, ``weibull_min``, ``expon``, ``norm``, ``nbinom``.
        parameters: its shape parameters, ``loc`` and ``scale``, as scipy calls them.
        least: lower end of what may be drawn.
        most: upper end of what may be drawn.

    Raises:
        ValueError: no such distribution, a parameter that it does not have or that it lacks, one out of range, or
            nothing between ``least`` and ``most``.
    """

    name: str
    parameters: Mapping[str, float]
    least: float = 0.0
    most: float = math.inf

    def __post_init__(self) -> None:
        low, high = self._ends
        if not (math.isfinite(low) and math.isfinite(high) and high > low):
            raise ValueError(f"{self.name} has nothing to draw between {self.least:g} and {self.most:g}")

    @functools.cached_property
    def _frozen(self) -> Any:
        family = _family(self.name)
        _check_parameters(self.name, family, self.parameters)
        frozen = family(**self.parameters)
        if not math.isfinite(float(frozen.ppf(0.5))):
            given = ", ".join(f"{name}={value:g}" for name, value in self.parameters.items())
            raise ValueError(f"{self.name} does not exist for {given}; check the signs of its parameters")
        return frozen

    @functools.cached_property
    def _ends(self) -> tuple[float, float]:
        """Cumulative probabilities of the two ends; a discrete distribution may draw ``least`` itself."""
        before = math.ceil(self.least) - 1 if is_discrete(self.name) else self.least
        with np.errstate(all="ignore"):
            return float(self._frozen.cdf(before)), float(self._frozen.cdf(self.most))

    def values(self, uniform: Values) -> Values:
        low, high = self._ends
        with np.errstate(all="ignore"):
            drawn = np.asarray(self._frozen.ppf(low + uniform * (high - low)), dtype=np.float64)
        return np.clip(drawn, self.least, self.most)

    def cdf(self, values: Values) -> Values:
        low, high = self._ends
        with np.errstate(all="ignore"):
            inside = np.asarray(self._frozen.cdf(values), dtype=np.float64)
        return np.clip((inside - low) / (high - low), 0.0, 1.0)


@dataclass(frozen=True)
class WeightedValues:
    """Recorded values, each as often as its weight says."""

    recorded: tuple[float, ...]
    weights: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.recorded:
            raise ValueError("there are no values to draw from")
        if self.weights and len(self.weights) != len(self.recorded):
            raise ValueError(f"{len(self.recorded)} values but {len(self.weights)} weights; give one weight a value")
        if any(not math.isfinite(weight) or weight < 0 for weight in self.weights):
            raise ValueError("weights must be finite and >= 0")
        if self.weights and not any(self.weights):
            raise ValueError("all weights are 0; nothing could be drawn")

    @functools.cached_property
    def _table(self) -> tuple[Values, Values]:
        weights = np.array(self.weights or [1.0] * len(self.recorded))
        order = np.argsort(self.recorded, kind="stable")
        reached = np.cumsum(weights[order]) / weights.sum()
        return np.array(self.recorded, dtype=np.float64)[order], reached

    def values(self, uniform: Values) -> Values:
        recorded, reached = self._table
        index = np.searchsorted(reached, uniform, side="right")
        return recorded[np.minimum(index, len(recorded) - 1)]

    def cdf(self, values: Values) -> Values:
        recorded, reached = self._table
        index = np.searchsorted(recorded, values, side="right")
        return np.concatenate([[0.0], reached])[index]


@dataclass(frozen=True)
class Quantiles:
    """A curve through quantiles, the least value first and the greatest last.

    Attributes:
        knots: the quantiles.
        at: their probabilities, from 0 to 1; empty for evenly spaced ones.
    """

    knots: tuple[float, ...]
    at: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if len(self.knots) < 2:
            raise ValueError(f"{len(self.knots)} quantiles; a curve needs at least 2, the least and the greatest value")
        if any(b < a for a, b in itertools.pairwise(self.knots)):
            raise ValueError("quantiles must ascend")
        if self.at and len(self.at) != len(self.knots):
            raise ValueError(f"{len(self.knots)} quantiles but {len(self.at)} probabilities; give one probability each")
        if self.at and (self.at[0] != 0 or self.at[-1] != 1 or any(b <= a for a, b in itertools.pairwise(self.at))):
            raise ValueError("the quantiles' probabilities must ascend from 0 to 1")

    @functools.cached_property
    def _places(self) -> Values:
        return np.array(self.at) if self.at else np.linspace(0, 1, len(self.knots))

    def values(self, uniform: Values) -> Values:
        return np.interp(uniform, self._places, self.knots)

    def cdf(self, values: Values) -> Values:
        """Linear between two quantiles; where several are equal, it leaps to the last of them."""
        at, knots, places = np.asarray(values, dtype=np.float64), np.array(self.knots), self._places
        steps = len(knots) - 1
        below = np.searchsorted(knots, at, side="right") - 1
        inside = np.clip(below, 0, steps - 1)
        width = knots[inside + 1] - knots[inside]
        part = np.divide(at - knots[inside], width, out=np.zeros_like(at), where=width > 0)
        reached = np.where(below >= steps, 1.0, places[inside] + part * (places[inside + 1] - places[inside]))
        return np.where(below < 0, 0.0, reached)


@dataclass(frozen=True)
class WithZeros:
    """``share`` of all values are exactly 0; the others follow ``rest``."""

    share: float
    rest: Distribution

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise ValueError(f"the share of zeros is {self.share!r}; it must be >= 0 and < 1")

    def values(self, uniform: Values) -> Values:
        rest = self.rest.values(np.clip((uniform - self.share) / (1 - self.share), 0.0, 1.0))
        return np.where(uniform < self.share, 0.0, rest)

    def cdf(self, values: Values) -> Values:
        at = np.asarray(values)
        return np.where(at < 0, 0.0, self.share + (1 - self.share) * self.rest.cdf(at))


def whole_numbers(values: Values, least: int, name: str, most: int = MOST_TOKENS) -> npt.NDArray[np.int64]:
    """Nearest whole numbers, at least ``least``; raises `ValueError`, which names the quantity, above ``most``."""
    if len(values) and not values.max() <= most:
        raise ValueError(f"{name} of {values.max():g} was drawn; the distribution needs a max (at most {most:,})")
    return np.maximum(np.rint(values).astype(np.int64), least)


def is_discrete(name: str) -> bool:
    """Whether a distribution of scipy has whole numbers only; raises `ValueError` when there is none of that name."""
    from scipy import stats

    return isinstance(_family(name), stats.rv_discrete)


def _family(name: str) -> Any:
    from scipy import stats

    family = getattr(stats, name, None)
    if not isinstance(family, stats.rv_continuous | stats.rv_discrete):
        import difflib

        known = [n for n in dir(stats) if isinstance(getattr(stats, n), stats.rv_continuous | stats.rv_discrete)]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "; for example lognorm, gamma, weibull_min, expon"
        raise ValueError(f"scipy.stats has no distribution {name!r}{hint}")
    return family


def _check_parameters(name: str, family: Any, parameters: Mapping[str, float]) -> None:
    from scipy import stats

    shapes = [shape.strip() for shape in family.shapes.split(",")] if family.shapes else []
    known = [*shapes, "loc", *([] if isinstance(family, stats.rv_discrete) else ["scale"])]
    for parameter in parameters:
        if parameter not in known:
            raise ValueError(f"{name} has no parameter {parameter!r}; it has {', '.join(known)}")
    missing = [shape for shape in shapes if shape not in parameters]
    if missing:
        raise ValueError(f"{name} lacks its parameter {missing[0]!r}; it has {', '.join(known)}")
