"""Estimators that learn more of a tool than its mean: a quantile, a moving average, the whole distribution.

All learn only from pauses that have ended, in the order in which they ended. A tool that was not seen often enough is
expected to behave as all tools together have.
"""

from __future__ import annotations

import math

from policies.contract import Paused
from policies.estimation import DurationEstimator, tool_of
from policies.learning.empirical import ALL_TOOLS, PerTool, Samples


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
        samples = self._seen.of(tool_of(paused), enough=1)
        whole = self.default if samples is None else samples.quantile(self.share)
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
        self._under_way: dict[str, tuple[float, Samples]] = {}  # when a session's pause began, and what it is like

    def pause_ended(self, paused: Paused, duration: float) -> None:
        self._under_way.pop(paused.id, None)
        self._seen.add(tool_of(paused), duration)

    def remaining(self, paused: Paused, now: float) -> float:
        elapsed = now - paused.paused_at
        samples = self._own(paused)
        if samples is None:
            samples = self._seen.of_all(self.enough)
        longer = samples.mean_beyond(elapsed) if samples is not None else None
        return elapsed if longer is None else longer - elapsed

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        """The mean beyond an elapsed time can only be larger at a longer one. Unknown while the tool is: what is
        expected then changes with any pause that ends."""
        samples, begun = self._own(paused), paused.paused_at
        if samples is None:
            return math.inf
        most = samples.beyond_at_most(until - begun)
        return most - (now - begun) if most is not None else max(samples.longest - (now - begun), until - begun)

    def unsettled(self, ended: Paused) -> bool:
        own = self._seen.own(tool_of(ended), self.enough)
        return own is None or own.drifted()

    def _own(self, paused: Paused) -> Samples | None:
        """Pauses of this one's tool, once there are enough."""
        known = self._under_way.get(paused.id)
        if known is not None and known[0] == paused.paused_at:
            return known[1]
        own = self._seen.own(tool_of(paused), self.enough)
        if own is not None:
            self._under_way[paused.id] = paused.paused_at, own
        return own


def _require_default(default: float) -> None:
    if not 0 <= default < math.inf:
        raise ValueError("default is in seconds, finite and >= 0")
