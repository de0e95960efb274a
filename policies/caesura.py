"""Caesura's own answer: every context has a price, and the cheapest leave just before their memory is wanted."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from operator import itemgetter

from policies.contract import (
    EVERY_ITERATION,
    NEVER,
    Change,
    Discard,
    DurationEstimator,
    EngineView,
    InterceptPolicy,
    Paused,
    Preserve,
    Queued,
    QueueOrder,
    Swap,
)
from policies.samples import Samples

ALL_KINDS = ""


class Caesura(InterceptPolicy):
    """Keeps everything while memory is free; then the contexts leave whose blocks are worth least.

    What t tokens of a paused context cost when they are gone at its return, in seconds that sessions wait for it, with
    q query tokens of N running sessions in an iteration:

        swapped:    T_swap(t) + T_fwd(q), the second only if none of the context was on the host before
        discarded:  N * (T_fwd(q + t) - T_fwd(q)), for a recompute lengthens an iteration for all that share it
        price = min(swapped, discarded) / (t * R), per token and second of memory

    R is how long the pause is still expected to last; ask ``empirical``, the mean residual life of the tool. Where the
    second line is the smaller one, or the host is full, the tail is dropped: the rest of the batch hides a short
    recompute. Otherwise it is swapped.

    The next block is worth something only if it will be wanted: as long as ``headroom`` is free nothing leaves. Below,
    the cheapest go beside each iteration, their tails first, within what its forward pass hides, unless the answer is
    expected before a copy out and in. So an admission finds its blocks free, and does not wait for copies. Whoever
    needs blocks at once takes them in the same order.

    Args:
        estimator: expects R.
        headroom: share of the GPU's blocks that is kept free for those who come and grow.
        window: finished sessions of each kind that ``tokens_expected`` remembers.
    """

    def __init__(self, estimator: DurationEstimator, headroom: float = 0.1, window: int = 1000) -> None:
        if not 0 <= headroom <= 1:
            raise ValueError("headroom is a share of the GPU's blocks, 0 to 1")
        self.estimator = estimator
        self.headroom = headroom
        self._lengths: dict[str, Samples] = defaultdict(lambda: Samples(window))
        self._emitted: dict[str, tuple[int, int]] = {}  # calls and tokens of sessions inside
        self._settled = True

    # ---- who leaves

    def gives_way(self, blocks: int, view: EngineView) -> Iterator[Change]:
        losses = Losses(view)
        for price, paused in self._cheapest_first(losses, view):
            held = -(-paused.resident_tokens // view.block_size)
            keep = max(0, held - blocks) * view.block_size
            blocks = max(1, blocks - held)
            yield paused, _leave(paused, keep, price, losses, view)

    def revise(self, view: EngineView) -> Iterator[Change]:
        """Restore the headroom as far as the swap budget goes."""
        lacking = math.ceil(self.headroom * view.gpu_blocks) - view.free_gpu_blocks
        if self._settled or lacking <= 0 or not view.free_host_blocks:
            self._settled = True
            return
        assert self.estimator is not None
        budget, candidates = view.swap_budget, 0
        for price, paused in self._cheapest_first(Losses(view), view):
            held = paused.resident_tokens
            if paused.resumed or self.estimator.remaining(paused, view.now) <= 2 * view.costs.swap_time(held):
                continue
            candidates += 1
            if lacking <= 0 or budget < view.block_size:
                break
            keep = int(max(0, held - min(budget, lacking * view.block_size)))
            budget -= held - keep
            lacking -= (held - keep) // view.block_size
            yield paused, Swap(keep=keep, because={"price": price, "blocks_lacking": lacking})
        self._settled = candidates == 0

    def review_at(self, view: EngineView) -> float:
        """Every iteration has a new budget until the headroom is there; then not before somebody comes or goes."""
        return NEVER if self._settled else EVERY_ITERATION

    def price(self, paused: Paused, view: EngineView) -> float:
        """What a token of a context is worth for each second that it stays, s/(token s); endless for who is back."""
        return self._price(paused, Losses(view), view.now)

    def _price(self, paused: Paused, losses: Losses, now: float) -> float:
        if paused.resumed:
            return math.inf
        assert self.estimator is not None
        remaining = self.estimator.remaining(paused, now)
        if remaining <= 0:
            return math.inf
        tokens = paused.resident_tokens
        swapped, discarded = losses.swapped_s(paused, tokens), losses.discarded_s(tokens)
        return (swapped if swapped < discarded else discarded) / (tokens * remaining)

    def _cheapest_first(self, losses: Losses, view: EngineView) -> list[tuple[float, Paused]]:
        now = view.now
        priced = [(self._price(paused, losses, now), paused) for paused in view.paused if not paused.moving]
        priced.sort(key=itemgetter(0))
        return priced

    # ---- what is learnt

    def on_pause(self, paused: Paused, view: EngineView) -> Preserve:
        calls, emitted = self._emitted.get(paused.id, (0, 0))
        self._emitted[paused.id] = calls + 1, emitted + paused.emitted_tokens
        self._settled = False
        return Preserve()

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self._settled = False

    def on_start(self, started: Queued, view: EngineView) -> None:
        self._settled = False

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        calls, emitted = self._emitted.pop(finished.id, (0, 0))
        if calls < finished.calls_done:
            emitted += finished.emitted_tokens
        for kind in (finished.kind, ALL_KINDS):
            self._lengths[kind].add(emitted)
        self._settled = False

    def tokens_expected(self, session: Queued) -> float:
        """Tokens that a session will have emitted at its end: the mean of finished ones of its kind that emitted more
        than it has; of all kinds for a new one. Without any, as many again as it has emitted."""
        _, emitted = self._emitted.get(session.id, (0, 0))
        for kind in (session.kind, ALL_KINDS):
            longer = self._lengths[kind].mean_beyond(emitted)
            if longer is not None:
                return longer
        return 2.0 * emitted


class DueFirst(QueueOrder):
    """By when a session is due: its arrival + ``latency`` * the tokens that it is expected to emit in all.

    Normalized latency divides a session's delay by its tokens, so a second of waiting weighs more the shorter a session
    is. This is the earliest deadline first of an objective on normalized latency. Nobody starves: a deadline that has
    been set comes before those of all who arrive late enough.

    Goes with the policy ``caesura``, which learns how long sessions are.

    Args:
        latency: seconds per token; 0 is first come, first served.
    """

    key_names = ("due",)

    def __init__(self, latency: float = 0.1) -> None:
        if not 0 <= latency < math.inf:
            raise ValueError("latency is in seconds per token, finite and >= 0")
        self.latency = latency

    def key(self, queued: Queued, view: EngineView) -> float:
        if not isinstance(self.policy, Caesura):
            raise ValueError("the order 'due-first' goes with the policy 'caesura', which learns how long sessions are")
        return queued.arrival + self.latency * self.policy.tokens_expected(queued)


class Losses:
    """What tokens of a paused context cost when they are gone at its return, in seconds that sessions wait for it.

    What is the same for all contexts that are asked about at once is computed once.
    """

    def __init__(self, view: EngineView) -> None:
        costs, queries = view.costs, view.running_query_tokens
        self._costs = costs
        self._queries = queries
        self._batch_s = costs.forward_time(queries) if queries else 0.0
        self._wait_s = costs.forward_time(max(1, queries))
        self._sharing = max(1, view.running_sessions)

    def swapped_s(self, paused: Paused, tokens: int) -> float:
        """The last ``tokens`` tokens are on the host: a copy, and an iteration more if nothing was there before."""
        return self._costs.swap_time(tokens) + (0.0 if paused.offloaded_tokens else self._wait_s)

    def discarded_s(self, tokens: int) -> float:
        """``tokens`` tokens must be recomputed: the wait is its own, and of all in the batch."""
        return (self._costs.forward_time(self._queries + tokens) - self._batch_s) * self._sharing


def _leave(paused: Paused, keep: int, price: float, losses: Losses, view: EngineView) -> Swap | Discard:
    gone = paused.resident_tokens - keep
    swapped, discarded = losses.swapped_s(paused, gone), losses.discarded_s(gone)
    because = {"price": price, "swapped_s": swapped, "discarded_s": discarded}
    if discarded < swapped or not view.free_host_blocks:
        return Discard(keep=keep, because=because)
    return Swap(keep=keep, because=because)
