"""SimPy's environment with events at exact times.

SimPy schedules by delay, and ``now + (time - now)`` need not be ``time``. Whether time leaps or not must not change a
timestamp by a single bit, so here events can be put at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy
from simpy.events import NORMAL, Event, EventPriority

FIRST = EventPriority(0)
"""Before everything else at its instant: arrivals."""
LAST = EventPriority(2)
"""After everything else at its instant: SimPy serves an instant's events by priority, 0 urgent and 1 normal.

The replicas of a cluster act one after the other: replica i at ``LAST + i``.
"""


class Clock(simpy.Environment):
    """An environment whose events can be put at exact times.

    Attributes:
        acting: index of the replica that ends an iteration now; -1 while none does.
    """

    acting = -1

    def __init__(self) -> None:
        super().__init__(0.0)

    def skip_to(self, time: float) -> bool:
        """Let it be ``time`` now, which is not in the past, unless anything is to happen by then."""
        if self._queue and self._queue[0][0] <= time:
            return False
        self._now = time
        return True

    def at(self, time: float, call: Callable[[Event], Any], priority: EventPriority = NORMAL) -> Event:
        """Call ``call`` with a new event at ``time``, which is not in the past."""
        assert time >= self._now, f"an event at {time} s, before {self._now} s"
        event = Event(self)
        event._ok, event._value = True, None
        event.callbacks = [call]
        heappush(self._queue, (time, priority, next(self._eid), event))
        return event
