"""Caesura's own policy: every context has a price, and the cheapest leave just before their memory is wanted."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from operator import itemgetter

from policies.caesura.loss_model import LossModel
from policies.caesura.price_bounds import PriceBounds
from policies.contract import (
    EVERY_ITERATION,
    NEVER,
    Change,
    Discard,
    EngineView,
    InterceptPolicy,
    Paused,
    Preserve,
    Queued,
    QueueOrder,
    Swap,
    is_incomplete,
)
from policies.estimation import DurationEstimator
from policies.learning.empirical import EmpiricalDistribution

ALL_KINDS = ""


class Caesura(InterceptPolicy):
    """Keeps every context while memory is free; then the contexts leave whose blocks are worth least.

    What t tokens of a paused context cost when they are gone at its return, in seconds that sessions wait for it, with
    q query tokens of N running sessions in an iteration, D of them decoding, and chunks of c tokens beside these:

        swapped:    T_swap(t) + T_fwd(q), the second only if none of the context was on the host before
        discarded:  N * t / c * (T_fwd(D + c) - T_fwd(D)) + Q, for a recompute lengthens the iterations of all that
                    share it, and must be admitted first: Q only if nothing of the context was missing before
        price = min(swapped, discarded) / (t * R), per token and second of memory

    with T_fwd of the chunk halfway through what is gone, for attention deep in a context costs more than at its head.
    R is how long the pause is still expected to last; ask ``empirical``, the mean residual life of the tool. Q is what
    the last session to be admitted had waited for it, and 0 while no session waits: a session whose context is whole or
    on the host does not queue, and a context that lacks a few tokens holds its memory while its session does. Where the
    second line is the smaller one the tail is dropped: the rest of the batch hides a short recompute. Otherwise it is
    swapped.

    The host has a price too, discarded / (t * R): when it is full, contexts there are dropped for one that would lose
    more, the least loss first; if there is none, that one is dropped itself. A session whose answer came keeps its
    context while any session runs: two that need more than there is would swap each other out for ever. When no session
    can run otherwise, the last of them to arrive lose their tails.

    The next block is worth something only if it will be wanted: as long as ``headroom`` is free nothing leaves. Below,
    the cheapest go beside each iteration, their tails first, within what its forward pass hides, unless the answer is
    expected before a copy out and in. So an admission finds its blocks free, and does not wait for copies. Blocks that
    are needed at once are taken in the order of prices too.

    Args:
        estimator: expects R.
        headroom: share of the GPU's blocks that is kept free for new and growing contexts.
        window: finished sessions of each kind that ``tokens_expected`` remembers.
        pace_window: finished sessions that ``mean_normalized_latency`` is the mean of.
    """

    def __init__(
        self, estimator: DurationEstimator, headroom: float = 0.1, window: int = 1000, pace_window: int = 200
    ) -> None:
        if not 0 <= headroom <= 1:
            raise ValueError("headroom is a share of the GPU's blocks, 0 to 1")
        self.estimator = estimator
        if pace_window < 1:
            raise ValueError("pace_window is at least 1 session")
        self.headroom = headroom
        self._lengths: dict[str, EmpiricalDistribution] = defaultdict(lambda: EmpiricalDistribution(window))
        self._incomplete: set[str] = set()  # sessions that came back without a part of their context
        self._recent_s: deque[float] = deque(maxlen=pace_window)  # seconds per token of the sessions that finished last
        self._mean_normalized_latency = 0.0
        self._queued_s = 0.0
        self._settled = True
        self._bounds = PriceBounds(estimator)

    # ---- contexts that leave

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        losses = self._losses(view)
        host = HostEvictor(self, losses, view)
        for price, paused in self._cheapest_first(losses, view):
            held = -(-paused.resident_tokens // view.block_size)
            keep = max(0, held - blocks) * view.block_size
            blocks = max(1, blocks - held)
            gone = paused.resident_tokens - keep
            swapped, discarded = losses.swapped_s(paused, gone), losses.discarded_s(paused, gone)
            reasons = {"price": price, "swapped_s": swapped, "discarded_s": discarded}
            if swapped <= discarded:
                yield from host.ensure_free(paused, gone)
                if host.allocate(gone):
                    yield paused, Swap(keep=keep, reasons=reasons)
                    continue
            yield paused, Discard(keep=keep, reasons=reasons)
        if not view.running_sessions:
            yield from _tails_of_ready(blocks, view)

    def revise(self, view: EngineView) -> Iterable[Change]:
        """Restore the headroom as far as the swap budget goes."""
        if self._settled:
            return ()
        lacking = math.ceil(self.headroom * view.gpu_blocks) - view.free_gpu_blocks
        self._settled = lacking <= 0
        return () if self._settled else self._restored(lacking, view)

    def _restored(self, lacking: int, view: EngineView) -> Iterator[Change]:
        assert self.estimator is not None
        losses = self._losses(view)
        host = HostEvictor(self, losses, view)
        budget, found = view.swap_budget, False
        for price, paused in self._cheapest_first(losses, view):
            held = paused.resident_tokens
            if self.estimator.remaining(paused, view.now) <= 2 * view.costs.swap_time(held):
                continue
            keep = int(max(0, held - min(budget, lacking * view.block_size)))
            if budget >= view.block_size:
                yield from host.ensure_free(paused, held - keep)
            if not host.free:
                continue
            found = True
            if budget >= view.block_size:
                host.allocate(held - keep)
                budget -= held - keep
                lacking -= (held - keep) // view.block_size
                yield paused, Swap(keep=keep, reasons={"price": price, "blocks_lacking": lacking})
            if lacking <= 0 or budget < view.block_size:
                break
        self._settled = not found

    def review_at(self, view: EngineView) -> float:
        """Every iteration has a new budget until the headroom is there; then not before a session comes or goes."""
        return NEVER if self._settled else EVERY_ITERATION

    def price(self, paused: Paused, view: EngineView) -> float:
        """Worth of a token of a context for each second that it stays, s/(token s)."""
        return self._price(paused, self._losses(view), view.now)

    def _losses(self, view: EngineView) -> LossModel:
        return LossModel(view, self._queued_s if view.waiting_sessions else 0.0)

    def _price(self, paused: Paused, losses: LossModel, now: float) -> float:
        assert self.estimator is not None
        remaining = self.estimator.remaining(paused, now)
        if remaining <= 0:
            return math.inf
        tokens = paused.resident_tokens
        swapped, discarded = losses.swapped_s(paused, tokens), losses.discarded_s(paused, tokens)
        return (swapped if swapped < discarded else discarded) / (tokens * remaining)

    def loss_rate(self, paused: Paused, tokens: int, losses: LossModel, now: float) -> float:
        """Loss if the last ``tokens`` resident tokens of a context are dropped, and its offloaded ones with them, per
        token and second of host memory, s/(token s)."""
        assert self.estimator is not None
        remaining = self.estimator.remaining(paused, now)
        gone = tokens + paused.offloaded_tokens
        return losses.discarded_s(paused, tokens) / (gone * remaining) if gone and remaining > 0 else math.inf

    def _cheapest_first(self, losses: LossModel, view: EngineView) -> Iterator[tuple[float, Paused]]:
        """Contexts that may leave, by price, equal prices in the view's order."""
        now = view.now
        if not self.short_cuts:
            priced = [(self._price(paused, losses, now), paused) for paused in view.undecided]
            return iter(sorted(priced, key=itemgetter(0)))
        return self._bounds.cheapest_first(view, losses, lambda paused: self._price(paused, losses, now))

    # ---- what is learnt, and what it says

    def on_pause(self, paused: Paused, view: EngineView) -> Preserve:
        self._bounds.pause_begun(paused)
        self._settled = False
        return Preserve()

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        if is_incomplete(paused):
            self._incomplete.add(paused.id)
        else:
            self._incomplete.discard(paused.id)
        self._bounds.pause_ended(paused)
        self._settled = False

    def on_start(self, started: Queued, view: EngineView) -> None:
        if not started.calls_done or started.id in self._incomplete:
            self._queued_s = view.now - started.ready_at
        self._settled = False

    def on_leave(self, left: Paused, view: EngineView) -> None:
        self._incomplete.discard(left.id)

    def on_join(self, joined: Paused, view: EngineView) -> None:
        if not joined.moving:
            self._incomplete.add(joined.id)
        self._settled = False

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._incomplete.discard(finished.id)
        tokens = finished.emitted_before
        for kind in (finished.kind, ALL_KINDS):
            self._lengths[kind].add(tokens)
        self._recent_s.append((view.now - finished.arrival - finished.paused_s) / max(1, tokens))
        self._mean_normalized_latency = math.fsum(self._recent_s) / len(self._recent_s)
        self._settled = False

    @property
    def mean_normalized_latency(self) -> float:
        """Mean normalized latency of the sessions that finished last, s/token; 0 before any has finished."""
        return self._mean_normalized_latency

    def tokens_expected(self, session: Queued) -> float:
        """Tokens that a session will have emitted at its end: the mean of the finished sessions of its kind that
        emitted
        more than it has, else of all kinds; if there is none, as many again as it has emitted."""
        emitted = session.emitted_before
        for kind in (session.kind, ALL_KINDS):
            longer = self._lengths[kind].mean_beyond(emitted)
            if longer is not None:
                return longer
        return 2.0 * emitted


