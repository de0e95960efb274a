"""Short cuts of preemptive scheduling: fewer questions to the order and fewer sorts, with equal plans.

Most iterations have slots, blocks and tokens for every ready session. Then no priority can change the plan, and the
order is asked afterwards what it would have said. Tests hold this scheduler against the plain one over random worlds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from heapq import heappop

from sim.costs.batch import Direction
from sim.engine.preemptive import PreemptiveScheduler
from sim.session import SessionState, Status


class FastPreemptiveScheduler(PreemptiveScheduler):
    """``PreemptiveScheduler`` with short cuts."""

    _sorted_swapped: Sequence[tuple[tuple[float, ...], SessionState]] = ()
    _sorted_at = 0  # by ``Queues.swapped_changes``

    def schedule(self, now: float) -> None:
        """Ask the order only where its answer could change the plan."""
        queues, order = self._queues, self._order
        self._begin(now)
        prompts = self._prompts_compete()
        enough = order.lazy_rerank and (order.keys_drift or not prompts) and self._enough_for_all()
        contended = prompts or not enough
        if not enough:
            self._move(order.reranked())
        elif prompts or order.next_review() <= now:
            self._rerank()
        self._limit()
        if contended:
            self._schedule_in_order(now)
        elif queues.waiting or queues.swapped:
            self._schedule_all(now)
        self.order_is_moot = not (contended or queues.waiting or queues.swapped)

    def _schedule_all(self, now: float) -> None:
        """There are slots and blocks for every ready session; only tokens may be lacking.

        Then the first that finds none stops all that would have to compute more than their next token.
        """
        for state in self._ready_queue():
            if not self._try_start(state, now):
                self._head = state
                self._schedule_decoders(now)
                return

    def _prompts_compete(self) -> bool:
        """Whether a session computes a prompt beside others that have yet to."""
        queues = self._queues
        if len(queues.prefilling) != 1:
            return len(queues.prefilling) > 1
        return bool(queues.waiting or queues.swapped or self._kv.gpu.cached)

    def _enough_for_all(self) -> bool:
        """Whether there are slots and blocks for every ready session: then the rank of those that decode is moot."""
        queues, kv = self._queues, self._kv
        slots, blocks = queues.running, self._unpromised_blocks()
        if not (queues.waiting or queues.swapped):
            return blocks >= 0
        for state in (*[state for _, state in queues.waiting], *queues.swapped):
            slots += state.samples
            if state.copy is None:
                blocks -= kv.blocks_missing(state)
            leaves = state.copy is not None and state.copy.direction is Direction.OUT
            if leaves or slots > queues.max_running or blocks < self._evictor.watermark_blocks:
                return False
        return blocks >= 0

    def _rerank(self) -> None:
        """Ranks change as far as it matters while every session that decodes goes on."""
        self._move(self._order.reranked_beside_decoders())

    def catch_up(self, ends: Sequence[float]) -> None:
        """The order says now what it would have said when each iteration began."""
        if not self.order_is_moot:
            return
        order, decoding, begins, index = self._order, self._queues.decoding, ends[:-1], 0
        first = decoding.step + 1
        while index < len(begins):
            order.set_clock(begins[index])
            decoding.step = first + index
            index = bisect_left(begins, order.next_review(), index)
            if index < len(begins):
                order.set_clock(begins[index])
                decoding.step = first + index
                self._rerank()
                index += 1
        decoding.step = first - 1

    # ---- the ready queue, kept in order

    def _ready_queue(self) -> Iterator[SessionState]:
        waiting = self._queues.waiting.copy()  # a heap
        swapped, next_swapped = self._swapped_in_order(), 0
        while waiting or next_swapped < len(swapped):
            if next_swapped < len(swapped) and (not waiting or swapped[next_swapped] < waiting[0]):
                state = swapped[next_swapped][1]
                next_swapped += 1
                if state.copy is None:
                    yield state
                continue
            state = waiting[0][1]
            if state.copy is None:
                yield state
            heappop(waiting)

    def _swapped_in_order(self) -> Sequence[tuple[tuple[float, ...], SessionState]]:
        """Sessions that wait for their context from the host, by their keys: a list that is never changed."""
        queues = self._queues
        if self._sorted_at != queues.swapped_changes:
            self._sorted_swapped = sorted([(state.key, state) for state in queues.swapped])
            self._sorted_at = queues.swapped_changes
        return self._sorted_swapped

    def _swapped_key_changed(self) -> None:
        self._sorted_at = -1

    # ---- sums that end early

    def _prefills_that_may_lack_blocks(self) -> Sequence[SessionState]:
        if self._unpromised_blocks() >= 0 and not self._kv.gpu.cached:
            return ()
        return super()._prefills_that_may_lack_blocks()

    def _finds_tokens(self, state: SessionState) -> bool:
        key, slots, left = state.key, state.samples, self._token_budget
        for one in self._queues.prefilling:
            if one.key < key:
                slots += one.samples
                left -= one.queries(one.resident, one.missing) if one.fork else one.missing
        if slots == state.samples:
            return True  # no session is before it
        if self._settings.mixed_batches:
            left -= min(self._queues.decoding.num_sequences, self._max_running - slots)
        if self._settings.chunked_prefill:
            return left >= state.samples
        return left >= state.queries(state.resident, state.missing)

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
        """Free blocks that no running or arriving session will take, if each decoding session takes one token."""
        kv, queues = self._kv, self._queues
        blocks = kv.gpu.free_blocks - queues.decoding.blocks_needed()
        for one in queues.prefilling:
            blocks -= kv.blocks_to_append(one, one.missing)
        for one in self._arriving():
            blocks -= kv.blocks_to_allocate(one)
        return blocks

    def _idle(self) -> list[SessionState]:
        """Ready sessions that do not run and hold GPU memory that is not being copied."""
        queues, held = self._queues, self._kv.idle_gpu
        if not (queues.waiting or queues.swapped):
            return []
        if len(held) < len(queues.waiting) + len(queues.swapped):  # either may be long: many pause, or many wait
            return [one for one in held if one.copy is None and one.status in (Status.WAITING, Status.SWAPPED)]
        ready = [*queues.swapped, *(state for _, state in queues.waiting)]
        return [one for one in ready if one.copy is None and one in held]
