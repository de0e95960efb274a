"""Where every session inside an engine stands, and the moves between the places."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from operator import attrgetter

from sim.engine.decode_batch import DecodeGroup
from sim.kv.kv_cache import Contexts
from sim.session import LiveSession, State


class Queues:
    """The places of an engine. A session is in exactly one.

    Attributes:
        waiting: heap of ready sessions that must be admitted.
        swapped: ready sessions whose context must come back from the host.
        swapped_changes: how often any came or went there.
        prefilling: admitted sessions that compute missing tokens.
        decoding: sessions that emit a token an iteration.
        paused: sessions that wait for an answer.
        departing: sessions that went on elsewhere and whose context is still being read.
        most_running: how many sessions may run, each sample counted.
        start_at_once: whether a session may run without anybody having seated it.
    """

    def __init__(self, contexts: Contexts, most_running: int, start_at_once: bool = True) -> None:
        self._contexts = contexts
        self._start_at_once = start_at_once
        self.most_running = most_running
        self.waiting: list[tuple[tuple[float, ...], LiveSession]] = []
        self.swapped: dict[LiveSession, None] = {}
        self.swapped_changes = 0
        self.prefilling: dict[LiveSession, None] = {}
        self.decoding = DecodeGroup(contexts.block_size, contexts.branches)
        self._prefilling_seats = 0
        self.paused: dict[LiveSession, None] = {}
        self.departing: dict[LiveSession, None] = {}

    @property
    def running(self) -> int:
        """Sessions that decode or compute missing tokens, each sample counted."""
        return self.decoding.seats + self._prefilling_seats

    @property
    def several_run(self) -> bool:
        """Whether more than one session runs."""
        return len(self.decoding) + len(self.prefilling) > 1

    def seats_for(self, live: LiveSession, taken: int = 0) -> bool:
        """Whether a session may run with all its samples, ``taken`` places being spoken for."""
        return self.running + taken + live.samples <= self.most_running

    def pause(self, live: LiveSession) -> None:
        """A call has ended; its session is in no place at present."""
        live.state = State.PAUSED
        self._contexts.set_idle(live, True)
        self.paused[live] = None

    def unpause(self, live: LiveSession) -> None:
        """The answer came. The session is in no place until it is queued or has left."""
        del self.paused[live]

    def leave(self, live: LiveSession) -> None:
        """A session in no place has ended: its memory is free."""
        self._contexts.release(live)
        live.state = State.FINISHED

    def enqueue(self, live: LiveSession, at_once: bool = False) -> None:
        """A session in no place is ready: it waits for its copy, or to be admitted.

        ``at_once`` it runs instead, if it has nothing to compute that was computed before, and may run.
        """
        if live.offloaded:
            self.wait_for_copy(live)
        elif at_once and self._start_at_once and live.resident >= live.peak > 0 and self.seats_for(live):
            self.start(live)
        else:
            self.wait(live)

    def arrived(self, live: LiveSession) -> None:
        """A copy has ended; if it was the last that its session waited for, the session runs."""
        if live.state is State.SWAPPED and live.offloaded == 0:
            self.withdraw(live)
            self.enqueue(live, at_once=True)

    def wait(self, live: LiveSession) -> None:
        """Queue a session that is in no place; what it has on the GPU policies may decide about."""
        live.state = State.WAITING
        self._contexts.changes += 1
        heappush(self.waiting, (live.key, live))

    def wait_for_copy(self, live: LiveSession) -> None:
        """Queue a session that is in no place and has offloaded tokens."""
        live.state = State.SWAPPED
        self._contexts.changes += 1
        self.swapped[live] = None
        self.swapped_changes += 1

    def start(self, live: LiveSession) -> None:
        """A session that is in no place begins to compute missing tokens."""
        live.state = State.PREFILLING
        self._contexts.set_idle(live, False)
        self.prefilling[live] = None
        self._prefilling_seats += live.samples

    def end_prefill(self, live: LiveSession) -> None:
        """A session has nothing missing any more, or stops; it is in no place."""
        del self.prefilling[live]
        self._prefilling_seats -= live.samples

    def go_on(self, live: LiveSession) -> None:
        """A session that is in no place emits its next token in the coming iteration."""
        live.state = State.DECODING
        self._contexts.set_idle(live, False)
        self.decoding.join(live, live.call.output - live.emitted)

    def admit(self) -> None:
        """The head of the queue begins to compute."""
        self.start(heappop(self.waiting)[1])

    def stop(self, live: LiveSession) -> None:
        """A running session stops, and is in no place."""
        if live.group is not None:
            self.decoding.leave(live)
        else:
            self.end_prefill(live)
        self._contexts.set_idle(live, True)

    def withdraw(self, live: LiveSession) -> None:
        """Take a ready session that does not run out of its place; it is in none."""
        if live.state is State.SWAPPED:
            del self.swapped[live]
            self.swapped_changes += 1
        elif self.waiting[0][1] is live:
            heappop(self.waiting)
        else:
            self.waiting.remove((live.key, live))
            heapify(self.waiting)

    def move(self, reranked: list[tuple[LiveSession, tuple[float, ...]]]) -> None:
        """Ready sessions that do not run stand elsewhere from now on."""
        for live, key in reranked:
            live.key = key
        if reranked:
            self.reorder()

    def reorder(self) -> None:
        """Keys have changed."""
        self.waiting = [(live.key, live) for _, live in self.waiting]
        heapify(self.waiting)

    def rise(self, risen: list[LiveSession]) -> None:
        """The keys of some who wait have changed, mostly of few and to smaller ones."""
        waiting = self.waiting
        for live in risen:
            place, entry = [one for _, one in waiting].index(live), (live.key, live)
            if waiting[place] < entry:
                return self.reorder()
            while place and entry < waiting[above := (place - 1) // 2]:
                waiting[place], place = waiting[above], above
            waiting[place] = entry

    def latest_running(self) -> LiveSession:
        """The running session that comes last in the queue's order."""
        running: list[LiveSession] = [*self.decoding, *self.prefilling]
        return max(running, key=by_key)

    def ready(self) -> list[LiveSession]:
        """Ready sessions that do not decode."""
        return [*self.swapped, *self.prefilling, *(live for _, live in self.waiting)]

    @property
    def empty(self) -> bool:
        """Whether nobody is inside."""
        return not (self.running or self.waiting or self.swapped or self.paused or self.departing)

    def inside(self) -> list[LiveSession]:
        """Every session that is inside, each once. For checks: it walks over all of them."""
        return [*self.decoding, *self.ready(), *self.paused, *self.departing]

    def pauses_hold_memory(self) -> bool:
        """Whether the end of some pause could free or move memory."""
        return any(live.state is State.PAUSED for live in self._contexts.held)


by_key: Callable[[LiveSession], tuple[float, ...]] = attrgetter("key")
"""Sort key: the queue's order."""
