"""Multi-level feedback queues (MLFQ): a session that has run for its quantum falls, one that waited too long rises."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace

from policies.contract import NEVER, EngineView, Key, PreemptiveOrder, Queued

_EARLY = 1e-6
"""Share of a quantum by which the question comes before its end, so that rounding hides no end."""
_ROUNDING = 1e-12
"""Upper bound of the rounding error of a time, as a share."""


@dataclass(slots=True)
class _Place:
    """A session's queue.

    Attributes:
        level: the queue, 1 being the first.
        since: when the session joined it, s.
        served: how long the session had run by then, s.
        watched: whether the end of its quantum is in the heap of falls.
    """

    level: int
    since: float
    served: float
    watched: bool = False


class FeedbackQueue(PreemptiveOrder):
    """Sessions stand in numbered queues, and lower numbers go first; within a queue the session that joined first.

        join   the queue ``joins`` says
        fall   from p to p + falls_by, when a session has run for the quantum of p since it joined p
        rise   to 1, when it is ``due``

    Contexts leave the GPU and come back by their estimated next scheduled time (arXiv 2305.05920):

        ENST(i) = min( time until i is due, T_execute(i) )
        T_execute(i) = 1/B · sum of q_k over the queues k from j's to the one before i's, for all j in queues before i's

    with B the most sessions that may run at once.

    Args:
        queues: how many there are; in the last one a quantum never ends.
        falls_by: queues that a session falls at the end of its quantum.
    """

    key_names = ("queue", "since")
    lazy_rerank = True

    def __init__(self, queues: int, falls_by: int) -> None:
        self.queues = queues
        self.falls_by = falls_by
        self._ends: list[float] = []  # of the quanta, less a margin for rounding
        self._places: dict[str, _Place] = {}
        self._falls: list[tuple[float, int, Queued, _Place]] = []  # heap: earliest fall of each running session
        self._looks: list[tuple[float, int, Queued]] = []  # heap: when a waiting session may be due, each once
        self._looked_for: set[str] = set()
        self._looks_made = 0

    def joins(self, queued: Queued, view: EngineView) -> int:
        """The queue in which a session begins when it becomes ready, from 1."""
        raise NotImplementedError

    def quantum_of(self, level: int, view: EngineView) -> float:
        """q_level, s."""
        raise NotImplementedError

    def due(self, queued: Queued, now: float) -> float:
        """Time at which a session has waited long enough, if it runs until ``now`` at least or waits on, s. The time
        comes no nearer while the session runs."""
        raise NotImplementedError

    # ---- joining, falling, rising

    def key(self, queued: Queued, view: EngineView) -> Key:
        """A session joins: at its arrival, and after each pause."""
        return self.join(queued, self.joins(queued, view), view)

    def join(self, queued: Queued, level: int, view: EngineView) -> Key:
        """Put a ready session at the tail of a queue."""
        if not self._ends:
            self._ends = [self.quantum_of(level, view) * (1 - _EARLY) for level in range(1, self.queues)] + [NEVER]
        now = view.now
        place = self._places[queued.id] = _Place(min(level, self.queues), now, queued.served(now))
        return self._stand(queued, place, now)

    def stay(self, queued: Queued, view: EngineView) -> Key:
        """Leave a ready session where it stood."""
        return self._stand(queued, self._places[queued.id], view.now)

    def _stand(self, queued: Queued, place: _Place, now: float) -> Key:
        if math.isnan(queued.waits_since):
            self._watch(queued, place, now)
        else:
            self._look(queued, place, now)
        return place.level, place.since

    def on_run(self, running: Queued, view: EngineView) -> None:
        self._watch(running, self._places[running.id], view.now)

    def on_preempt(self, preempted: Queued, view: EngineView) -> None:
        self._look(preempted, self._places[preempted.id], view.now)

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._places.pop(finished.id, None)
        self._looked_for.discard(finished.id)

    def has_place(self, queued: Queued) -> bool:
        """Whether the session has joined a queue before."""
        return queued.id in self._places

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        """A session that has used up its quantum falls, unless it is due; one that has waited too long rises."""
        now = view.now
        moved = self._fallen(now)
        while self._next_look() <= now:
            queued = heappop(self._looks)[2]
            self._looked_for.discard(queued.id)
            place = self._places[queued.id]
            if place.level > 1 and self.due(queued, now) <= now:
                moved.append((queued, self.join(queued, 1, view)))
            else:
                self._look(queued, place, now)
        return moved

    def _fallen(self, now: float) -> list[tuple[Queued, Key]]:
        """Running sessions that have used up their quantum join another queue; those that only might have are watched
        on."""
        fallen: list[tuple[Queued, Key]] = []
        others: list[tuple[Queued, _Place]] = []
        while self._first_end() <= now:
            _, _, queued, place = heappop(self._falls)
            place.watched = False
            served = queued.served(now)
            if self._ends[place.level - 1] - (served - place.served) > 0:
                others.append((queued, place))
                continue
            place.level = min(place.level + self.falls_by, self.queues) if self.due(queued, now) > now else 1
            place.since, place.served = now, served
            fallen.append((queued, (place.level, now)))
        for queued, _ in fallen:
            self._stand(queued, self._places[queued.id], now)
        for queued, place in others:
            self._watch(queued, place, now)
        return fallen

    def _first_end(self) -> float:
        """Time at which the first running session may have used up its quantum, s; entries that are over are
        dropped."""
        falls = self._falls
        while falls:
            end, _, queued, place = falls[0]
            if queued.running and self._places[queued.id] is place:
                return end
            heappop(falls)
            place.watched = False
        return NEVER

    def _falls_at(self, queued: Queued, place: _Place, now: float) -> float:
        """Earliest end of the quantum, s: if the session runs until then."""
        left = self._ends[place.level - 1] - (queued.served(now) - place.served)
        return (now + left) * (1 - _ROUNDING)

    def _watch(self, queued: Queued, place: _Place, now: float) -> None:
        """Watch the end of a running session's quantum, once. A session that stops meanwhile has more time."""
        if not place.watched and place.level < self.queues:
            place.watched = True
            self._looks_made += 1
            heappush(self._falls, (self._falls_at(queued, place, now), self._looks_made, queued, place))

    def _look(self, queued: Queued, place: _Place, now: float) -> None:
        """Watch for a waiting session to be due, once, unless it is in the first queue."""
        if place.level > 1 and queued.id not in self._looked_for:
            at = self.due(queued, now)
            if at < NEVER:
                self._looked_for.add(queued.id)
                self._looks_made += 1
                heappush(self._looks, (at, self._looks_made, queued))

    def _next_look(self) -> float:
        """Time at which the first waiting session may be due, s; sessions that wait no longer are dropped."""
        looks = self._looks
        while looks:
            at, _, queued = looks[0]
            if queued.ready and not math.isnan(queued.waits_since):
                return at
            heappop(looks)
            self._looked_for.discard(queued.id)
        return NEVER

    def review_at(self, view: EngineView) -> float:
        """The next end of a quantum, or of a wait."""
        now = view.now
        while self._first_end() <= now:
            _, _, queued, place = self._falls[0]
            end = self._falls_at(queued, place, now)
            if end <= now:
                return now
            self._looks_made += 1
            heapreplace(self._falls, (end, self._looks_made, queued, place))
        return min(self._first_end(), self._next_look())

    # ---- estimated next scheduled time

    def by_expected_turn(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        """By ENST; equal ones stay in the order of the queues."""
        execute = self.execution_times(view)
        now = view.now

        def next_turn(queued: Queued) -> float:
            return min(max(0.0, self.due(queued, now) - now), execute[self._places[queued.id].level])

        return sorted(waiting, key=next_turn)

    def execution_times(self, view: EngineView) -> dict[int, float]:
        """T_execute of the sessions of each queue that is not empty, s."""
        counts: dict[int, int] = {}
        for queued in (*view.running, *view.waiting):
            level = self._places[queued.id].level
            counts[level] = counts.get(level, 0) + 1
        batch = view.max_running
        times, before, seconds, last = {}, 0, 0.0, 1
        for level in sorted(counts):
            seconds += before * sum(self.quantum_of(k, view) for k in range(last, level))
            times[level] = seconds / batch
            before, last = before + counts[level], level
        return times
