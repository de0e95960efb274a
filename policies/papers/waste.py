"""The waste equations of InferCept (arXiv 2402.01869, equations 1 to 5), for one context and for many at once.

Waste is GPU memory that produces no new token, times the time for which it does not. The paper multiplies tokens by the
bytes that a token's KV takes; here waste is in token-seconds, so that factor is left out on both sides of every
comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from operator import mul

from policies.contract import Costs, KVUsage, Paused
from policies.estimation import DurationEstimator

REMEMBERED = 1 << 16
"""Terms kept before all are forgotten: policies ask about the same contexts in every iteration."""
SAFE = 1 - 1e-9
"""Factor below 1 that covers the rounding of sums and products of wastes."""
_FEW = 4
"""Contexts searched for one by one before all are sorted: mostly the first spends the budget."""


# ---- one context


def preserve_waste(remaining_s: float, context: int) -> float:
    """Equation 2: the context lies idle for the rest of the pause. Token-seconds."""
    return remaining_s * context


def preserve_exceeds_at(
    estimator: DurationEstimator, paused: Sequence[Paused], contexts: Sequence[int], wastes: Sequence[float], now: float
) -> float:
    """Time until which ``preserve_waste`` of the estimated remaining time of each of several contexts is at most its
    entry in ``wastes`` (token-seconds), s."""
    seconds = [waste / context * SAFE for waste, context in zip(wastes, contexts, strict=True)]
    return estimator.one_exceeds_at(paused, seconds, now)


def discard_waste(costs: Costs, context: int, others: int) -> float:
    """Equation 1: one forward pass over the whole context, during which it and all others wait. Token-seconds."""
    return costs.forward_time(context) * (context + others)


def swap_waste(costs: Costs, context: int, batch: int) -> float:
    """Equation 3: a copy out and a copy in, each of which stalls the whole batch's context. Token-seconds."""
    return 2.0 * costs.swap_time(context) * batch


