"""How long will this pause still last? Estimators learn only from pauses that have ended, in order."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Sequence

from policies.contract import EVERY_ITERATION, NEVER, Paused
from policies.estimation import DurationEstimator, tool_of

_ROUNDING = 1e-12
"""More than what sums of times are off by, as a share."""


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


class ToolMean(DurationEstimator):
    """The mean of the tool's past pauses, less what has elapsed; the mean over all tools for a new tool.

    Args:
        default: seconds expected before any pause has ended.
    """

    def __init__(self, default: float = 0.0) -> None:
        if not 0 <= default < math.inf:
            raise ValueError("default is in seconds, finite and >= 0")
        self.default = default
        self._sums: dict[str, tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def pause_ended(self, paused: Paused, duration: float) -> None:
        for name in (tool_of(paused), ""):
            total, count = self._sums[name]
            self._sums[name] = total + duration, count + 1

    def remaining(self, paused: Paused, now: float) -> float:
        total, count = self._sums.get(tool_of(paused)) or self._sums.get("") or (self.default, 1)
        return max(0.0, total / count - (now - paused.paused_at))

    def exceeds_at(self, paused: Paused, seconds: float, now: float) -> float:
        return _only_shrinks(self, paused, seconds, now)

    def at_most(self, paused: Paused, now: float, until: float) -> float:
        return self.remaining(paused, now) if tool_of(paused) in self._sums else math.inf


class Oracle(DurationEstimator):
    """The truth. No server has it; results that used it say so."""

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
    """The truth, misjudged: a pause of d seconds is taken to last d + N(0, noise * d), at least 0.

    So LAMPS (arXiv 2410.18248) tests its predictions. The second parameter is the standard deviation. Each pause is
    misjudged once and the same way whoever asks, how often and when: the error follows from the seed, the session's id
    and the number of the call.

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
    """``truth`` + N(0, ``noise`` * ``truth``), at least 0; the same for the same ``name``."""
    if not truth:
        return 0.0
    return max(0.0, truth + random.Random(name).gauss(0.0, noise * truth))
