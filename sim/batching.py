"""Who computes in an iteration: the phases in which a plan's batch is put together."""

from __future__ import annotations

import math

from sim.contexts import Contexts
from sim.counsel import DECODING
from sim.live import LiveSession, State
from sim.plan import Chunk, Copy, Direction, Plan
from sim.precedence import Turns
from sim.queues import Queues, by_key
from sim.room import Room
from sim.seating import Seating
from sim.settings import EngineSettings


class Batching:
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
        contexts: Contexts,
        queues: Queues,
        room: Room,
        seating: Seating | None = None,
        turns: Turns | None = None,
    ) -> None:
        self._settings = settings
        self._token_budget = token_budget
        self._contexts = contexts
        self._queues = queues
        self._room = room
        self._seating = seating
        self._turns = turns

    def decode(self, plan: Plan) -> None:
        """Every decoding session computes one token; while blocks lack, paused contexts give way, then later ones."""
        decoding = self._queues.decoding
        while decoding.seats and not self._room.make(decoding.blocks_needed(), urgent=True, by=DECODING):
            last = self._queues.latest_running()
            if self._seating is None or not self._seating.take_from_idle(last):
                self._preempt(last, plan.now)
        if decoding.seats:
            self._contexts.claim(decoding.blocks_needed())
            plan.decoding = True
            plan.batch.decode_sessions = decoding.seats
            plan.batch.decode_context = decoding.read_tokens + decoding.seats
            plan.batch.decode_spread = decoding.spread

    def prefill(self, plan: Plan) -> None:
        """Sessions admitted before compute on, in the queue's order; they may preempt later ones of their kind."""
        prefilling = self._queues.prefilling
        if not prefilling:
            return
        planned = {chunk.live for chunk in plan.chunks}
        for live in sorted(prefilling, key=by_key):
            if live not in prefilling or live in planned:
                continue
            tokens = self._chunk_tokens(live, plan)
            if tokens == 0:
                return
            if self._room_for_chunk(live, tokens, planned, plan.now):
                self._compute(live, tokens, plan)
                planned.add(live)

    def _room_for_chunk(self, live: LiveSession, tokens: int, planned: set[LiveSession], now: float) -> bool:
        while not self._room.make(self._contexts.growth(live, tokens), urgent=True, by=live.session.id):
            if self._seating is not None and self._seating.take_from_idle(live):
                continue
            last = max(self._queues.prefilling.keys() - planned, key=by_key)
            if last is live:
                return False
            self._preempt(last, now)
        return True

    def admit(self, plan: Plan) -> None:
        """Sessions at the head of the queue begin, while tokens, sessions and blocks for their whole context allow."""
        queues = self._queues
        if not queues.waiting or queues.running >= queues.most_running:
            return
        if not plan.computes and self._room.copies_beside:
            return
        promised = self._promised_blocks(plan)
        while queues.waiting and queues.running < queues.most_running:
            live = queues.waiting[0][1]
            found, whole = self._contexts.found(live)
            if live.samples > 1 and not queues.seats_for(live):
                return
            if self._chunk_tokens(live, plan, found) == 0 or self._withheld(live, plan):
                return
            self._room.spared = live
            fits = self._room.make(whole + promised + self._room.watermark_blocks, urgent=False, by=live.session.id)
            self._room.spared = None
            fits = fits and self._contexts.found(live) == (found, whole)  # not by blocks of those who gave way
            if not fits or (not plan.computes and self._room.copies_beside):
                return  # copies that were begun without a limit, because nobody computed, get no batch to slow
            self._contexts.take_found(live)
            queues.admit()
            tokens = self._chunk_tokens(live, plan)
            promised += self._contexts.growth(live, live.missing) - self._contexts.growth(live, tokens)
            self._compute(live, tokens, plan)

    def take_over(self, live: LiveSession, tokens: int, now: float) -> Copy | None:
        """Begin to copy ``tokens`` tokens of a context in from another replica, if the whole of it finds room at once.

        Paused contexts give way for it as for an admission, except by copies beside the batch: those end too late.
        """
        self._room.open_budget(lambda: 0.0)
        need = self._contexts.lacking(live) + self._promised_blocks(Plan(now)) + self._room.watermark_blocks
        return self._contexts.begin_over(live, tokens) if self._room.make(need, False, live.session.id) else None

    def _withheld(self, live: LiveSession, plan: Plan) -> bool:
        plan.withheld = self._turns is not None and not self._turns.admits(live)
        return plan.withheld

    def _chunk_tokens(self, live: LiveSession, plan: Plan, found: int = 0) -> int:
        """Missing tokens, ``found`` ones left out, that this iteration may compute for ``live``; 0 for none."""
        left, missing = self._token_budget - plan.batch.query_tokens, live.missing - found
        if live.fork:
            return self._tokens_of_branches(live, missing, left, not plan.chunks)
        if self._settings.chunked_prefill:
            return min(missing, max(left, 0))
        return missing if missing <= left or not plan.chunks else 0

    def _tokens_of_branches(self, live: LiveSession, missing: int, left: int, alone: bool) -> int:
        """The same of a branch set that is computed again: tokens of each branch, of which ``left`` are for all."""
        start = live.context - missing
        if not self._settings.chunked_prefill:
            return missing if live.queries(start, missing) <= left or alone else 0
        shared = max(0, live.fork - start)
        return min(missing, max(left, 0) if left <= shared else shared + (left - shared) // live.samples)

    def _compute(self, live: LiveSession, tokens: int, plan: Plan) -> None:
        start = live.resident
        self._contexts.claim(self._contexts.growth(live, tokens))
        plan.chunks.append(Chunk(live, start, tokens, max(0, min(start + tokens, live.peak) - start)))
        plan.batch.add_missing(live, start, tokens)
        if math.isnan(live.scheduled_at):
            live.scheduled_at = plan.now
            plan.started.append(live)
            plan.batch.begun += 1
            plan.batch.opened += live.call_index == 0
        if math.isnan(live.waits_since):
            return
        if self._seating is not None:
            self._seating.begin_service(live, plan.now)
        else:
            live.begin_service(plan.now)

    def _promised_blocks(self, plan: Plan) -> int:
        """GPU blocks that sessions under way will still take, beyond what this plan has claimed for them."""
        contexts, planned = self._contexts, {chunk.live: chunk.tokens for chunk in plan.chunks}
        promised = 0
        for live in self._queues.prefilling:
            promised += contexts.growth(live, live.missing) - contexts.growth(live, planned.get(live, 0))
        for live in self._queues.swapped:
            leaving = live.copy is not None and live.copy.direction is Direction.OUT
            if (live.resident or live.copy is not None) and not leaving:
                promised += contexts.to_come(live)
        return promised

    def _preempt(self, live: LiveSession, now: float) -> None:
        """A running session gives way: its context is swapped out or forgotten, and it queues again."""
        self._queues.stop(live)
        live.preemptions += 1
        live.interrupt(now)
        if self._settings.preemption == "swap" and self._room.swap_out_waiting(live):
            self._queues.wait_for_copy(live)
        else:
            self._contexts.keep_only(live, 0)
            self._queues.wait(live)
        if self._turns is not None:
            self._turns.preempted(live)

    def swap_in(self, plan: Plan) -> None:
        """Contexts of resumed sessions come back from the host, in the queue's order, as room and budget allow."""
        queues = self._queues
        if not queues.swapped:
            return
        self._room.settle_budget()
        if self._settings.recompute_swapped_when_idle and not queues.waiting:
            self._recompute_first_swapped()
        arriving = sum(live.samples for live in queues.swapped if live.copy is not None)
        for live in sorted(queues.swapped, key=by_key):
            if live.copy is not None:
                continue
            need = self._contexts.lacking(live)
            if not queues.seats_for(live, arriving) or not self._room.make(need, False, live.session.id):
                return
            copy = self._room.begin_in(live)
            if copy is None:
                return
            if copy.blocking:
                self._arrive(copy, plan)
            else:
                arriving += live.samples

    def _arrive(self, copy: Copy, plan: Plan) -> None:
        """A blocking copy in is done before the batch computes: its session computes in the same iteration."""
        live = copy.live
        self._contexts.finish(copy)
        self._queues.arrived(live)
        if live.state is State.PREFILLING and self._settings.mixed_batches:
            tokens = self._chunk_tokens(live, plan)
            if tokens and self._contexts.growth(live, tokens) <= self._contexts.gpu.free:
                self._compute(live, tokens, plan)

    def _recompute_first_swapped(self) -> None:
        """The released code's rule: with nobody waiting, the first swapped session recomputes what is offloaded."""
        live = min(self._queues.swapped, key=by_key)
        if live.copy is None:
            self._queues.withdraw(live)
            self._contexts.keep_only(live, live.resident)
            self._queues.enqueue(live)
