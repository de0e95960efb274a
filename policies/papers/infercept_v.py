"""The rule of InferCept's released code (WukLab/InferCept, letter V), which is not quite the paper's.

It knows the exact duration of every call. It discards at once every context that wastes less recomputed than kept,
except those with the largest recompute waste; these it swaps out lazily, from the tail, only when their blocks are
needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from policies.contract import EVERY_ITERATION, Change, Costs, Discard, EngineView, InterceptPolicy, Paused, Swap
from policies.estimation import DurationEstimator
from policies.papers.waste import REMEMBERED, SAFE, preserve_exceeds_at

Candidate = tuple[float, float, Paused]
"""A context that wastes less recomputed than preserved: the two wastes, token-seconds, and the context."""


class InferCeptV(InterceptPolicy):
    """Letter V of the released code.

    Args:
        estimator: the release uses the exact duration, so ``oracle`` is faithful.
        per_token: a of the release's swap budgets, tokens of copy per query token (0.00462 for GPT-J-6B on an A100).
        fixed: b of the release's swap budgets, tokens (108.99 there).
    """

    def __init__(self, estimator: DurationEstimator, per_token: float = 0.00462, fixed: float = 108.99) -> None:
        self.estimator = estimator
        self.per_token = per_token
        self.fixed = fixed
        self._budget_at = self._short_at = math.nan
        self._budget_blocks = 0
        self._offered: list[tuple[Paused, int, int]] = []  # contexts, their resident tokens then, blocks that may leave
        self._wastes: RecomputeEstimate | None = None
        self._contexts: list[int] = []  # tokens in whole blocks, for all questions of one plan
        self._candidates: dict[int, Candidate] = {}  # by place among ``view.undecided``
        self._considered: tuple[Any, ...] | None = None

    def revise(self, view: EngineView) -> Iterable[Change]:
        """Discard every candidate but those with the largest recompute waste."""
        candidates = list(self._consider(view).values())
        dearest = max((one[0] for one in candidates), default=0.0)
        for recompute, keep, paused in candidates:
            if recompute < dearest:
                yield paused, Discard(reasons={"preserve": keep, "recompute": recompute})

    def review_at(self, view: EngineView) -> float:
        """When another context may become a candidate: until then the dearest one is alone, and none is discarded.

        Recompute wastes only grow meanwhile, with the contexts of running sessions. While nothing runs there are no
        questions. If the budget was too small for a need of blocks, the next iteration's may be enough, for free memory
        only shrinks.
        """
        assert self.estimator is not None
        costs = view.costs
        cheaper_by_the_dozen = costs.forward_time(costs.saturation_tokens) < costs.forward_time(1)
        if not view.running_sessions or cheaper_by_the_dozen or self._short_at == view.now:
            return EVERY_ITERATION
        candidates, undecided = self._consider(view), view.undecided
        if len(candidates) > 1:
            return EVERY_ITERATION
        places = [place for place in range(len(undecided)) if place not in candidates]
        contexts = [self._contexts[place] for place in places]
        assert self._wastes is not None
        wastes = self._wastes.beside(contexts, view.running_query_tokens, view.running_context_tokens)
        return preserve_exceeds_at(self.estimator, [undecided[place] for place in places], contexts, wastes, view.now)

    def evict(self, blocks: int, view: EngineView) -> Iterable[Change]:
        """Candidates with the largest recompute waste: their last blocks go to the host, within the iteration's
        budget."""
        budget = self._budget_left(view)
        candidates = list(self._consider(view).values())
        dearest = max((one[0] for one in candidates), default=0.0)
        for recompute, keep, paused in candidates:
            if recompute < dearest:
                continue
            held = -(-paused.resident_tokens // view.block_size)
            wanted = min(held, blocks)
            leaving = min(wanted, budget)
            if leaving < wanted:
                self._short_at = view.now
            if leaving > 0:
                reasons = {"preserve": keep, "recompute": recompute, "blocks_needed": blocks}
                blocks, budget = blocks - leaving, budget - leaving
                self._offered.append((paused, paused.resident_tokens, leaving))
                yield paused, Swap(keep=(held - leaving) * view.block_size, reasons=reasons)

    def _budget_left(self, view: EngineView) -> int:
        """Blocks that may yet leave in this iteration; a context that was offered and stayed has spent nothing."""
        if self._budget_at != view.now:
            free = view.free_gpu_blocks * view.block_size
            budget = (1 + self.per_token) * view.costs.saturation_tokens + self.fixed - free / 2
            self._budget_at, self._budget_blocks = view.now, max(0, int(budget // view.block_size))
            self._offered.clear()
        for paused, resident, leaving in self._offered:
            self._budget_blocks -= leaving if paused.moving or paused.resident_tokens < resident else 0
        self._offered.clear()
        return self._budget_blocks

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self._considered = None  # the estimator may have learnt from the pause that ended

    def _consider(self, view: EngineView) -> dict[int, Candidate]:
        """The contexts of ``view.undecided`` that waste less recomputed than kept, by their place in it."""
        undecided, kv_usage = view.undecided, view.kv_usage
        now, others, queries = view.now, view.running_context_tokens, view.running_query_tokens
        asked = now, others, queries, undecided, kv_usage
        if asked == self._considered:
            return self._candidates
        assert self.estimator is not None
        if self._wastes is None or self._wastes.costs is not view.costs:
            self._wastes = RecomputeEstimate(view.costs)
        size = view.block_size
        contexts = [-(-resident // size) * size for resident, _, _ in kv_usage]
        rests = self.estimator.remaining_of(undecided, now)
        away = list(range(len(contexts)))
        if self.short_cuts:
            away = self._wastes.perhaps_less(contexts, rests, queries, others)
        wastes = self._wastes.beside([contexts[place] for place in away], queries, others)
        self._considered, self._contexts = asked, contexts
        self._candidates = {
            place: (waste, rests[place] * contexts[place], undecided[place])
            for place, waste in zip(away, wastes, strict=True)
            if waste < rests[place] * contexts[place]
        }
        return self._candidates


class RecomputeEstimate:
    """The release's estimate of what recomputing a context of so many tokens in chunks wastes now, token-seconds.

    With S the saturation point, c = max(S - running query tokens, 1) the chunk, n = max(ceil(context / c) - 1, 0) the
    full chunks, f_S the time of an iteration of S tokens, f_c and f_l the marginal times of a chunk and of the last
    part, and R the context tokens of the running sessions:

        f_S * n * (n + 1) / 2 * c  +  f_c * n * R  +  f_l * (R + last)
    """

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        saturation = costs.saturation_tokens
        self._saturated = costs.forward_time(saturation)
        self._per_token = (self._saturated - costs.forward_time(1)) / max(saturation - 1, 1)
        self._terms: dict[int, dict[int, tuple[float, float, float, int]]] = {}  # by chunk and context

    def perhaps_less(self, contexts: Sequence[int], rests: Sequence[float], queries: int, others: int) -> list[int]:
        """Places of contexts that may waste less recomputed than kept for ``rests`` seconds; the others need no
        evaluation. Full chunks and the last part are the whole context, unless it is a multiple of the chunk."""
        chunk = max(self.costs.saturation_tokens - queries, 1)
        preserve_wins_below_s = self._per_token * others * SAFE if self._per_token >= 0 else -math.inf
        return [
            place
            for place, (context, rest) in enumerate(zip(contexts, rests, strict=True))
            if rest > preserve_wins_below_s or context % chunk == 0
        ]

    def beside(self, contexts: Iterable[int], queries: int, others: int) -> list[float]:
        """The estimate of each of ``contexts`` while running sessions have ``queries`` query tokens and ``others``
        context tokens."""
        chunk = max(self.costs.saturation_tokens - queries, 1)
        known = self._terms.get(chunk)
        if known is None:
            if sum(map(len, self._terms.values())) > REMEMBERED:
                self._terms.clear()
            known = self._terms[chunk] = {}
        wastes = []
        for context in contexts:
            if context not in known:
                known[context] = self._split(context, chunk)
            own, full, part, last = known[context]
            wastes.append(own + full * others + part * (others + last))
        return wastes

    def _split(self, context: int, chunk: int) -> tuple[float, float, float, int]:
        """The first term, the factors of R in the second and of (R + last) in the third, and ``last``."""
        full = max(-(-context // chunk) - 1, 0)
        last = context % chunk  # 0 when the context is a multiple of the chunk: the release then omits its last chunk
        own = self._saturated * full * (full + 1) / 2 * chunk
        return own, self._per_token * chunk * full, self._per_token * last, last
