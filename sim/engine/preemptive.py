"""Scheduling under a preemptive order: which ready sessions run, and which contexts leave the GPU for them.

A session that must stop keeps its context on the GPU. The contexts of ready sessions that do not run are idle; memory
goes by the order, so a session takes it from those after it: first from idle ones, the one whose turn is furthest off
before the others, then from running ones, the last first.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from sim.costs.batch import Direction
from sim.engine.eviction import Evictor
from sim.engine.order_calls import PreemptiveOrderCaller
from sim.engine.plan import Plan
from sim.engine.progress_guarantee import ProgressGuarantee
from sim.engine.queues import Queues, by_key
from sim.engine.scheduler import Scheduler
from sim.engine.settings import EngineSettings
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, Status


class PreemptiveScheduler:
    """Decides before each iteration which sessions run.

    This is the rule; ``sim.engine.preemptive_fast`` has what only makes it fast.

    Args:
        settings: chunking, swaps and how a context gives way.
        token_budget: query tokens that an iteration may compute.
        order: asks the order.
        kv: the contexts and the pools.
        queues: where sessions stand.
        evictor: frees GPU blocks.
        admission: decides whether a session may begin.

    Attributes:
        order_is_moot: every ready session fits, so priorities cannot change this plan; the order is asked afterwards.
    """

    def __init__(
        self,
        settings: EngineSettings,
        token_budget: int,
        order: PreemptiveOrderCaller,
        kv: KVCacheManager,
        queues: Queues,
        evictor: Evictor,
        admission: Scheduler,
    ) -> None:
        self._admission = admission
        self._settings = settings
        self._token_budget = token_budget
        self._order = order
        self._kv = kv
        self._queues = queues
        self._evictor = evictor
        self._guarantee = ProgressGuarantee()
        self._head: SessionState | None = None  # the first that found no tokens or no memory
        self._joined_after_refusal = False
        self.order_is_moot = False
        self._max_running = queues.max_running
        self._swaps = settings.preemption == "swap"
        self._ahead_of_need = self._swaps and settings.swap == "overlapped"

    # ---- before an iteration

    def schedule(self, now: float) -> None:
        """Decide which sessions run: ready sessions in their order, while there are slots, tokens and memory.

        The first that finds no tokens or no memory stops all those behind it that would have to compute more than
        their next token; the others hold their memory already.
        """
        self._begin(now)
        self._move(self._order.reranked())
        self._limit()
        self._schedule_in_order(now)

    def _begin(self, now: float) -> None:
        if self._guarantee:
            self._guarantee.settle()
        self._head, self._joined_after_refusal = None, False

    def _limit(self) -> None:
        if self._order.limits:
            self._max_running = int(min(self._queues.max_running, self._order.max_running()))

    def _schedule_in_order(self, now: float) -> None:
        queues, kv = self._queues, self._kv
        while queues.running > self._max_running and queues.several_run:
            self._stop(queues.latest_running(), now)
        for state in self._prefills_that_may_lack_blocks():
            if state in queues.prefilling:
                self._make_room(kv.blocks_to_append(state, min(state.missing, self._token_budget)), state, now)
        for state in self._ready_queue():
            if self._full_before(state):
                break
            if state.status is Status.SWAPPED and self._full_before(state, self._arriving()):
                continue
            if not self._try_start(state, now):
                self._head = state
                break
        self._schedule_decoders(now)

    def _prefills_that_may_lack_blocks(self) -> Sequence[SessionState]:
        return sorted(self._queues.prefilling, key=by_key)

    def _ready_queue(self) -> Iterator[SessionState]:
        """Ready sessions that do not run, in the queue's order, except those whose context is being copied.

        Sessions that stop meanwhile are not among them.
        """
        queues = self._queues
        for _, state in sorted([*queues.waiting, *((one.key, one) for one in queues.swapped)]):
            if state.copy is None:
                yield state

    def _schedule_decoders(self, now: float) -> None:
        """Sessions that hold their memory and lack only their next token run on, while there are slots."""
        for state in sorted([one for one in self._idle() if _decodes(one)], key=by_key):
            if self._full_before(state):
                break
            self._joined_after_refusal |= self._try_start(state, now)

    def _move(self, moved: list[tuple[SessionState, tuple[float, ...]]]) -> None:
        waiting = []
        for state, key in moved:
            self._guarantee.set_key(state, key)
            if state.status is Status.WAITING:
                waiting.append(state)
            elif state.status is Status.SWAPPED:
                self._swapped_key_changed()
        self._queues.sift_up(waiting)

    def _swapped_key_changed(self) -> None:
        """The key of a session on the host has changed: a queue kept in order must be sorted anew."""

    def catch_up(self, ends: Sequence[float]) -> None:
        """Several iterations are over, which ended at ``ends``: an order that was left alone meanwhile catches up."""

    def _full_before(self, state: SessionState, arriving: Sequence[SessionState] = ()) -> bool:
        """Whether sessions before it in the order leave it too few slots: those that run and, for swap-ins, those on
        their
        way in. The first session of all may run even if the order allows fewer slots than it has samples."""
        queues, key = self._queues, state.key
        if queues.running + sum([one.samples for one in arriving]) + state.samples <= self._max_running:
            return False
        before = sum(one.samples for one in chain(queues.decoding, queues.prefilling, arriving) if one.key < key)
        return before > 0 and before + state.samples > self._max_running

    def _arriving(self) -> Sequence[SessionState]:
        """Sessions that are being copied in."""
        in_flight = self._kv.in_flight
        if not in_flight:
            return ()
        return [
            copy.state for copy in in_flight if copy.direction is Direction.IN and copy.state.status is Status.SWAPPED
        ]

    def _try_start(self, state: SessionState, now: float) -> bool:
        """Let a session run, or begin to copy it in. False if there are no tokens or no memory for it yet."""
        terms = _InOrder(self, now)
        if state.status is Status.SWAPPED:
            if self._admission.copies_lack_a_batch(terms):
                return False
            if not self._swap_in(state, now):
                return state.copy is not None
        return self._admission.try_admit(state, terms)

    def begin_service(self, state: SessionState, now: float) -> None:
        """The coming iteration computes for a session that waited."""
        state.begin_service(now)
        self._order.runs(state)

    def _swap_in(self, state: SessionState, now: float) -> bool:
        """Copy a context in as far as the budget goes. True if it is all there, and its session waits to run."""
        kv = self._kv
        need = kv.blocks_missing(state) + self._evictor.watermark_blocks
        if not self._make_room(need, state, now):
            return False
        copy = self._evictor.begin_swap_in(state)
        if copy is not None:
            self._guarantee.grant(state)
            self._swapped_key_changed()
        if copy is not None and copy.blocking:
            kv.finish(copy)
            self._queues.swapped_in(state)
        return state.status is Status.WAITING

    def _finds_tokens(self, state: SessionState) -> bool:
        """Whether the iteration has tokens left for a session after the missing ones of those before it."""
        before = [one for one in self._queues.prefilling if one.key < state.key]
        left = self._token_budget - sum(one.queries(one.resident, one.missing) for one in before)
        if self._settings.mixed_batches:
            others = self._max_running - state.samples - sum(one.samples for one in before)
            left -= min(self._queues.decoding.num_sequences, others)
        if not before:
            return True
        return left >= (
            state.samples if self._settings.chunked_prefill else state.queries(state.resident, state.missing)
        )

    def _stop(self, state: SessionState, now: float) -> None:
        """A running session must wait; its context stays."""
        self._queues.stop(state)
        if math.isnan(state.waits_since):
            state.interrupt(now)
            state.stats.preemptions += 1
            self._order.preempted(state)
        self._queues.wait(state)

    # ---- memory

    def _idle(self) -> list[SessionState]:
        """Ready sessions that do not run and hold GPU memory that is not being copied."""
        ready = [*self._queues.swapped, *(state for _, state in self._queues.waiting)]
        return [one for one in ready if one.copy is None and one in self._kv.idle_gpu]

    def _copyable(self) -> list[SessionState]:
        """Idle sessions that can leave by a copy: not branch sets in the middle of their call."""
        return [one for one in self._idle() if not one.fork]

    def _idle_after(self, state: SessionState) -> list[SessionState]:
        return [one for one in self._idle() if one.key > state.key]

    def _by_turn(self, idle: list[SessionState]) -> list[SessionState]:
        """Idle sessions in the order in which they give way."""
        return self._order.by_expected_turn(sorted(idle, key=by_key))[::-1]

    def _make_room(self, blocks: int, state: SessionState, now: float) -> bool:
        """See that ``blocks`` blocks are free beyond those promised before and those that decoding sessions take now;
        paused contexts give way, then later ones.

        No session gives way unless it is enough; copies beside the batch free their blocks at their end.
        """
        kv, evictor, decoding = self._kv, self._evictor, self._queues.decoding
        blocks += self._promised(state)
        if evictor.ensure_free(blocks + decoding.blocks_needed(), False, state.session.id):
            return True
        idle, key = self._idle_after(state), state.key
        running = [one for one in (*decoding, *self._queues.prefilling) if one.key > key]
        held = sum(kv.blocks_held(one) for one in (*idle, *running))
        growing = sum(kv.blocks_to_append(one, 1) for one in decoding if one.key < key)
        if held == 0 or not evictor.ensure_free(blocks + growing - held, False, state.session.id):
            return False
        for one in (*self._by_turn(idle), *sorted(running, key=by_key, reverse=True)):
            free = kv.gpu.free_blocks + kv.blocks_being_freed()
            if free >= blocks + decoding.blocks_needed() or not self._leaves(one, now):
                break
        return kv.gpu.free_blocks >= blocks + decoding.blocks_needed()

    def _promised(self, state: SessionState) -> int:
        """GPU blocks that sessions before ``state`` will take, beyond the next token of those that decode."""
        coming = chain(self._queues.prefilling, self._arriving())
        return sum(self._kv.blocks_to_allocate(one) for one in coming if one.key < state.key)

    def _leaves(self, state: SessionState, now: float) -> bool:
        """A context gives way for a session before it. False if the budget allows no copy beside the batch now."""
        beside = self._ahead_of_need and self._kv.host.free_blocks > 0 and not state.fork
        if beside and not self._evictor.budget.covers_a_block(Direction.OUT):
            return False
        if state.status is Status.PREFILLING or state.status is Status.DECODING:
            self._stop(state, now)
        if not beside:
            self._leave_at_once(state)
            return True
        return self._evictor.swap_out_beside(state)

    def _leave_at_once(self, state: SessionState) -> None:
        """An idle context is copied out while the batch waits, or is forgotten."""
        if self._swaps and self._evictor.swap_out_waiting(state):
            return
        self._kv.truncate(state, 0)
        if state.status is Status.SWAPPED:
            self._queues.remove(state)
            self._queues.wait(state)

    def take_from_idle(self, after: SessionState) -> bool:
        """A running session lacks blocks: one idle context after it in the order leaves at once. False for none."""
        idle = self._idle_after(after)
        if idle:
            self._leave_at_once(self._by_turn(idle)[0])
        return bool(idle)

    # ---- copies ahead of need

    def swap_ahead(self) -> None:
        """Contexts whose turn comes soonest come back into memory that is not needed, within the swap budget.

        Blocks are spoken for by running sessions, as many as they lack, and by the first that waits, for its whole
        context: what other sessions leave for it stays free.
        """
        kv, evictor, head = self._kv, self._evictor, self._head
        if not self._ahead_of_need or not self._queues.swapped:
            return
        evictor.budget.settle()
        promised = sum(kv.blocks_to_append(state, state.missing) for state in self._queues.prefilling)
        if head is not None and head.copy is None:
            promised += kv.blocks_missing(head)
        spare = kv.gpu.free_blocks - promised - evictor.watermark_blocks
        if spare <= 0 or not evictor.budget.covers_a_block(Direction.IN):
            return
        away = [state for state in self._queues.swapped if state.copy is None and state is not head]
        needs = {state: kv.blocks_missing(state) for state in away}
        if min(needs.values(), default=math.inf) > spare:
            return
        for state in self._order.by_expected_turn(sorted(away, key=by_key)):
            if (
                needs[state] + promised + evictor.watermark_blocks <= kv.gpu.free_blocks
                and evictor.begin_swap_in(state) is None
            ):
                return

    def maintain_watermark(self) -> None:
        """Idle contexts leave beside the batch, furthest turn first, until the watermark is free."""
        kv, evictor = self._kv, self._evictor
        if not self._short() or kv.blocks_being_freed() >= evictor.watermark_blocks - kv.gpu.free_blocks:
            return
        if not evictor.budget.covers_a_block(Direction.OUT):
            return
        for state in self._by_turn(self._copyable()):
            lacking = evictor.watermark_blocks - kv.gpu.free_blocks - kv.blocks_being_freed()
            if lacking <= 0 or not evictor.budget.covers_a_block(Direction.OUT) or not evictor.swap_out_beside(state):
                return

    def _short(self) -> bool:
        return self._ahead_of_need and self._kv.gpu.free_blocks < self._evictor.watermark_blocks

    @property
    def unsettled(self) -> bool:
        """Whether the next plan may differ though the order stands: a turn that was owed ends with the next token,
        paused contexts may leave beside sessions that joined since they were asked, or the watermark is not free and
        an idle
        context could yet leave for it."""
        if self._guarantee or self._joined_after_refusal:
            return True
        return self._short() and self._kv.host.free_blocks > 0 and bool(self._copyable())

    def iterations_until_review(self, plan: Plan) -> float:
        """Iterations, from that of ``plan`` on, after which the order must be asked; 0 if it must be asked now.

        The time of its review is noted in ``plan.review_at``.
        """
        if self.order_is_moot:
            return math.inf
        review = self._order.next_review()
        if review <= plan.now:
            return 0
        plan.review_at = min(plan.review_at, review)
        return self._order.iterations()

    def untouched_blocks(self) -> int:
        """Free blocks that decoding may not use before idle contexts are asked to leave."""
        could = self._ahead_of_need and self._kv.host.free_blocks > 0 and self._copyable()
        return self._evictor.watermark_blocks if could else 0


def _decodes(state: SessionState) -> bool:
    """Whether a waiting session has all but the token that it emitted last, and goes on with the next one."""
    return state.missing == 1 and state.emitted > 0 and state.offloaded == 0


class _InOrder:
    """Terms of admission under a preemptive order: sessions after it in the order give way."""

    __slots__ = ("_now", "_scheduler")

    def __init__(self, scheduler: PreemptiveScheduler, now: float) -> None:
        self._scheduler, self._now = scheduler, now

    def batch_is_empty(self) -> bool:
        return not self._scheduler._queues.running

    def has_tokens(self, state: SessionState) -> bool:
        return _decodes(state) or self._scheduler._finds_tokens(state)

    def make_room(self, state: SessionState) -> bool:
        scheduler = self._scheduler
        blocks = scheduler._kv.blocks_to_append(state, state.missing)
        watermark = 0 if _decodes(state) else scheduler._evictor.watermark_blocks
        return scheduler._make_room(blocks + watermark, state, self._now)

    def begin(self, state: SessionState) -> None:
        scheduler, queues = self._scheduler, self._scheduler._queues
        while queues.running and queues.running + state.samples > scheduler._max_running:
            scheduler._stop(queues.latest_running(), self._now)
        queues.remove(state)
        scheduler._guarantee.grant(state)
        if _decodes(state):
            scheduler.begin_service(state, self._now)
            queues.start_decoding(state)
        else:
            scheduler._kv.reuse_prefix(state)
            queues.start(state)
        scheduler._evictor.budget.settle()