class DueFirst(QueueOrder):
    """Earliest deadline first, the deadline following from how fast sessions are served at present:

        arrival + its pauses so far + patience * pace * tokens that it is expected to emit in all

    the pace being the mean normalized latency of the sessions that finished last. Normalized latency divides a
    session's delay by its tokens, so a second of waiting weighs more the shorter a session is. No objective need be
    chosen: at light load the order is nearly first come, first served; the longer queues are, the further short
    sessions may pass long ones. No session starves: its deadline comes before those of all sessions that arrive late
    enough, and of two equal deadlines the session submitted first goes first.

    Goes with the policy ``caesura``, which learns how long sessions are and how fast they are served.

    Args:
        patience: multiple of the pace at which a session is due; 0 is first come, first served.
    """

    key_names = ("due",)

    def __init__(self, patience: float = 3.0) -> None:
        if not 0 <= patience < math.inf:
            raise ValueError("patience is a multiple of the present pace, finite and >= 0")
        self.patience = patience

    def key(self, queued: Queued, view: EngineView) -> float:
        policy = self.policy
        if not isinstance(policy, Caesura):
            raise ValueError("the order 'due-first' goes with the policy 'caesura', which learns how long sessions are")
        due = queued.arrival + queued.paused_s
        return due + self.patience * policy.mean_normalized_latency * policy.tokens_expected(queued)


