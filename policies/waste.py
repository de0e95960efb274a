"""The waste equations of InferCept (arXiv 2402.01869, equations 1 to 5).

Waste is GPU memory that produces no new token, times the time for which it does not. The paper multiplies tokens by the
bytes that a token's KV takes; here waste is in token-seconds, so that factor is left out on both sides of every
comparison.
"""

from __future__ import annotations

from policies.contract import Costs, DurationEstimator, Paused


def preserve_waste(remaining_s: float, context: int) -> float:
    """Equation 2: the context lies idle for the rest of the pause. Token-seconds."""
    return remaining_s * context


def preserve_exceeds_at(estimator: DurationEstimator, paused: Paused, context: int, waste: float, now: float) -> float:
    """A time before which ``preserve_waste`` of the estimated remaining time is at most ``waste`` token-seconds."""
    return estimator.exceeds_at(paused, waste / context * (1 - 1e-9), now)


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
    own, beside = chunked_discard_parts(costs, context, chunk)
    return own + beside * others


def chunked_discard_parts(costs: Costs, context: int, chunk: int) -> tuple[float, float]:
    """The two terms of equation 4 apart, the second one for each token of C_other: only C_other changes all the time.

    Returns:
        T_fwd(C) * C / 2, token-seconds, and n * T_fwd(C / n), seconds.
    """
    if context == 0:
        return 0.0, 0.0
    chunks = -(-context // max(chunk, 1))
    # T_fwd takes whole tokens: C / n is rounded up.
    return costs.forward_time(context) * context / 2, chunks * costs.forward_time(-(-context // chunks))
