"""The steps of InferCept's breakdown (arXiv 2402.01869) between discarding everything and the whole rule."""

from __future__ import annotations

from collections.abc import Iterable

from policies.contract import EVERY_ITERATION, NEVER, Change, Discard, EngineView, InterceptPolicy, Paused, Swap
from policies.estimation import DurationEstimator


class SwapOrDiscard(InterceptPolicy):
    """Keep short pauses; swap the others while the iteration's budget lasts, and then discard them.

    First paused, first swapped. The swap budget is the engine's: with ``swap_budget: hidden`` the tokens N of
    T_swap(N) = T_fwd(batch).

    Args:
        estimator: expects the whole pause, when it begins.
        preserve_below: seconds; a pause that was expected to be shorter keeps its context. 0 keeps none.
    """

    def __init__(self, estimator: DurationEstimator, preserve_below: float = 0.0) -> None:
        if not preserve_below >= 0:
            raise ValueError("preserve_below is in seconds, >= 0")
        self.estimator = estimator
        self.preserve_below = preserve_below

    def revise(self, view: EngineView) -> Iterable[Change]:
        budget = view.swap_budget
        for paused in self._leaving(view):
            reasons = {"budget_tokens": budget}
            if budget >= view.block_size and view.free_host_blocks:
                stays = max(0, paused.resident_tokens - budget)
                budget -= paused.resident_tokens - stays
                yield paused, Swap(keep=int(stays), reasons=reasons)
            else:
                yield paused, Discard(reasons=reasons)

    def review_at(self, view: EngineView) -> float:
        return EVERY_ITERATION if self._leaving(view) else NEVER

    def _leaving(self, view: EngineView) -> list[Paused]:
        assert self.estimator is not None
        return [one for one in view.undecided if self.estimator.remaining(one, one.paused_at) >= self.preserve_below]
