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

LAST = EventPriority(2)
"""After everything else at its instant: SimPy serves an instant's events by priority, 0 urgent and 1 normal."""


class Clock(simpy.Environment):
    """An environment whose events can be put at exact times."""

    def at(self, time: float, call: Callable[[Event], Any], priority: EventPriority = NORMAL) -> Event:
        """Call ``call`` with a new event at ``time``, which is not in the past."""
        assert time >= self._now, f"an event at {time} s, before {self._now} s"
        event = Event(self)
        event._ok, event._value = True, None
        event.callbacks = [call]
        heappush(self._queue, (time, priority, next(self._eid), event))
        return event
