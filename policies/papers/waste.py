"""The waste equations of InferCept (arXiv 2402.01869, equations 1 to 5).

Waste is GPU memory that produces no new token, times the time for which it does not. The paper multiplies tokens by the
bytes that a token's KV takes; here waste is in token-seconds, so that factor is left out on both sides of every
comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from policies.contract import Costs, Paused
from policies.estimation import DurationEstimator

REMEMBERED = 1 << 16
"""Terms kept before all are forgotten: the same contexts are asked about in every iteration."""
SAFE = 1 - 1e-9
"""Sums and products of wastes are off by less than what is left of 1, as a share."""


def preserve_waste(remaining_s: float, context: int) -> float:
    """Equation 2: the context lies idle for the rest of the pause. Token-seconds."""
    return remaining_s * context


def preserve_exceeds_at(
    estimator: DurationEstimator, paused: Sequence[Paused], contexts: Sequence[int], wastes: Sequence[float], now: float
) -> float:
    """A time before which ``preserve_waste`` of the estimated remaining time of each of several contexts is at most its
    own of ``wastes``, token-seconds."""
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
    """The two terms of equation 4 apart, the second one for each token of C_other: only C_other changes all the time.

    Returns:
        T_fwd(C) * C / 2, token-seconds, and n * T_fwd(C / n), seconds, n being ``chunks``.
    """
    if context == 0:
        return 0.0, 0.0
    # T_fwd takes whole tokens: C / n is rounded up.
    return costs.forward_time(context) * context / 2, chunks * costs.forward_time(-(-context // chunks))


class RecomputeTerms(dict[tuple[int, int], tuple[float, float]]):
    """``chunked_discard_parts`` by context and number of chunks, computed when they are looked up and then kept.

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
