"""Under a preemptive order: who of all ready sessions runs, and whose contexts leave the GPU for them.

A session that must stop keeps its context on the GPU. The contexts of ready sessions that do not run are idle; memory
goes by the order, so a session takes it from those after it: first from idle ones, the one whose turn is furthest off
before the others, then from running ones, the last first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain

from sim.costs.batch import Direction
from sim.engine.eviction import Evictor
from sim.engine.order_calls import PreemptiveOrderCaller
from sim.engine.progress_guarantee import ProgressGuarantee
from sim.engine.queues import Queues, by_key
from sim.engine.ready_queue import ReadyQueue
from sim.engine.settings import EngineSettings
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, Status


class PreemptiveScheduler:
    """Seats sessions before each iteration.

    Args:
        settings: chunking, swaps and how a context gives way.
        token_budget: query tokens that an iteration may compute.
        precedence: asks the order.
        contexts, queues, room: the engine's memory, places and pressure.

    Attributes:
        order_is_moot: whether nobody's place matters in the iteration that is planned, and the order is told of it
        afterwards.
    """

    def __init__(
        self,
        settings: EngineSettings,
        token_budget: int,
        preemptive_order: PreemptiveOrderCaller,
        kv: KVCacheManager,
        queues: Queues,
        evictor: Evictor,
    ) -> None:
        self._settings = settings
        self._token_budget = token_budget
        self._preemptive_order = preemptive_order
        self._kv = kv
        self._queues = queues
        self._evictor = evictor
        self._ready_queue = ReadyQueue(queues)
        self._guarantee = ProgressGuarantee()
        self._head: SessionState | None = None  # the first that found no tokens or no memory
        self._joined_after_refusal = False
        self.order_is_moot = False
        self._max_running = queues.max_running
        self._swaps = settings.preemption == "swap"
        self._ahead_of_need = self._swaps and settings.swap == "overlapped"

    # ---- before an iteration

    def schedule(self, now: float) -> None:
        """Decide who runs: ready sessions in their order, while there are places, tokens and memory.

        The first that finds no tokens or no memory stops all those behind it that would have to compute more than
        their next token; the others hold their memory already.
        """
        queues, preemptive_order = self._queues, self._preemptive_order
        if self._guarantee:
            self._guarantee.settle()
        self._head, self._joined_after_refusal = None, False
        prompts = self._prompts_compete()
        enough = (
            preemptive_order.lazy_rerank and (preemptive_order.keys_drift or not prompts) and self._enough_for_all()
        )
        contended = prompts or not enough
        if not enough:
            self._move(preemptive_order.reranked())
        elif prompts or preemptive_order.next_review() <= now:
            self.rerank()
        if preemptive_order.limits:
            self._max_running = int(min(queues.max_running, preemptive_order.max_running()))
        if contended:
            self._schedule_in_order(now)
        elif queues.waiting or queues.swapped:
            self._schedule_all(now)
        self.order_is_moot = not (contended or queues.waiting or queues.swapped)

    def _schedule_all(self, now: float) -> None:
        """There are places and blocks for all who are ready; only tokens may be lacking.

        Then the first that finds none stops all that would have to compute more than their next token.
        """
        for state in self._ready_queue:
            if not self._seat_one(state, now):
                self._head = state
                self._schedule_decoders(now)
                return

    def _schedule_in_order(self, now: float) -> None:
        queues, kv = self._queues, self._kv
        while queues.running > self._max_running and queues.several_run:
            self._stop(queues.latest_running(), now)
        prefills = sorted(queues.prefilling, key=by_key) if self._unpromised_blocks() < 0 or kv.gpu.cached else ()
        for state in prefills:
            if state in queues.prefilling:
                self._make_room(kv.blocks_to_append(state, min(state.missing, self._token_budget)), state, now)
        for state in self._ready_queue:
            if self._full_before(state):
                break
            if state.status is Status.SWAPPED and self._full_before(state, self._arriving()):
                continue
            if not self._seat_one(state, now):
                self._head = state
                break
        self._schedule_decoders(now)

    def _schedule_decoders(self, now: float) -> None:
        """Those who hold their memory and compute but their next token run on, while there are places."""
        for state in sorted([one for one in self._idle() if _decodes(one)], key=by_key):
            if self._full_before(state):
                break
            self._joined_after_refusal |= self._seat_one(state, now)

    def _prompts_compete(self) -> bool:
        """Whether somebody computes a prompt beside others that have yet to."""
        queues = self._queues
        if len(queues.prefilling) != 1:
            return len(queues.prefilling) > 1
        return bool(queues.waiting or queues.swapped or self._kv.gpu.cached)

    def _enough_for_all(self) -> bool:
        """Whether there are places and blocks for all who are ready: then no place of those who decode matters."""
        queues, kv = self._queues, self._kv
        seats, blocks = queues.running, self._unpromised_blocks()
        if not (queues.waiting or queues.swapped):
            return blocks >= 0
        for state in (*[state for _, state in queues.waiting], *queues.swapped):
            seats += state.samples
            if state.copy is None:
                blocks -= kv.blocks_missing(state)
            leaves = state.copy is not None and state.copy.direction is Direction.OUT
            if leaves or seats > queues.max_running or blocks < self._evictor.watermark_blocks:
                return False
        return blocks >= 0

    def rerank(self) -> None:
        """Sessions stand where the order wants them from now on, as far as it matters while all who decode go on."""
        self._move(self._preemptive_order.reranked_beside_decoders())

    def _move(self, moved: list[tuple[SessionState, tuple[float, ...]]]) -> None:
        waiting = []
        for state, key in moved:
            self._guarantee.set_key(state, key)
            if state.status is Status.WAITING:
                waiting.append(state)
            elif state.status is Status.SWAPPED:
                self._ready_queue.swapped_moved()
        self._queues.sift_up(waiting)

    def _full_before(self, state: SessionState, arriving: Sequence[SessionState] = ()) -> bool:
        """Whether those before it in the order leave it too few places: who runs and, as to copies in, who is on the
        way. With nobody before it, it may run even if the order would have fewer run than it has samples."""
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

    def _seat_one(self, state: SessionState, now: float) -> bool:
        """Let a session run, or begin to copy it in. False if there are no tokens or no memory for it yet."""
        queues, evictor = self._queues, self._evictor
        if not queues.running and evictor.overlapping_copies:
            return False  # copies that were begun without a limit, because nobody computed, get no batch to slow
        if state.status is Status.SWAPPED and not self._bring_back(state, now):
            return state.copy is not None
        decodes = _decodes(state)
        if not decodes and not self._finds_tokens(state):
            return False
        growth = self._kv.blocks_to_append(state, state.missing)
        if not self._make_room(growth + (0 if decodes else evictor.watermark_blocks), state, now):
            return False
        while queues.running and queues.running + state.samples > self._max_running:
            self._stop(queues.latest_running(), now)
        queues.remove(state)
        self._guarantee.grant(state)
        if decodes:
            self.begin_service(state, now)
            queues.start_decoding(state)
        else:
            self._kv.reuse_prefix(state)
            queues.start(state)
        evictor.settle_budget()
        return True

    def begin_service(self, state: SessionState, now: float) -> None:
        """The coming iteration computes for a session that waited."""
        state.begin_service(now)
        self._preemptive_order.runs(state)

    def _bring_back(self, state: SessionState, now: float) -> bool:
        """Copy a context in as far as the budget goes. True if it is all there, and its session waits to run."""
        kv = self._kv
        need = kv.blocks_missing(state) + self._evictor.watermark_blocks
        if not self._make_room(need, state, now):
            return False
        copy = self._evictor.begin_swap_in(state)
        if copy is not None:
            self._guarantee.grant(state)
            self._ready_queue.swapped_moved()
        if copy is not None and copy.blocking:
            kv.finish(copy)
            self._queues.swapped_in(state)
        return state.status is Status.WAITING

    def _finds_tokens(self, state: SessionState) -> bool:
        """Whether the iteration has tokens left for it after the missing ones of those before it."""
        key, seats, left = state.key, state.samples, self._token_budget
        for one in self._queues.prefilling:
            if one.key < key:
                seats += one.samples
                left -= one.queries(one.resident, one.missing) if one.fork else one.missing
        if seats == state.samples:
            return True  # nobody is before it
        if self._settings.mixed_batches:
            left -= min(self._queues.decoding.num_sequences, self._max_running - seats)
        if self._settings.chunked_prefill:
            return left >= state.samples
        return left >= state.queries(state.resident, state.missing)

    def _stop(self, state: SessionState, now: float) -> None:
        """A running session must wait; its context stays."""
        self._queues.stop(state)
        if math.isnan(state.waits_since):
            state.interrupt(now)
            state.preemptions += 1
            self._preemptive_order.preempted(state)
        self._queues.wait(state)

    # ---- memory

    def _idle(self) -> list[SessionState]:
        """Ready sessions that do not run and hold GPU memory that is not being copied."""
        queues, held = self._queues, self._kv.idle_gpu
        if not (queues.waiting or queues.swapped):
            return []
        if len(held) < len(queues.waiting) + len(queues.swapped):  # either may be long: many pause, or many wait
            return [one for one in held if one.copy is None and one.status in (Status.WAITING, Status.SWAPPED)]
        ready = [*queues.swapped, *(state for _, state in queues.waiting)]
        return [one for one in ready if one.copy is None and one in held]

    def _copyable(self) -> list[SessionState]:
        """Idle sessions that can leave by a copy: not branch sets in the middle of their call."""
        return [one for one in self._idle() if not one.fork]

    def _idle_after(self, state: SessionState) -> list[SessionState]:
        return [one for one in self._idle() if one.key > state.key]

    def _by_turn(self, idle: list[SessionState]) -> list[SessionState]:
        """Idle sessions in the order in which they give way."""
        return self._preemptive_order.by_expected_turn(sorted(idle, key=by_key))[::-1]

    def _make_room(self, blocks: int, state: SessionState, now: float) -> bool:
        """See that ``blocks`` blocks are free beyond those promised before and those that decoding sessions take now;
        paused contexts give way, then later ones.

        Nobody gives way unless it is enough; copies beside the batch free their blocks at their end.
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
        kv, key, blocks = self._kv, state.key, 0
        for one in self._queues.prefilling:
            if one.key < key:
                blocks += kv.blocks_missing(one)
        for one in self._arriving():
            if one.key < key:
                blocks += kv.blocks_to_allocate(one)
        return blocks

    def _unpromised_blocks(self) -> int:
        """Free blocks that none of those who run or arrive will take, if those that decode take one token each."""
        kv, queues = self._kv, self._queues
        blocks = kv.gpu.free_blocks - queues.decoding.blocks_needed()
        for one in queues.prefilling:
            blocks -= kv.blocks_to_append(one, one.missing)
        for one in self._arriving():
            blocks -= kv.blocks_to_allocate(one)
        return blocks

    def _leaves(self, state: SessionState, now: float) -> bool:
        """A context gives way for a session before it. False if the budget allows no copy beside the batch now."""
        beside = self._ahead_of_need and self._kv.host.free_blocks > 0 and not state.fork
        if beside and not self._evictor.has_budget(Direction.OUT):
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
        """Contexts whose turn comes soonest come back into memory that nobody needs, within the swap budget.

        Who runs needs what is missing, and the first that waits all of its context: what others leave for it stays.
        """
        kv, evictor, head = self._kv, self._evictor, self._head
        if not self._ahead_of_need or not self._queues.swapped:
            return
        evictor.settle_budget()
        promised = sum(kv.blocks_to_append(state, state.missing) for state in self._queues.prefilling)
        if head is not None and head.copy is None:
            promised += kv.blocks_missing(head)
        spare = kv.gpu.free_blocks - promised - evictor.watermark_blocks
        if spare <= 0 or not evictor.has_budget(Direction.IN):
            return
        away = [state for state in self._queues.swapped if state.copy is None and state is not head]
        needs = {state: kv.blocks_missing(state) for state in away}
        if min(needs.values(), default=math.inf) > spare:
            return
        for state in self._preemptive_order.by_expected_turn(sorted(away, key=by_key)):
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
        if not evictor.has_budget(Direction.OUT):
            return
        for state in self._by_turn(self._copyable()):
            lacking = evictor.watermark_blocks - kv.gpu.free_blocks - kv.blocks_being_freed()
            if lacking <= 0 or not evictor.has_budget(Direction.OUT) or not evictor.swap_out_beside(state):
                return

    def _short(self) -> bool:
        return self._ahead_of_need and self._kv.gpu.free_blocks < self._evictor.watermark_blocks

    @property
    def unsettled(self) -> bool:
        """Whether the next plan may differ though the order stands: a turn that was owed ends with the next token,
        paused contexts may give way beside who joined since they were asked, or the watermark is not free and an idle
        context could yet leave for it."""
        if self._guarantee or self._joined_after_refusal:
            return True
        return self._short() and self._kv.host.free_blocks > 0 and bool(self._copyable())

    def untouched_blocks(self) -> int:
        """Free blocks that decoding may not use before idle contexts are asked to leave."""
        could = self._ahead_of_need and self._kv.host.free_blocks > 0 and self._copyable()
        return self._evictor.watermark_blocks if could else 0


def _decodes(state: SessionState) -> bool:
    """Whether a waiting session has all but the token that it emitted last, and goes on with the next one."""
    return state.missing == 1 and state.emitted > 0 and state.offloaded == 0
