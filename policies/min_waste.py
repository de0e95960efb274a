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
from policies.waste import chunked_discard_parts, preserve_exceeds_at

Undecided = tuple[Paused, int, int]
"""A context, its tokens on the GPU that it alone holds, and those that must be computed if it goes."""
Ranked = tuple[float, Paused, int, float, float]
"""What a context wastes at least (token-seconds), the context, its own tokens, and what they waste preserved and
discarded."""
_REMEMBERED = 1 << 16
"""Terms of recompute wastes kept: the same contexts are ranked every iteration."""


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
        self._terms: dict[tuple[int, int], tuple[float, float]] = {}  # of eq. 4, by context and chunk
        self._terms_of: Costs | None = None
        self._ranking: list[Ranked] = []  # the same for every question of one plan
        self._ranking_of: tuple[float, int, int, list[Undecided]] | None = None

    def revise(self, view: EngineView) -> Iterable[Change]:
        ranked, block = self._ranked(_undecided(view), view), view.block_size
        budget = view.swap_budget if ranked and self.swaps else 0.0
        for _, paused, _, keep, recompute in ranked:
            if budget >= block and view.free_host_blocks:
                stays = max(0, paused.resident_tokens - budget)
                budget -= paused.resident_tokens - stays
                yield paused, Swap(keep=int(stays), because={"preserve": keep, "recompute": recompute})
            elif recompute < keep:
                yield paused, Discard(because={"preserve": keep, "recompute": recompute})

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

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self._ranking_of = None  # the estimator may have learnt from it

    def _ranked(self, undecided: list[Undecided], view: EngineView) -> list[Ranked]:
        """The most wasteful context first."""
        if not undecided:
            return []
        others = view.running_context_tokens
        chunk = max(view.costs.saturation_tokens - view.running_query_tokens, 1)
        asked = view.now, others, chunk, undecided
        if asked != self._ranking_of:
            self._ranking_of, self._ranking = asked, self._rank(undecided, view, others, chunk)
        return self._ranking

    def _rank(self, undecided: list[Undecided], view: EngineView, others: int, chunk: int) -> list[Ranked]:
        assert self.estimator is not None
        if self._terms_of is not view.costs or len(self._terms) > _REMEMBERED:
            self._terms_of, self._terms = view.costs, {}
        now, terms, remaining = view.now, self._terms, self.estimator.remaining
        ranked: list[Ranked] = []
        for paused, tokens, lost in undecided:
            keep = remaining(paused, now) * tokens
            split = terms.get((lost, chunk))
            if split is None:
                split = terms[lost, chunk] = chunked_discard_parts(view.costs, lost, chunk)
            recompute = split[0] + split[1] * others
            ranked.append((keep if keep <= recompute else recompute, paused, tokens, keep, recompute))
        ranked.sort(key=itemgetter(0), reverse=True)
        return ranked


def _undecided(view: EngineView) -> list[Undecided]:
    """Contexts that wait for an answer and are not being copied.

    What is on the host is of no use without what comes before it. Tokens that others hold too cost nothing to keep, and
    free nothing: who has none of its own is left out.
    """
    return [
        (paused, own, own + paused.offloaded_tokens)
        for paused in view.unanswered
        if (own := paused.resident_tokens - paused.shared_tokens)
    ]
