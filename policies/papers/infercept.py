"""InferCept's min-waste rule as the paper states it (arXiv 2402.01869, section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from policies.contract import EVERY_ITERATION, NEVER, Change, Discard, EngineView, InterceptPolicy, Paused, Swap
from policies.estimation import DurationEstimator
from policies.papers.waste import PausedWastes, RecomputeTerms, preserve_exceeds_at


class MinWaste(InterceptPolicy):
    """Every iteration, rank paused contexts by the waste that they cannot avoid: min(preserve, chunked discard), eq. 5.

    From the most wasteful down, contexts are swapped out until the iteration's swap budget is spent. Of the rest, those
    are discarded that waste less recomputed in chunks (eq. 4) than kept for the rest of the pause (eq. 2).

    Args:
        estimator: how long a pause still lasts; the paper takes the time that it has lasted so far.
        swaps: whether contexts may be swapped at all.
    """

    def __init__(self, estimator: DurationEstimator, swaps: bool = True) -> None:
        self.estimator = estimator
        self.swaps = swaps
        self._terms: RecomputeTerms | None = None
        self._wastes: PausedWastes | None = None  # one for all questions of one plan
        self._wastes_of: tuple[Any, ...] | None = None

    def revise(self, view: EngineView) -> Iterable[Change]:
        wastes = self._wasted(view)
        if wastes is None:
            return
        block, budget = view.block_size, view.swap_budget if self.swaps else 0.0
        passed: set[int] = set()
        if budget >= block:
            for place in wastes.ranked():
                passed.add(place)
                paused = wastes.paused[place]
                if view.free_host_blocks:
                    stays = max(0, paused.resident_tokens - budget)
                    budget -= paused.resident_tokens - stays
                    yield paused, Swap(keep=int(stays), reasons=wastes.both(place))
                    if budget < block:
                        break
                elif wastes.recomputed(place) < wastes.preserved(place):
                    yield paused, Discard(reasons=wastes.both(place))
        for place in wastes.cheaper_recomputed:
            if place not in passed:
                yield wastes.paused[place], Discard(reasons=wastes.both(place))

    def review_at(self, view: EngineView) -> float:
        """Every iteration has a new budget, as long as there is a context to decide about.

        Without a budget, or with a full host, a context stays until its preservation wastes more than its recompute did
        at the last review: other contexts only grow meanwhile, and the recompute waste with them. While nothing runs
        there are no iterations, and so no questions.
        """
        if not any(resident > shared for resident, shared, _ in view.kv_usage):
            return NEVER
        if not view.running_sessions or (self.swaps and view.free_host_blocks):
            return EVERY_ITERATION
        assert self.estimator is not None
        wastes = self._wasted(view)
        assert wastes is not None
        places = [place for place, own in enumerate(wastes.own) if own]
        paused, own = [wastes.paused[place] for place in places], [wastes.own[place] for place in places]
        return preserve_exceeds_at(self.estimator, paused, own, list(map(wastes.recomputed, places)), view.now)

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        """In the order of ``revise``: the most wasteful context leaves first."""
        wastes = self._wasted(view)
        if wastes is None:
            return
        for place in wastes.ranked():
            reasons = {**wastes.both(place), "blocks_needed": blocks}
            yield wastes.paused[place], Swap(reasons=reasons) if self.swaps else Discard(reasons=reasons)

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self._wastes_of = None  # the estimator may have learnt from the pause that ended

    def _wasted(self, view: EngineView) -> PausedWastes | None:
        """Wastes of the contexts of ``view.undecided``; None if there are none.

        Offloaded tokens are of no use without those before them. Tokens that other contexts hold too cost nothing to
        keep and free nothing: a context without tokens of its own is in no ranking.
        """
        paused, kv_usage = view.undecided, view.kv_usage
        if not paused:
            return None
        now, others, queries = view.now, view.running_context_tokens, view.running_query_tokens
        asked = now, others, queries, paused, kv_usage
        if asked == self._wastes_of:
            return self._wastes
        assert self.estimator is not None
        if self._terms is None or self._terms.costs is not view.costs:
            self._terms = RecomputeTerms(view.costs)
        chunk, rests = max(view.costs.saturation_tokens - queries, 1), self.estimator.remaining_of(paused, now)
        self._wastes_of, self._wastes = (
            asked,
            PausedWastes(paused, kv_usage, rests, self._terms, chunk, others, self.short_cuts),
        )
        return self._wastes
