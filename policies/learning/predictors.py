"""Call predictors: what will a call do, before it runs? Its length, the pause after it, and the answer's length."""

from __future__ import annotations

import math

from policies.estimation import CallPredictor, NextCall
from policies.learning.estimators import misjudged
from policies.views import Queued


class KindMean(CallPredictor):
    """The means of the calls of sessions of this kind that have ended, pause included; over all kinds for a new one.

    A call that nothing follows counts as a pause of 0 s.

    Args:
        output: tokens expected of a call before any has ended.
    """

    def __init__(self, output: float = 100.0) -> None:
        if not 0 < output < math.inf:
            raise ValueError("output is in tokens, finite and above 0")
        self._first = NextCall(output)
        self._sums: dict[str | None, tuple[int, float, float, float]] = {}

    def call_ended(self, ended: Queued, call: NextCall) -> None:
        for kind in (ended.kind, None):
            count, output, pause, returned = self._sums.get(kind, (0, 0.0, 0.0, 0.0))
            self._sums[kind] = count + 1, output + call.output, pause + call.pause, returned + call.returned

    def predict(self, queued: Queued) -> NextCall:
        sums = self._sums.get(queued.kind) or self._sums.get(None)
        if sums is None:
            return self._first
        count, output, pause, returned = sums
        return NextCall(output / count, pause / count, returned / count)


class CallOracle(CallPredictor):
    """The truth, or the truth with an error: each of the three numbers x becomes x + N(0, noise * x), at least 0.

    LAMPS (arXiv 2410.18248) tests its predictions so. The second parameter is the standard deviation. Every question
    about a call gets one error.

    Args:
        noise: p, the standard deviation as a share of the truth; 0 knows the future.
        seed: of the errors.
    """

    needs_truth = True

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        if not 0 <= noise < math.inf:
            raise ValueError("noise is a share of the truth, finite and >= 0")
        self.noise = noise
        self.seed = seed

    def predict(self, queued: Queued) -> NextCall:
        assert self.truth is not None, "the engine hands an oracle the truth before the run"
        call = self.truth(queued)
        if self.noise == 0:
            return call
        name = f"{self.seed}/{queued.id}/{queued.calls_done}"
        parts = (("output", call.output), ("pause", call.pause), ("returned", call.returned))
        return NextCall(*(misjudged(value, self.noise, f"{name}/{part}") for part, value in parts))
