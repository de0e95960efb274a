"""Scheduling: the phases in which a plan's batch is put together, and the one admission."""

from __future__ import annotations

import math
from typing import Protocol

from sim.costs.batch import Direction
from sim.engine.eviction import Evictor
from sim.engine.order_calls import OrderCaller
from sim.engine.plan import Plan
from sim.engine.policy_calls import DECODING
from sim.engine.queues import Queues, by_key
from sim.engine.settings import EngineSettings
from sim.kv.copy import Chunk, Copy
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, Status


class AdmissionTerms(Protocol):
    """What ``Scheduler.try_admit`` asks of the order of service: plain (``_QueueHead``) or preemptive."""

    def batch_is_empty(self) -> bool:
        """Whether the iteration that is planned computes nothing so far."""

    def has_tokens(self, state: SessionState) -> bool:
        """Whether the iteration has a slot and tokens left for a session."""

    def make_room(self, state: SessionState) -> bool:
        """See that GPU blocks for the session's whole context are free; others may be evicted."""

    def begin(self, state: SessionState) -> None:
        """The session begins: it leaves its queue and computes."""


class Preemption(Protocol):
    """What a preemptive order changes for sessions that run: ``sim.engine.preemptive``."""

    def take_from_idle(self, after: SessionState) -> bool:
        """Evict one idle context that comes after a running session. False if there is none."""

    def begin_service(self, state: SessionState, now: float) -> None:
        """The coming iteration computes for a session that waited."""


