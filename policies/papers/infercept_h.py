"""The other letters of InferCept's released code (WukLab/InferCept): H-S, H-D and H-B, and an earlier G."""

from __future__ import annotations

import math
from collections.abc import Iterable

from policies.basic.heuristic import Heuristic
from policies.contract import EVERY_ITERATION, NEVER, Change, EngineView, InterceptPolicy, Paused, Swap, Verdict
from policies.estimation import DurationEstimator
from policies.papers.infercept_v import InferCeptV


class InferCeptH(InferCeptV):
    """Letters H-S, H-D and H-B: thresholds at the pause, then letter V's rule for the contexts that they preserved.

    Args:
        estimator: the release uses the exact duration, so ``oracle`` is faithful.
        swap_above: seconds from which a context is swapped out at its pause, outside the rule's budget.
        discard_above: seconds from which a context is discarded at its pause.
    """

    def __init__(
        self, estimator: DurationEstimator, swap_above: float = math.inf, discard_above: float = math.inf
    ) -> None:
        super().__init__(estimator)
        self._at_pause = Heuristic(estimator, swap_above, discard_above)

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        return self._at_pause.on_pause(paused, view)


class GreedySwap(InterceptPolicy):
    """Letter G before the release: contexts that will still be away go to the host, longest first; none is discarded.

    In the release G has become letter V. Its rule took a context's first blocks; here the last ones leave, because a
    context is a resident prefix followed by what is on the host.

    Args:
        estimator: of the rest of a pause; the code uses the exact duration.
        least: seconds that a pause must still last for its context to leave (94 ms).
        tokens: copied in an iteration at most (half of 999), in whole blocks.
    """

    def __init__(self, estimator: DurationEstimator, least: float = 0.094, tokens: int = 499) -> None:
        if not (least >= 0 and tokens >= 0):
            raise ValueError("least is in seconds and tokens a number, both >= 0")
        self.estimator = estimator
        self.least = least
        self.tokens = tokens

    def revise(self, view: EngineView) -> Iterable[Change]:
        budget = self.tokens // view.block_size
        for remaining, paused in self._away(view):
            held = -(-paused.resident_tokens // view.block_size)
            leaving = min(held, budget)
            if leaving == 0:
                return
            budget -= leaving
            yield paused, Swap(keep=(held - leaving) * view.block_size, reasons={"remaining_s": remaining})

    def evict(self, blocks: int, view: EngineView) -> Iterable[Change]:
        """Beyond the budget too, so that running sessions need not be preempted; the release has no such rule."""
        for remaining, paused in self._away(view):
            yield paused, Swap(reasons={"remaining_s": remaining, "blocks_needed": blocks})

    def review_at(self, view: EngineView) -> float:
        """Every iteration has a budget, as long as there is a context to decide about."""
        return EVERY_ITERATION if view.undecided else NEVER

    def _away(self, view: EngineView) -> list[tuple[float, Paused]]:
        assert self.estimator is not None
        rest = [(self.estimator.remaining(paused, view.now), paused) for paused in view.undecided]
        return sorted(((s, paused) for s, paused in rest if s >= self.least), key=lambda pair: -pair[0])