def _tails_of_ready(blocks: int, view: EngineView) -> Iterator[Change]:
    """Contexts whose answer came, but whose sessions cannot run: the last to arrive loses its tail first."""
    ready = [paused for paused in view.paused if paused.resumed and not paused.moving]
    for paused in sorted(ready, key=lambda one: -one.arrival):
        held = -(-paused.resident_tokens // view.block_size)
        keep = max(0, held - blocks) * view.block_size
        blocks = max(1, blocks - held)
        yield paused, Discard(keep=keep, reasons={"blocks_needed": blocks})


class HostEvictor:
    """The host's blocks while changes are put together: contexts there may be dropped for one whose loss is greater."""

    def __init__(self, policy: Caesura, losses: LossModel, view: EngineView) -> None:
        self._policy = policy
        self._losses = losses
        self._view = view
        self._there: list[tuple[float, Paused]] | None = None
        self.free = view.free_host_blocks

    def ensure_free(self, paused: Paused, tokens: int) -> Iterator[Change]:
        """Drop contexts on the host for ``tokens`` of another context, while they are worth less than these."""
        blocks, view = -(-tokens // self._view.block_size), self._view
        if self.free >= blocks:
            return
        worth = self._policy.loss_rate(paused, tokens, self._losses, view.now)
        if self._there is None:
            self._there = self._dearest_first()
        while self.free < blocks and self._there and self._there[-1][0] < worth:
            rate, last = self._there.pop()
            if last is not paused:
                self.free += -(-last.offloaded_tokens // view.block_size)
                yield last, Discard(keep=last.resident_tokens, reasons={"host_price": rate, "price": worth})

    def _dearest_first(self) -> list[tuple[float, Paused]]:
        losses, now = self._losses, self._view.now
        there = [one for one in self._view.offloaded if not one.moving]
        rated = [(self._policy.loss_rate(one, 0, losses, now), one) for one in there]
        return sorted(rated, key=itemgetter(0), reverse=True)

    def allocate(self, tokens: int) -> bool:
        """Take free blocks for ``tokens``, as many as there are. False if there are none."""
        found = self.free > 0
        self.free = max(0, self.free - -(-tokens // self._view.block_size))
        return found
