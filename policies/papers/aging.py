"""Aging: orders in which no session starves, because one that has waited too long is promoted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush

from policies.contract import NEVER, EngineView, Key, Queued, QueueOrder


class AgingOrder(QueueOrder):
    """Keys are (1, rank...); a session that still waits when it is ``due`` gets (0, ``waits_since``)."""

    def named(self, key: tuple[float, ...]) -> Mapping[str, float]:
        in_turn, *numbers = key
        return super().named(tuple(numbers)) if in_turn else {"promoted, waiting since": numbers[0]}

    def __init__(self) -> None:
        self._promoted: set[str] = set()
        self._waits: list[tuple[float, int, float, Queued]] = []  # heap: due, serial, waits_since; some are over
        self._waits_begun = 0

    def rank(self, queued: Queued, view: EngineView) -> tuple[float, ...]:
        """Key of a session among those that are not promoted."""
        raise NotImplementedError

    def due(self, queued: Queued) -> float:
        """Time at which a session that has begun to wait is promoted if it still waits, s."""
        raise NotImplementedError

    def promoted(self, queued: Queued) -> bool:
        """Whether the session goes before all that are not promoted, in its present call."""
        return queued.id in self._promoted

    def key(self, queued: Queued, view: EngineView) -> Key:
        self._promoted.discard(queued.id)
        self._begin_wait(queued)
        return (1.0, *self.rank(queued, view))

    def on_preempt(self, preempted: Queued, view: EngineView) -> None:
        if preempted.id not in self._promoted:
            self._begin_wait(preempted)

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._promoted.discard(finished.id)

    def rerank(self, view: EngineView) -> Iterable[tuple[Queued, Key]]:
        moved = []
        while self._next_due() <= view.now:
            queued = heappop(self._waits)[3]
            self._promoted.add(queued.id)
            moved.append((queued, (0.0, queued.waits_since)))
        return moved

    def review_at(self, view: EngineView) -> float:
        return self._next_due()

    def _begin_wait(self, queued: Queued) -> None:
        due = self.due(queued)
        if due < NEVER:
            self._waits_begun += 1
            heappush(self._waits, (due, self._waits_begun, queued.waits_since, queued))

    def _next_due(self) -> float:
        """Time at which the first waiting session is due, s. Waits that are over are dropped."""
        waits = self._waits
        while waits:
            due, _, since, queued = waits[0]
            waits_on = queued.waits_since == since and queued.ready and not queued.running
            if waits_on and queued.id not in self._promoted:
                return due
            heappop(waits)
        return NEVER
