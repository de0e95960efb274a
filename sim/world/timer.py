"""When a replica acts next: an event, unless nothing else is to happen before."""

from __future__ import annotations

import math
from collections.abc import Callable

from simpy.events import Event, EventPriority

from sim.world.clock import Clock


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
        """Act, and act again for as long as nobody else is to act before: SimPy need not be told of that."""
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
