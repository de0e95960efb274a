"""FastServe's queues, and the orders that its paper compares them with (arXiv 2305.05920, sections 4 and 6)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Literal

from policies.contract import NEVER, EngineView, Key, PreemptiveOrder, Queued

_EARLY = 1e-6
"""Share of a quantum by which the order is asked before it ends, so that rounding hides no end."""


@dataclass(slots=True)
class _Place:
    """Where a session is: its queue, 1 being the first, since when, and how long it had run by then."""

    level: int
    since: float
    served: float


class MultiLevelQueue(PreemptiveOrder):
    """Skip-join multi-level feedback queue. Queue i has the quantum q_i = q_1 · ratio^(i - 1); lower i goes first.

        join      p = min { i : q_i >= t_init }, t_init being the time of computing what the session misses
        fall      from p to p + falls_by, when it has run for q_p in its queue
        rise      to 1, when it has waited for promote_after seconds

    Within a queue sessions are served by the time at which they joined it. Contexts leave the GPU and come back by
    their estimated next scheduled time:

        ENST(i) = min( T_promote(i), T_execute(i) )
        T_promote(i) = promote_after - time waited
        T_execute(i) = 1/B · sum of q_k over the queues k from j's to the one before i's, for all j in queues before i's

    with B the most sessions that may run at once.

    Args:
        skip_join: without, every session joins queue 1: the naive multi-level feedback queue.
        quantum: q_1, s; by default the shortest iteration of the profile.
        ratio: of one quantum to the one before.
        falls_by: queues that a session falls at the end of its quantum.
        promote_after: alpha, s; infinite for no promotion.
        queues: how many there are; in the last one a quantum never ends.
        resumed: after a pause a session joins like a new one, by what it misses now; or ``keep``s its queue.
    """

    def __init__(
        self,
        skip_join: bool = True,
        quantum: float | None = None,
        ratio: float = 2.0,
        falls_by: int = 2,
        promote_after: float = 0.3,
        queues: int = 24,
        resumed: Literal["joins", "keeps"] = "joins",
    ) -> None:
        if not (ratio > 1 and falls_by >= 1 and promote_after > 0 and queues >= 1 and (quantum is None or quantum > 0)):
            raise ValueError("ratio is above 1, falls_by and queues are at least 1, times are above 0")
        if resumed not in ("joins", "keeps"):
            raise ValueError("resumed is 'joins' or 'keeps'")
        self.skip_join = skip_join
        self.quantum = quantum
        self.ratio = ratio
        self.falls_by = falls_by
        self.promote_after = promote_after
        self.queues = queues
        self.resumed = resumed
        self._quanta: list[float] = []
        self._ends: list[float] = []  # of the quanta, as rounding lets them be seen
        self._places: dict[str, _Place] = {}
        self._looks: list[tuple[float, int, Queued]] = []  # when one may have waited long enough, each at most once
        self._looked_for: set[str] = set()
        self._looks_made = 0

    # ---- the queues

    def quantum_of(self, level: int, view: EngineView) -> float:
        """q_level, s."""
        if not self._quanta:
            first = self.quantum if self.quantum is not None else view.costs.forward_time(1)
            self._quanta = [first * self.ratio**i for i in range(self.queues)]
        return self._quanta[level - 1]

    def key(self, queued: Queued, view: EngineView) -> Key:
        """A session joins: at its arrival, and after each pause."""
        place = self._places.get(queued.id)
        if place is None or self.resumed == "joins":
            place = self._join(queued, self._level_for(queued, view), view)
        self._look(queued, self._due(queued, view.now))
        return place.level, place.since

    def _level_for(self, queued: Queued, view: EngineView) -> int:
        if not self.skip_join:
            return 1
        there = queued.resident_tokens + queued.offloaded_tokens
        needs = view.costs.forward_time(queued.missing_tokens, there)
        return next((i for i in range(1, self.queues) if self.quantum_of(i, view) >= needs), self.queues)

    def _join(self, queued: Queued, level: int, view: EngineView) -> _Place:
        place = _Place(min(level, self.queues), view.now, queued.served(view.now))
        self._places[queued.id] = place
        return place

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        """Who has used up its quantum falls; who has waited too long rises."""
        now = view.now
        for queued, left in self._running(view):
            if left <= 0:
                place = self._join(queued, self._places[queued.id].level + self.falls_by, view)
                yield queued, (place.level, place.since)
        while self._looks and self._looks[0][0] <= now:
            queued = heappop(self._looks)[2]
            self._looked_for.discard(queued.id)
            if not queued.ready:
                continue
            due = self._due(queued, now)
            if due <= now and self._places[queued.id].level > 1:
                place = self._join(queued, 1, view)
                yield queued, (place.level, place.since)
            self._look(queued, due if due > now else now + self.promote_after)

    def _running(self, view: EngineView) -> list[tuple[Queued, float]]:
        """Who runs, each with the seconds that are left of its quantum."""
        now, places = view.now, self._places
        if not self._ends:
            self._ends = [self.quantum_of(level, view) * (1 - _EARLY) for level in range(1, self.queues)] + [NEVER]
        ends = self._ends
        return [
            (queued, ends[place.level - 1] - (queued.served(now) - place.served))
            for queued in view.running
            for place in (places[queued.id],)
        ]

    def _due(self, queued: Queued, now: float) -> float:
        """When a session will have waited long enough, if it runs until ``now`` at least or waits on."""
        waits_since = queued.waits_since
        return (now if math.isnan(waits_since) else waits_since) + self.promote_after

    def _look(self, queued: Queued, at: float) -> None:
        """Look at a ready session then; nobody is waited for twice."""
        if queued.id not in self._looked_for:
            self._looked_for.add(queued.id)
            self._looks_made += 1
            heappush(self._looks, (at, self._looks_made, queued))

    def review_at(self, view: EngineView) -> float:
        """The next end of a quantum, or of a wait."""
        ends = view.now + min((left for _, left in self._running(view)), default=NEVER)
        return min(ends, self._looks[0][0]) if self._looks else ends

    # ---- estimated next scheduled time

    def soonest_first(self, waiting: Sequence[Queued], view: EngineView) -> Sequence[Queued]:
        """By ENST; ties stay in the order of the queues."""
        execute = self.execution_times(view)
        now = view.now

        def next_turn(queued: Queued) -> float:
            return min(max(0.0, self._due(queued, now) - now), execute[self._places[queued.id].level])

        return sorted(waiting, key=next_turn)

    def execution_times(self, view: EngineView) -> dict[int, float]:
        """T_execute of the sessions of each queue that has any, s."""
        counts: dict[int, int] = {}
        for queued in (*view.running, *view.waiting):
            level = self._places[queued.id].level
            counts[level] = counts.get(level, 0) + 1
        batch = view.most_running
        times, before, seconds, last = {}, 0, 0.0, 1
        for level in sorted(counts):
            seconds += before * sum(self.quantum_of(k, view) for k in range(last, level))
            times[level] = seconds / batch
            before, last = before + counts[level], level
        return times


class FixedPriority(PreemptiveOrder):
    """The shortest prefill first, for good: a priority that is given at the arrival, without fall or rise.

    One of FastServe's rivals; the paper does not say what the priority was made from.
    """

    def __init__(self) -> None:
        self._given: dict[str, float] = {}

    def key(self, queued: Queued, view: EngineView) -> Key:
        prefill = self._given.setdefault(queued.id, view.costs.forward_time(queued.missing_tokens))
        return prefill, queued.arrival


class ShortestRemaining(PreemptiveOrder):
    """Shortest remaining processing time first, by an oracle that knows how many tokens each call will generate.

    What remains is the time of computing what the session misses and an iteration a token after the first. Running
    sessions come ever closer to their end, so nobody passes them unless somebody comes.
    """

    needs_truth = True

    def key(self, queued: Queued, view: EngineView) -> Key:
        assert self.truth is not None, "the engine hands an oracle the truth before the run"
        there = queued.resident_tokens + queued.offloaded_tokens
        prefill = view.costs.forward_time(queued.missing_tokens, there)
        return prefill + (self.truth(queued) - 1) * view.costs.forward_time(1)

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        return [(queued, self.key(queued, view)) for queued in view.running]

    def review_at(self, view: EngineView) -> float:
        return NEVER
