"""InferCept's min-waste rule as the paper states it (arXiv 2402.01869, section 4)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import itemgetter

from policies.contract import (
    EVERY_ITERATION,
    NEVER,
    Change,
    Costs,
    Discard,
    DurationEstimator,
    EngineView,
    InterceptPolicy,
    Paused,
    Swap,
)
from policies.waste import chunked_discard_waste, preserve_exceeds_at, preserve_waste


class MinWaste(InterceptPolicy):
    """Every iteration, rank paused contexts by the waste that they cannot avoid: min(preserve, chunked discard), eq. 5.

    From the most wasteful down, contexts leave for the host until the iteration's swap budget is spent. Of the rest,
    those are discarded that waste less recomputed in chunks (eq. 4) than kept for the rest of the pause (eq. 2).

    Args:
        estimator: how long a pause still lasts; the paper takes the time that it has lasted so far.
        swaps: whether contexts may be swapped at all.
    """

    def __init__(self, estimator: DurationEstimator, swaps: bool = True) -> None:
        self.estimator = estimator
        self.swaps = swaps
        self._wastes: dict[int, float] = {}  # by context, the same for every question of one plan
        self._wastes_for: tuple[Costs, int, int] | None = None

    def revise(self, view: EngineView) -> Iterable[Change]:
        ranked = self._ranked(_undecided(view), view)
        budget = view.swap_budget if ranked and self.swaps else 0.0
        for _, paused, _, keep, recompute in ranked:
            because = {"preserve": keep, "recompute": recompute}
            if budget >= view.block_size and view.free_host_blocks:
                stays = max(0, paused.resident_tokens - budget)
                budget -= paused.resident_tokens - stays
                yield paused, Swap(keep=int(stays), because=because)
            elif recompute < keep:
                yield paused, Discard(because=because)

    def review_at(self, view: EngineView) -> float:
        """Every iteration has a new budget, as long as some context is still to be decided about.

        Without a budget or room on the host a context stays until its preservation wastes more than its recompute did
        at the last review: others' contexts only grow meanwhile, and the recompute waste with them. While nothing
        runs there are no iterations, and nobody asks.
        """
        undecided = _undecided(view)
        if not undecided:
            return NEVER
        if not view.running_sessions or (self.swaps and view.free_host_blocks):
            return EVERY_ITERATION
        assert self.estimator is not None
        return min(
            preserve_exceeds_at(self.estimator, paused, tokens, recompute, view.now)
            for _, paused, tokens, _, recompute in self._ranked(undecided, view)
        )

    def gives_way(self, blocks: int, view: EngineView) -> Iterator[Change]:
        """The same order: the context whose stay wastes most leaves first."""
        for _, paused, _, keep, recompute in self._ranked(_undecided(view), view):
            because = {"preserve": keep, "recompute": recompute, "blocks_needed": blocks}
            yield paused, Swap(because=because) if self.swaps else Discard(because=because)

    def _ranked(
        self, undecided: list[tuple[Paused, int]], view: EngineView
    ) -> list[tuple[float, Paused, int, float, float]]:
        """What each context wastes at least (token-seconds), the context, its own tokens, and what they waste preserved
        and discarded; most wasteful first."""
        assert self.estimator is not None
        if not undecided:
            return []
        now, costs, others = view.now, view.costs, view.running_context_tokens
        chunk = max(costs.saturation_tokens - view.running_query_tokens, 1)
        if self._wastes_for != (costs, others, chunk):
            self._wastes_for, self._wastes = (costs, others, chunk), {}
        wastes, remaining = self._wastes, self.estimator.remaining
        ranked = []
        for paused, tokens in undecided:
            keep = preserve_waste(remaining(paused, now), tokens)
            lost = tokens + paused.offloaded_tokens  # what is on the host is of no use without what comes before it
            recompute = wastes.get(lost)
            if recompute is None:
                recompute = wastes[lost] = chunked_discard_waste(costs, lost, others, chunk)
            ranked.append((keep if keep <= recompute else recompute, paused, tokens, keep, recompute))
        ranked.sort(key=itemgetter(0), reverse=True)
        return ranked


def _undecided(view: EngineView) -> list[tuple[Paused, int]]:
    """Contexts that wait for an answer and are not being copied, each with the tokens on the GPU that it alone holds.

    The others cost nothing to keep, and free nothing: who has none of its own is left out.
    """
    return [
        (paused, own)
        for paused in view.paused
        if not (paused.moving or paused.resumed) and (own := paused.resident_tokens - paused.shared_tokens)
    ]
