"""Who is ready and does not run, first come by the queue's order."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop

from sim.engine.queues import Queues
from sim.session import SessionState


class ReadyQueue:
    """Sessions that wait, or whose context must come back first, in their order.

    Args:
        queues: where everybody stands.
    """

    def __init__(self, queues: Queues) -> None:
        self._queues = queues
        self._swapped: list[tuple[tuple[float, ...], SessionState]] = []  # sorted at that count of ``swapped_changes``
        self._sorted_at = 0

    def __iter__(self) -> Iterator[SessionState]:
        """Those whose context is not being copied. Those that stop meanwhile are not among them."""
        waiting = self._queues.waiting.copy()  # a heap
        swapped, next_swapped = self.swapped(), 0
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

    def swapped(self) -> list[tuple[tuple[float, ...], SessionState]]:
        """Sessions that wait for their context from the host, by their keys: a list that is never changed.

        It is made anew when any came, went or was moved.
        """
        queues = self._queues
        if self._sorted_at != queues.swapped_changes:
            self._swapped = sorted([(state.key, state) for state in queues.swapped])
            self._sorted_at = queues.swapped_changes
        return self._swapped

    def swapped_moved(self) -> None:
        """The key of a session on the host has changed."""
        self._sorted_at = -1
