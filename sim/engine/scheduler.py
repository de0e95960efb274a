"""Who computes in an iteration: the phases in which a plan's batch is put together."""

from __future__ import annotations

import math

from sim.costs.batch import Direction
from sim.engine.eviction import Evictor
from sim.engine.order_calls import OrderCaller
from sim.engine.plan import Plan
from sim.engine.policy_calls import DECODING
from sim.engine.preemptive import PreemptiveScheduler
from sim.engine.queues import Queues, by_key
from sim.engine.settings import EngineSettings
from sim.kv.copy import Chunk, Copy
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, Status


class Scheduler:
    """Fills a plan, phase by phase, and claims the GPU blocks that it needs.

    Args:
        settings: chunking, preemption and the rest.
        token_budget: query tokens that an iteration may compute.
        contexts, queues, room: the engine's memory, places and pressure.
        seating: under a preemptive order, who says which sessions run.
        turns: asks an order that says more than keys.
    """

    def __init__(
        self,
        settings: EngineSettings,
        token_budget: int,
        kv: KVCacheManager,
        queues: Queues,
        evictor: Evictor,
        preemptive: PreemptiveScheduler | None = None,
        turns: OrderCaller | None = None,
    ) -> None:
        self._settings = settings
        self._token_budget = token_budget
        self._kv = kv
        self._queues = queues
        self._evictor = evictor
        self._preemptive = preemptive
        self._turns = turns

    def decode(self, plan: Plan) -> None:
        """Every decoding session computes one token; while blocks lack, paused contexts give way, then later ones."""
        decoding = self._queues.decoding
        while decoding.num_sequences and not self._evictor.ensure_free(
            decoding.blocks_needed(), urgent=True, by=DECODING
        ):
            last = self._queues.latest_running()
            if self._preemptive is None or not self._preemptive.take_from_idle(last):
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
            if self._preemptive is not None and self._preemptive.take_from_idle(state):
                continue
            last = max(self._queues.prefilling.keys() - planned, key=by_key)
            if last is state:
                return False
            self._preempt(last, now)
        return True

    def admit(self, plan: Plan) -> None:
        """Sessions at the head of the queue begin, while tokens, sessions and blocks for their whole context allow."""
        queues = self._queues
        if not queues.waiting or queues.running >= queues.max_running:
            return
        if not plan.computes and self._evictor.overlapping_copies:
            return
        promised = self._promised_blocks(plan)
        while queues.waiting and queues.running < queues.max_running:
            state = queues.waiting[0][1]
            found, whole = self._kv.match_prefix(state)
            if state.samples > 1 and not queues.has_slots_for(state):
                return
            if self._chunk_tokens(state, plan, found) == 0 or self._withheld(state, plan):
                return
            self._evictor.protected = state
            fits = self._evictor.ensure_free(
                whole + promised + self._evictor.watermark_blocks, urgent=False, by=state.session.id
            )
            self._evictor.protected = None
            fits = fits and self._kv.match_prefix(state) == (found, whole)  # not by blocks of those who gave way
            if not fits or (not plan.computes and self._evictor.overlapping_copies):
                return  # copies that were begun without a limit, because nobody computed, get no batch to slow
            self._kv.reuse_prefix(state)
            queues.admit()
            tokens = self._chunk_tokens(state, plan)
            promised += self._kv.blocks_to_append(state, state.missing) - self._kv.blocks_to_append(state, tokens)
            self._compute(state, tokens, plan)

    def take_over(self, state: SessionState, tokens: int, now: float) -> Copy | None:
        """Begin to copy ``tokens`` tokens of a context in from another replica, if the whole of it finds room at once.

        Paused contexts give way for it as for an admission, except by copies beside the batch: those end too late.
        """
        self._evictor.open_budget(lambda: 0.0)
        need = self._kv.blocks_missing(state) + self._promised_blocks(Plan(now)) + self._evictor.watermark_blocks
        return (
            self._kv.begin_receive(state, tokens) if self._evictor.ensure_free(need, False, state.session.id) else None
        )

    def _withheld(self, state: SessionState, plan: Plan) -> bool:
        plan.head_refused = self._turns is not None and not self._turns.admits(state)
        return plan.head_refused

    def _chunk_tokens(self, state: SessionState, plan: Plan, found: int = 0) -> int:
        """Missing tokens, ``found`` ones left out, that this iteration may compute for ``state``; 0 for none."""
        left, missing = self._token_budget - plan.batch.query_tokens, state.missing - found
        if state.fork:
            return self._tokens_of_branches(state, missing, left, not plan.chunks)
        if self._settings.chunked_prefill:
            return min(missing, max(left, 0))
        return missing if missing <= left or not plan.chunks else 0

    def _tokens_of_branches(self, state: SessionState, missing: int, left: int, alone: bool) -> int:
        """The same of a branch set that is computed again: tokens of each branch, of which ``left`` are for all."""
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
        if self._preemptive is not None:
            self._preemptive.begin_service(state, plan.now)
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
        state.preemptions += 1
        state.interrupt(now)
        if self._settings.preemption == "swap" and self._evictor.swap_out_waiting(state):
            self._queues.wait_for_copy(state)
        else:
            self._kv.truncate(state, 0)
            self._queues.wait(state)
        if self._turns is not None:
            self._turns.preempted(state)

    def swap_in(self, plan: Plan) -> None:
        """Contexts of resumed sessions come back from the host, in the queue's order, as room and budget allow."""
        queues = self._queues
        if not queues.swapped:
            return
        self._evictor.settle_budget()
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
        """The released code's rule: with nobody waiting, the first swapped session recomputes what is offloaded."""
        state = min(self._queues.swapped, key=by_key)
        if state.copy is None:
            self._queues.remove(state)
            self._kv.truncate(state, state.resident)
            self._queues.enqueue(state)