class Scheduler:
    """Fills a plan, phase by phase, and claims the GPU blocks that it needs.

    Args:
        settings: chunking, preemption and the rest.
        token_budget: query tokens that an iteration may compute.
        kv: the contexts and the pools.
        queues: where sessions stand.
        evictor: frees GPU blocks.
        order_caller: asks an order that says more than keys.

    Attributes:
        preemption: which sessions run is decided by ``sim.engine.preemptive`` under a preemptive order; else None.
    """

    def __init__(
        self,
        settings: EngineSettings,
        token_budget: int,
        kv: KVCacheManager,
        queues: Queues,
        evictor: Evictor,
        order_caller: OrderCaller | None = None,
    ) -> None:
        self._settings = settings
        self._token_budget = token_budget
        self._kv = kv
        self._queues = queues
        self._evictor = evictor
        self.preemption: Preemption | None = None
        self._order_caller = order_caller

    def decode(self, plan: Plan) -> None:
        """Every decoding session computes one token; while blocks lack, paused contexts give way, then later ones."""
        decoding = self._queues.decoding
        while decoding.num_sequences and not self._evictor.ensure_free(
            decoding.blocks_needed(), urgent=True, by=DECODING
        ):
            last = self._queues.latest_running()
            if self.preemption is None or not self.preemption.take_from_idle(last):
                self._preempt(last, plan.now)
        if decoding.num_sequences:
            self._kv.claim(decoding.blocks_needed())
            plan.decoding = True
            plan.batch.decode_sessions = decoding.num_sequences
            plan.batch.decode_context = decoding.read_tokens + decoding.num_sequences
            plan.batch.decode_spread = decoding.spread

    def prefill(self, plan: Plan) -> None:
        """Sessions admitted before compute on, in the queue's order; they may preempt later ones of their kind."""
        prefilling = self._queues.prefilling
        if not prefilling:
            return
        planned = {chunk.state for chunk in plan.chunks}
        for state in sorted(prefilling, key=by_key):
            if state not in prefilling or state in planned:
                continue
            tokens = self._chunk_tokens(state, plan)
            if tokens == 0:
                return
            if self._room_for_chunk(state, tokens, planned, plan.now):
                self._compute(state, tokens, plan)
                planned.add(state)

    def _room_for_chunk(self, state: SessionState, tokens: int, planned: set[SessionState], now: float) -> bool:
        while not self._evictor.ensure_free(self._kv.blocks_to_append(state, tokens), urgent=True, by=state.session.id):
            if self.preemption is not None and self.preemption.take_from_idle(state):
                continue
            last = max(self._queues.prefilling.keys() - planned, key=by_key)
            if last is state:
                return False
            self._preempt(last, now)
        return True

    def admit(self, plan: Plan) -> None:
        """Sessions at the head of the queue begin, while tokens, slots and blocks for their whole context allow."""
        queues = self._queues
        if not queues.waiting or queues.running >= queues.max_running:
            return
        terms = _QueueHead(self, plan)
        if self.copies_lack_a_batch(terms):
            return
        terms.promised = self._promised_blocks(plan)
        while queues.waiting and queues.running < queues.max_running and self.try_admit(queues.waiting[0][1], terms):
            pass

    def try_admit(self, state: SessionState, terms: AdmissionTerms) -> bool:
        """Let a ready session begin, if it may: the one admission, under plain and preemptive orders alike.

        First all questions, then the deed. A session begins when ``terms`` has a slot and tokens for it and finds room
        for its context, and no copies run beside a batch that is still empty: such copies were begun without a limit,
        and the batch would be slowed by them. That is asked again after room was made, because evictions begin copies.
        """
        if self.copies_lack_a_batch(terms) or not terms.has_tokens(state) or not terms.make_room(state):
            return False
        if self.copies_lack_a_batch(terms):
            return False
        terms.begin(state)
        return True

    def copies_lack_a_batch(self, terms: AdmissionTerms) -> bool:
        """Whether copies run beside a batch that is still empty."""
        return terms.batch_is_empty() and self._evictor.budget.overlapping

    def take_over(self, state: SessionState, tokens: int, now: float) -> Copy | None:
        """Begin to copy ``tokens`` tokens of a context in from another replica, if the whole of it finds room at once.

        Paused contexts give way for it as for an admission, except by copies beside the batch: those end too late.
        """
        self._evictor.budget.open(lambda: 0.0)
        need = self._kv.blocks_missing(state) + self._promised_blocks(Plan(now)) + self._evictor.watermark_blocks
        return (
            self._kv.begin_receive(state, tokens) if self._evictor.ensure_free(need, False, state.session.id) else None
        )

    def _chunk_tokens(self, state: SessionState, plan: Plan, found: int = 0) -> int:
        """Missing tokens, ``found`` ones left out, that this iteration may compute for ``state``; 0 for none."""
        left, missing = self._token_budget - plan.batch.query_tokens, state.missing - found
        if state.fork:
            return self._tokens_of_branches(state, missing, left, not plan.chunks)
        if self._settings.chunked_prefill:
            return min(missing, max(left, 0))
        return missing if missing <= left or not plan.chunks else 0

    def _tokens_of_branches(self, state: SessionState, missing: int, left: int, alone: bool) -> int:
        """``_chunk_tokens`` of a branch set that is recomputed: tokens of each branch, where all may have ``left``."""
        start = state.context - missing
        if not self._settings.chunked_prefill:
            return missing if state.queries(start, missing) <= left or alone else 0
        shared = max(0, state.fork - start)
        return min(missing, max(left, 0) if left <= shared else shared + (left - shared) // state.samples)

    def _compute(self, state: SessionState, tokens: int, plan: Plan) -> None:
        start = state.resident
        self._kv.claim(self._kv.blocks_to_append(state, tokens))
        plan.chunks.append(Chunk(state, start, tokens, max(0, min(start + tokens, state.peak) - start)))
        plan.batch.add_missing(state, start, tokens)
        if math.isnan(state.scheduled_at):
            state.scheduled_at = plan.now
            plan.started.append(state)
            plan.batch.new_calls += 1
            plan.batch.first_calls += state.call_index == 0
        if math.isnan(state.waits_since):
            return
        if self.preemption is not None:
            self.preemption.begin_service(state, plan.now)
        else:
            state.begin_service(plan.now)

    def _promised_blocks(self, plan: Plan) -> int:
        """GPU blocks that sessions under way will still take, beyond what this plan has claimed for them."""
        kv, planned = self._kv, {chunk.state: chunk.tokens for chunk in plan.chunks}
        promised = 0
        for state in self._queues.prefilling:
            promised += kv.blocks_to_append(state, state.missing) - kv.blocks_to_append(state, planned.get(state, 0))
        for state in self._queues.swapped:
            leaving = state.copy is not None and state.copy.direction is Direction.OUT
            if (state.resident or state.copy is not None) and not leaving:
                promised += kv.blocks_to_allocate(state)
        return promised

    def _preempt(self, state: SessionState, now: float) -> None:
        """A running session gives way: its context is swapped out or forgotten, and it queues again."""
        self._queues.stop(state)
        state.stats.preemptions += 1
        state.interrupt(now)
        if self._settings.preemption == "swap" and self._evictor.swap_out_waiting(state):
            self._queues.wait_for_copy(state)
        else:
            self._kv.truncate(state, 0)
            self._queues.wait(state)
        if self._order_caller is not None:
            self._order_caller.preempted(state)

    def swap_in(self, plan: Plan) -> None:
        """Contexts of resumed sessions come back from the host, in the queue's order, as room and budget allow."""
        queues = self._queues
        if not queues.swapped:
            return
        self._evictor.budget.settle()
        if self._settings.recompute_swapped_when_idle and not queues.waiting:
            self._recompute_first_swapped()
        arriving = sum(state.samples for state in queues.swapped if state.copy is not None)
        for state in sorted(queues.swapped, key=by_key):
            if state.copy is not None:
                continue
            need = self._kv.blocks_missing(state)
            if not queues.has_slots_for(state, arriving) or not self._evictor.ensure_free(
                need, False, state.session.id
            ):
                return
            copy = self._evictor.begin_swap_in(state)
            if copy is None:
                return
            if copy.blocking:
                self._arrive(copy, plan)
            else:
                arriving += state.samples

    def _arrive(self, copy: Copy, plan: Plan) -> None:
        """A blocking copy in is done before the batch computes: its session computes in the same iteration."""
        state = copy.state
        self._kv.finish(copy)
        self._queues.swapped_in(state)
        if state.status is Status.PREFILLING and self._settings.mixed_batches:
            tokens = self._chunk_tokens(state, plan)
            if tokens and self._kv.blocks_to_append(state, tokens) <= self._kv.gpu.free_blocks:
                self._compute(state, tokens, plan)

    def _recompute_first_swapped(self) -> None:
        """The released code's rule: with an empty queue, the first swapped session recomputes what is offloaded."""
        state = min(self._queues.swapped, key=by_key)
        if state.copy is None:
            self._queues.remove(state)
            self._kv.truncate(state, state.resident)
            self._queues.enqueue(state)


class _QueueHead:
    """Terms for the head of the queue, under an order that preempts nothing: what is free, or paused contexts leave.

    Attributes:
        promised: GPU blocks that sessions under way will still take.
    """

    def __init__(self, scheduler: Scheduler, plan: Plan) -> None:
        self._scheduler, self._plan = scheduler, plan
        self.promised = 0
        self._prefix = (0, 0)

    def batch_is_empty(self) -> bool:
        return not self._plan.computes

    def has_tokens(self, state: SessionState) -> bool:
        scheduler, plan = self._scheduler, self._plan
        self._prefix = found, _ = scheduler._kv.match_prefix(state)
        if state.samples > 1 and not scheduler._queues.has_slots_for(state):
            return False
        if scheduler._chunk_tokens(state, plan, found) == 0:
            return False
        plan.head_refused = scheduler._order_caller is not None and not scheduler._order_caller.admits(state)
        return not plan.head_refused

    def make_room(self, state: SessionState) -> bool:
        evictor, kv = self._scheduler._evictor, self._scheduler._kv
        blocks = self._prefix[1] + self.promised + evictor.watermark_blocks
        evictor.protected = state
        fits = evictor.ensure_free(blocks, urgent=False, by=state.session.id)
        evictor.protected = None
        return fits and kv.match_prefix(state) == self._prefix  # what it would reuse was not evicted for it

    def begin(self, state: SessionState) -> None:
        scheduler, kv = self._scheduler, self._scheduler._kv
        kv.reuse_prefix(state)
        scheduler._queues.admit()
        tokens = scheduler._chunk_tokens(state, self._plan)
        self.promised += kv.blocks_to_append(state, state.missing) - kv.blocks_to_append(state, tokens)
        scheduler._compute(state, tokens, self._plan)
