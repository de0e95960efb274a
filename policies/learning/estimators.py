"""Duration estimators: how long will this pause still last? They learn only from pauses that have ended, in order.

A tool that has not been seen often enough is expected to behave as all tools together have.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from policies.estimation import DurationEstimator, tool_of
from policies.leap_hints import EVERY_ITERATION, NEVER
from policies.learning.empirical import ALL_TOOLS, EmpiricalDistribution, PerTool
from policies.views import Paused

_ROUNDING = 1e-12
"""An upper bound of the rounding error of sums of times, as a share."""


# ---- without learning


class Elapsed(DurationEstimator):
    """As long again as it has lasted: the estimate of InferCept (arXiv 2402.01869, section 4.4), t_now - t_call.

    Keeping a context until the elapsed time has cost as much as a recompute is the break-even rule of renting skis: at
    most twice the waste of the better of the two fixed choices.
    """

    def remaining(self, paused: Paused, now: float) -> float:
        return now - paused.paused_at

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        return (paused.paused_at + seconds) * (1 - _ROUNDING)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return until - paused.paused_at

    def unsettled(self, ended: Paused) -> bool:
        return False

    def remaining_of(self, paused: Sequence[Paused], now: float) -> Sequence[float]:
        return [now - one.paused_at for one in paused]

    def one_exceeds_at(self, paused: Sequence[Paused], seconds: Sequence[float], now: float) -> float:
        ends = [one.paused_at + most for one, most in zip(paused, seconds, strict=True)]
        return min(ends, default=NEVER) * (1 - _ROUNDING)


# ---- one number a tool


class ToolMean(DurationEstimator):
    """The mean of the tool's past pauses, less what has elapsed; the mean over all tools for a new tool.

    Args:
        default: seconds expected before any pause has ended.
    """

    def __init__(self, default: float = 0.0) -> None:
        _require_default(default)
        self.default = default
        self._sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def pause_ended(self, paused: Paused, duration: float) -> None:
        for name in (tool_of(paused), ALL_TOOLS):
            total, count = self._sums[name]
            self._sums[name] = total + duration, count + 1

    def remaining(self, paused: Paused, now: float) -> float:
        total, count = self._sums.get(tool_of(paused)) or self._sums.get(ALL_TOOLS) or (self.default, 1)
        return max(0.0, total / count - (now - paused.paused_at))

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        return _only_shrinks(self, paused, seconds, now)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return self.remaining(paused, now) if tool_of(paused) in self._sums else math.inf


class ToolQuantile(DurationEstimator):
    """A quantile of the tool's past pauses, less what has elapsed.

    Args:
        share: which quantile, above 0 and at most 1; 0.9 is exceeded by one pause in ten.
        default: seconds expected before any pause has ended.
        window: pauses remembered of each tool.
    """

    def __init__(self, share: float = 0.9, default: float = 0.0, window: int = 1000) -> None:
        if not 0 < share <= 1:
            raise ValueError("share is a quantile, above 0 and at most 1")
        _require_default(default)
        self.share = share
        self.default = default
        self._seen = PerTool(window)

    def pause_ended(self, paused: Paused, duration: float) -> None:
        self._seen.add(tool_of(paused), duration)

    def remaining(self, paused: Paused, now: float) -> float:
        durations = self._seen.of(tool_of(paused), enough=1)
        whole = self.default if durations is None else durations.quantile(self.share)
        return max(0.0, whole - (now - paused.paused_at))

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return self.remaining(paused, now) if self._seen.own(tool_of(paused), enough=1) is not None else math.inf


class Ewma(DurationEstimator):
    """An exponentially weighted moving average of the tool's past pauses, less what has elapsed.

    m <- weight * d + (1 - weight) * m for a pause of d seconds; a tool's first pause sets m. TokenCake (arXiv
    2510.18586) expects function calls so.

    Args:
        weight: of the newest pause, above 0 and at most 1.
        default: seconds expected before any pause has ended.
    """

    def __init__(self, weight: float = 0.2, default: float = 0.0) -> None:
        if not 0 < weight <= 1:
            raise ValueError("weight is above 0 and at most 1")
        _require_default(default)
        self.weight = weight
        self.default = default
        self._means: dict[str, float] = {}

    def pause_ended(self, paused: Paused, duration: float) -> None:
        for name in (tool_of(paused), ALL_TOOLS):
            mean = self._means.get(name, duration)
            self._means[name] = mean + self.weight * (duration - mean)

    def remaining(self, paused: Paused, now: float) -> float:
        mean = self._means.get(tool_of(paused), self._means.get(ALL_TOOLS, self.default))
        return max(0.0, mean - (now - paused.paused_at))

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return self.remaining(paused, now) if tool_of(paused) in self._means else math.inf


def _require_default(default: float) -> None:
    if not 0 <= default < math.inf:
        raise ValueError("default is in seconds, finite and >= 0")


# ---- the whole distribution


class Empirical(DurationEstimator):
    """Mean residual life: the mean of the tool's longer pauses, less what has elapsed.

        E[D - e | D > e], e the time that the pause has lasted

    so that a pause which has outlasted most is expected to be one of the long ones. Until ``enough`` pauses of the tool
    have ended, those of all tools are taken; until ``enough`` of all have, and for a pause that has outlasted all that
    were seen, as long again as it has lasted (InferCept's estimate).

    Args:
        enough: pauses from which a distribution is trusted.
        window: pauses remembered of each tool.
    """

    def __init__(self, enough: int = 5, window: int = 1000) -> None:
        if not 1 <= enough <= window:
            raise ValueError("enough is at least 1 and at most the window")
        self.enough = enough
        self._seen = PerTool(window)
        self._under_way: dict[str, tuple[float, EmpiricalDistribution]] = {}  # begin of a pause, its tool's durations

    def pause_ended(self, paused: Paused, duration: float) -> None:
        self._under_way.pop(paused.id, None)
        self._seen.add(tool_of(paused), duration)

    def remaining(self, paused: Paused, now: float) -> float:
        elapsed = now - paused.paused_at
        durations = self._own(paused)
        if durations is None:
            durations = self._seen.of_all(self.enough)
        longer = durations.mean_beyond(elapsed) if durations is not None else None
        return elapsed if longer is None else longer - elapsed

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        """The mean beyond an elapsed time only grows with that time. No bound while the tool is new: its expectation
        then changes with any pause that ends."""
        durations, begun = self._own(paused), paused.paused_at
        if durations is None:
            return math.inf
        most = durations.beyond_at_most(until - begun)
        return most - (now - begun) if most is not None else max(durations.longest - (now - begun), until - begun)

    def unsettled(self, ended: Paused) -> bool:
        own = self._seen.own(tool_of(ended), self.enough)
        return own is None or own.drifted()

    def _own(self, paused: Paused) -> EmpiricalDistribution | None:
        """Durations of the pause's own tool, once there are enough."""
        known = self._under_way.get(paused.id)
        if known is not None and known[0] == paused.paused_at:
            return known[1]
        own = self._seen.own(tool_of(paused), self.enough)
        if own is not None:
            self._under_way[paused.id] = paused.paused_at, own
        return own


# ---- oracles


class Oracle(DurationEstimator):
    """The true rest of the pause. No server has it; results that used it say so."""

    needs_truth = True

    def remaining(self, paused: Paused, now: float) -> float:
        assert self.truth is not None, "the engine hands an oracle the truth before the run"
        return max(0.0, self.truth(paused) - now)

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        return _only_shrinks(self, paused, seconds, now)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return self.remaining(paused, now)

    def unsettled(self, ended: Paused) -> bool:
        return False


class NoisyOracle(DurationEstimator):
    """The truth with an error: a pause of d seconds is taken to last d + N(0, noise * d), at least 0.

    LAMPS (arXiv 2410.18248) tests its predictions so. The second parameter is the standard deviation. The error of a
    pause follows from the seed, the session's id and the number of the call, so every question about it gets one error,
    in any order and at any time.

    Args:
        noise: p, the standard deviation as a share of the true duration; 0 is the oracle.
        seed: of the errors.
    """

    needs_truth = True

    def __init__(self, noise: float, seed: int = 0) -> None:
        if not 0 <= noise < math.inf:
            raise ValueError("noise is a share of the true duration, finite and >= 0")
        self.noise = noise
        self.seed = seed

    def remaining(self, paused: Paused, now: float) -> float:
        assert self.truth is not None, "the engine hands an oracle the truth before the run"
        duration = self.truth(paused) - paused.paused_at
        believed = misjudged(duration, self.noise, f"{self.seed}/{paused.id}/{paused.calls_done}")
        return max(0.0, believed - (now - paused.paused_at))

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        return _only_shrinks(self, paused, seconds, now)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return self.remaining(paused, now)

    def unsettled(self, ended: Paused) -> bool:
        return False


def _only_shrinks(estimator: DurationEstimator, paused: Paused, seconds: float, now: float) -> float:
    """``exceeds_at`` of an estimator whose ``remaining`` never grows while no pause ends."""
    return NEVER if estimator.remaining(paused, now) <= seconds else EVERY_ITERATION


def misjudged(truth: float, noise: float, name: str) -> float:
    """``truth`` + N(0, ``noise`` * ``truth``), at least 0; drawn once for each ``name``."""
    if not truth:
        return 0.0
    return max(0.0, truth + random.Random(name).gauss(0.0, noise * truth))
