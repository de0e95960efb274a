"""SimPy's environment with events at exact times, and a timer for it that needs few events.

SimPy schedules by delay, and ``now + (time - now)`` need not be ``time``. Whether time leaps or not must not change a
timestamp by a single bit, so here events can be put at a time.
"""

from __future__ import annotations

import math
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

    def first_at(self, time: float, call: Callable[[Event], Any]) -> None:
        """Call ``call`` at ``time``, before everything else of the instant."""
        self.at(time, call, FIRST)

    def at(self, time: float, call: Callable[[Event], Any], priority: EventPriority = NORMAL) -> Event:
        """Call ``call`` with a new event at ``time``, which is not in the past."""
        assert time >= self._now, f"an event at {time} s, before {self._now} s"
        event = Event(self)
        event._ok, event._value = True, None
        event.callbacks = [call]
        heappush(self._queue, (time, priority, next(self._eid), event))
        return event


class Timer:
    """Acts at one time at a time: the last that was set.

    Args:
        clock: the SimPy environment.
        act: called then; it may set the next time, and need not.
        priority: of its events among others of the same instant.
    """

    def __init__(self, clock: Clock, act: Callable[[], None], priority: EventPriority) -> None:
        self._clock, self._act, self._priority = clock, act, priority
        self._event: Event | None = None  # others are stale
        self._rings = False
        self._due = math.inf  # set while it rings

    def set(self, time: float) -> None:
        """Act at ``time``, which is not in the past, and no more at the time that was set before."""
        if self._rings:
            self._due = time
        else:
            self._event = self._clock.at(time, self._ring, self._priority)

    def _ring(self, event: Event) -> None:
        """Act, and act again for as long as no event comes before: SimPy need not be told of that."""
        if event is not self._event:
            return
        self._event, self._rings = None, True
        self._act()
        while self._due < math.inf and self._clock.skip_to(self._due):
            self._due = math.inf
            self._act()
        self._rings = False
        if self._due < math.inf:
            due, self._due = self._due, math.inf
            self.set(due)