def chunked_discard_waste(costs: Costs, context: int, others: int, chunk: int) -> float:
    """Equation 4: recomputed in n chunks, a context is on average half resident, and others wait for each chunk.

    Args:
        costs: gives T_fwd.
        context: tokens to recompute, C.
        others: context tokens of the running sessions, C_other.
        chunk: tokens that one iteration may recompute, at least 1; n = ceil(C / chunk).

    Returns:
        T_fwd(C) * C / 2 + n * T_fwd(C / n) * C_other, token-seconds.
    """
    own, beside = chunked_discard_parts(costs, context, -(-context // max(chunk, 1)))
    return own + beside * others


def chunked_discard_parts(costs: Costs, context: int, chunks: int) -> tuple[float, float]:
    """The two terms of equation 4 apart, the second per token of C_other: only C_other changes all the time.

    Returns:
        T_fwd(C) * C / 2, token-seconds, and n * T_fwd(C / n), seconds, n being ``chunks``.
    """
    if context == 0:
        return 0.0, 0.0
    # T_fwd takes whole tokens: C / n is rounded up.
    return costs.forward_time(context) * context / 2, chunks * costs.forward_time(-(-context // chunks))


class RecomputeTerms(dict[tuple[int, int], tuple[float, float]]):
    """``chunked_discard_parts`` by context and number of chunks, computed at the first look-up and kept.

    Args:
        costs: gives T_fwd.
    """

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self._least_per_token = [math.inf]

    def least_per_token(self, tokens: int) -> float:
        """The least of T_fwd(m) / m over all m from 1 to ``tokens``, s."""
        least = self._least_per_token
        while len(least) <= tokens:
            least.append(min(least[-1], self.costs.forward_time(len(least)) / len(least)))
        return least[tokens]

    def __missing__(self, key: tuple[int, int]) -> tuple[float, float]:
        if len(self) > REMEMBERED:
            self.clear()
        context, chunks = key
        self[key] = terms = chunked_discard_parts(self.costs, context, chunks)
        return terms


# ---- many contexts


class PausedWastes:
    """What each of several contexts wastes, preserved or recomputed, token-seconds; each evaluated only when needed.

    A context of C tokens, of which C' <= C are on the GPU, wastes t C' preserved for t seconds and, by equation 4 with
    n = ceil(C / c) chunks of at most c tokens,

        T_fwd(C) C / 2 + n T_fwd(ceil(C / n)) C_other  >=  C C_other min over m <= c of T_fwd(m) / m

    recomputed, as m = ceil(C / n) is at most c and n at least C / m. So a context that is away for no longer than
    C_other times that minimum wastes less preserved, however long it is: most need no evaluation of equation 4.

    Args:
        paused: the contexts; a place below is one in this list.
        kv_usage: where their tokens are, some of each on the GPU.
        rests: how long each is expected to be away yet, s.
        terms: of equation 4.
        chunk: tokens that an iteration may recompute, c.
        others: context tokens of the running sessions, C_other.
        short_cuts: leave out what the bound above rules out; without, every context is evaluated.
    """

    def __init__(
        self,
        paused: Sequence[Paused],
        kv_usage: Sequence[KVUsage],
        rests: Sequence[float],
        terms: RecomputeTerms,
        chunk: int,
        others: int,
        short_cuts: bool = True,
    ) -> None:
        self.paused = paused
        self._short_cuts = short_cuts
        self._kv_usage, self._rests = kv_usage, rests
        self._terms, self._chunk, self._others = terms, chunk, others
        self._order: list[int] | None = None

    @cached_property
    def own(self) -> list[int]:
        """The tokens on the GPU that each context alone holds."""
        return [resident - shared for resident, shared, _ in self._kv_usage]

    def preserved(self, place: int) -> float:
        """Equation 2: what a context wastes preserved."""
        resident, shared, _ = self._kv_usage[place]
        return self._rests[place] * (resident - shared)

    def recomputed(self, place: int) -> float:
        """Equation 4: what a context wastes recomputed in chunks."""
        resident, shared, offloaded = self._kv_usage[place]
        lost = resident - shared + offloaded
        alone, beside = self._terms[lost, -(-lost // self._chunk)]
        return alone + beside * self._others

    def both(self, place: int) -> dict[str, float]:
        """The two wastes, as the reasons of a verdict."""
        return {"preserve": self.preserved(place), "recompute": self.recomputed(place)}

    @cached_property
    def cheaper_recomputed(self) -> list[int]:
        """Contexts that waste less recomputed than preserved, the most wasteful first."""
        preserve_wins_below_s = -math.inf
        if self._short_cuts:
            preserve_wins_below_s = self._terms.least_per_token(self._chunk) * self._others * SAFE
        away = [place for place, rest in enumerate(self._rests) if rest > preserve_wins_below_s]
        cheaper = [place for place in away if self.recomputed(place) < self.preserved(place)]
        return sorted(cheaper, key=self.recomputed, reverse=True) if len(cheaper) > 1 else cheaper

    def ranked(self) -> Iterator[int]:
        """All contexts with tokens of their own, by the smaller of the two wastes (equation 5): the most wasteful
        first, and of equal ones the first."""
        if self._order is not None:
            yield from self._order
            return
        own = self.own
        least = list(map(mul, self._rests, own))
        for place in self.cheaper_recomputed:
            least[place] = self.recomputed(place)
        if 0 in own or not self._short_cuts:
            self._order = [place for place in _by_size(least) if own[place]]
            yield from self._order
            return
        rest, few = least.copy(), min(_FEW, len(least))
        for _ in range(few):
            place = rest.index(max(rest))
            rest[place] = -math.inf
            yield place
        self._order = _by_size(least)
        yield from self._order[few:]


def _by_size(numbers: Sequence[float]) -> list[int]:
    """Places of the numbers, those of the largest first."""
    return sorted(range(len(numbers)), key=numbers.__getitem__, reverse=True)
