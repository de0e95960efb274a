"""Thresholds on the expected length of a pause (letters H-S, H-D and H-B of InferCept's released code)."""

from __future__ import annotations

import math

from policies.contract import Discard, EngineView, InterceptPolicy, Paused, Preserve, Swap, Verdict
from policies.estimation import DurationEstimator


class Heuristic(InterceptPolicy):
    """Preserve short pauses, swap longer ones, discard the longest; decided once, at the pause.

    The released code compares the known duration of the call; here it is what the estimator expects.

    Args:
        estimator: expects the pause's duration.
        swap_above: seconds from which a context is swapped out; infinite never swaps.
        discard_above: seconds from which a context is discarded; infinite never discards.
    """

    def __init__(
        self, estimator: DurationEstimator, swap_above: float = math.inf, discard_above: float = math.inf
    ) -> None:
        if not (swap_above >= 0 and discard_above >= 0):
            raise ValueError("swap_above and discard_above are seconds, >= 0")
        self.estimator = estimator
        self.swap_above = swap_above
        self.discard_above = discard_above

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        assert self.estimator is not None
        expected = self.estimator.remaining(paused, view.now)
        reasons = {"expected_s": expected}
        if expected >= self.discard_above:
            return Discard(reasons=reasons)
        if expected >= self.swap_above:
            return Swap(reasons=reasons)
        return Preserve(reasons=reasons)
