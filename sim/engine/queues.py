"""The queues of an engine, and the moves of sessions between them."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from operator import attrgetter

from sim.engine.decode_batch import DecodeBatch
from sim.kv.kv_cache import KVCacheManager
from sim.session import SessionState, Status


class Queues:
    """Every session inside an engine is in exactly one of these.

    Attributes:
        waiting: heap of ready sessions that must be admitted.
        swapped: ready sessions whose context must come back from the host.
        swapped_changes: how often any came or went there.
        prefilling: admitted sessions that compute missing tokens.
        decoding: sessions that emit a token an iteration.
        paused: sessions that wait for an answer.
        departing: sessions that went on elsewhere, with a context that is still being read.
        max_running: how many sessions may run, each sample counted.
        start_at_once: whether a resumed session whose context is resident goes on without being scheduled again.
    """

    def __init__(self, kv: KVCacheManager, max_running: int, start_at_once: bool = True) -> None:
        self._kv = kv
        self._start_at_once = start_at_once
        self.max_running = max_running
        self.waiting: list[tuple[tuple[float, ...], SessionState]] = []
        self.swapped: dict[SessionState, None] = {}
        self.swapped_changes = 0
        self.prefilling: dict[SessionState, None] = {}
        self.decoding = DecodeBatch(kv.block_size, kv.branches)
        self._prefilling_seats = 0
        self.paused: dict[SessionState, None] = {}
        self.departing: dict[SessionState, None] = {}

    @property
    def running(self) -> int:
        """Sessions that decode or compute missing tokens, each sample counted."""
        return self.decoding.num_sequences + self._prefilling_seats

    @property
    def several_run(self) -> bool:
        """Whether more than one session runs."""
        return len(self.decoding) + len(self.prefilling) > 1

    def has_slots_for(self, state: SessionState, taken: int = 0) -> bool:
        """Whether a session may run with all its samples, ``taken`` slots being taken."""
        return self.running + taken + state.samples <= self.max_running

    def pause(self, state: SessionState) -> None:
        """A call has ended; its session is in no queue for the moment."""
        state.status = Status.PAUSED
        self._kv.set_idle(state, True)
        self.paused[state] = None

    def unpause(self, state: SessionState) -> None:
        """The answer came. The session is in no queue until it is queued or has left."""
        del self.paused[state]

    def leave(self, state: SessionState) -> None:
        """A session in no queue has ended: its memory is free."""
        self._kv.release(state)
        state.status = Status.FINISHED

    def enqueue(self, state: SessionState, at_once: bool = False) -> None:
        """A session in no queue is ready: it waits for its copy, or to be admitted.

        ``at_once`` it runs instead, if it has nothing to compute that was computed before, and may run.
        """
        if state.offloaded:
            self.wait_for_copy(state)
        elif at_once and self._start_at_once and state.resident >= state.peak > 0 and self.has_slots_for(state):
            self.start(state)
        else:
            self.wait(state)

    def swapped_in(self, state: SessionState) -> None:
        """A copy has ended; if it was the last that its session waited for, the session runs."""
        if state.status is Status.SWAPPED and state.offloaded == 0:
            self.remove(state)
            self.enqueue(state, at_once=True)

    def wait(self, state: SessionState) -> None:
        """Queue a session that is in no queue; what it has on the GPU policies may decide about."""
        state.status = Status.WAITING
        self._kv.version += 1
        heappush(self.waiting, (state.key, state))

    def wait_for_copy(self, state: SessionState) -> None:
        """Queue a session that is in no queue and has offloaded tokens."""
        state.status = Status.SWAPPED
        self._kv.version += 1
        self.swapped[state] = None
        self.swapped_changes += 1

    def start(self, state: SessionState) -> None:
        """A session that is in no queue begins to compute missing tokens."""
        state.status = Status.PREFILLING
        self._kv.set_idle(state, False)
        self.prefilling[state] = None
        self._prefilling_seats += state.samples

    def end_prefill(self, state: SessionState) -> None:
        """A session has nothing missing any more, or stops; it is in no queue."""
        del self.prefilling[state]
        self._prefilling_seats -= state.samples

    def start_decoding(self, state: SessionState) -> None:
        """A session that is in no queue emits its next token in the coming iteration."""
        state.status = Status.DECODING
        self._kv.set_idle(state, False)
        self.decoding.join(state, state.call.output - state.emitted)

    def admit(self) -> None:
        """The head of the queue begins to compute."""
        self.start(heappop(self.waiting)[1])

    def stop(self, state: SessionState) -> None:
        """A running session stops, and is in no queue."""
        if state.decode_batch is not None:
            self.decoding.leave(state)
        else:
            self.end_prefill(state)
        self._kv.set_idle(state, True)

    def remove(self, state: SessionState) -> None:
        """Take a ready session that does not run out of its queue; it is in none."""
        if state.status is Status.SWAPPED:
            del self.swapped[state]
            self.swapped_changes += 1
        elif self.waiting[0][1] is state:
            heappop(self.waiting)
        else:
            self.waiting.remove((state.key, state))
            heapify(self.waiting)

    def move(self, reranked: list[tuple[SessionState, tuple[float, ...]]]) -> None:
        """Ready sessions that do not run stand elsewhere from now on."""
        for state, key in reranked:
            state.key = key
        if reranked:
            self.reorder()

    def reorder(self) -> None:
        """Keys have changed."""
        self.waiting = [(state.key, state) for _, state in self.waiting]
        heapify(self.waiting)

    def sift_up(self, risen: list[SessionState]) -> None:
        """The keys of some waiting sessions have changed, mostly of few and to smaller ones."""
        waiting = self.waiting
        for state in risen:
            place, entry = [one for _, one in waiting].index(state), (state.key, state)
            if waiting[place] < entry:
                return self.reorder()
            while place and entry < waiting[above := (place - 1) // 2]:
                waiting[place], place = waiting[above], above
            waiting[place] = entry

    def latest_running(self) -> SessionState:
        """The running session that comes last in the queue's order."""
        running: list[SessionState] = [*self.decoding, *self.prefilling]
        return max(running, key=by_key)

    def ready(self) -> list[SessionState]:
        """Ready sessions that do not decode."""
        return [*self.swapped, *self.prefilling, *(state for _, state in self.waiting)]

    @property
    def empty(self) -> bool:
        """Whether no session is inside."""
        return not (self.running or self.waiting or self.swapped or self.paused or self.departing)

    def inside(self) -> list[SessionState]:
        """Every session that is inside, each once. For checks: it walks over all of them."""
        return [*self.decoding, *self.ready(), *self.paused, *self.departing]

    def pauses_hold_memory(self) -> bool:
        """Whether the end of some pause could free or move memory."""
        return any(state.status is Status.PAUSED for state in self._kv.idle_gpu)


by_key: Callable[[SessionState], tuple[float, ...]] = attrgetter("key")
"""Sort key: the queue's order."""
