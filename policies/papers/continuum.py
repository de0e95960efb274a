"""Continuum, later CacheTTL (arXiv 2511.02230): a time to live for every paused context."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain

from policies.basic.cache_lru import last_blocks
from policies.contract import (
    NEVER,
    Change,
    EngineView,
    InterceptPolicy,
    Key,
    Paused,
    Preserve,
    Queued,
    QueueOrder,
    is_incomplete,
)
from policies.estimation import tool_of
from policies.learning.empirical import PerTool


class Continuum(InterceptPolicy):
    """Pins a paused context for

        tau* = argmax over tau of P(tau, f) * (T * eta + PrefillReload) - tau

    seconds: P is the empirical distribution of tool f's durations, T the mean queueing delay that evicted sessions
    lately suffered, and PrefillReload the time to compute the context again. eta = -Corr(k, N - k), over the finished
    sessions of N calls, says how much k served calls tell of the calls still to come: 1 if all sessions are equally
    long, 0 if lengths are geometric. Candidates for tau are 0 and the past durations.

    Before ``enough`` pauses have ended tau is the optimum for durations that are Exp(1) and eta = 1, ln(T +
    PrefillReload) or 0; before ``enough`` of the tool have, P is that of all tools. T starts at 0.

    A context whose pin has ended stays in the cache and loses its last blocks when they are needed, the least recently
    used first. A pinned context does not, nor one whose pin held when its answer came, until the session runs. When
    nothing runs and the head of the queue finds no room, pins are broken too, the session that arrived last first:
    otherwise nothing would ever move.

    Args:
        enough: K of the paper.
        window: durations remembered of each tool, and delays.
    """

    def __init__(self, enough: int = 100, window: int = 500) -> None:
        if not 1 <= enough <= window:
            raise ValueError("enough is at least 1 and at most the window")
        self.enough = enough
        self._durations = PerTool(window)
        self._delays: deque[float] = deque(maxlen=window)
        self._served = ServedAndLeft()
        self._pinned_until: dict[str, float] = {}
        self._evicted: set[str] = set()

    def on_pause(self, paused: Paused, view: EngineView) -> Preserve:
        delay = sum(self._delays) / len(self._delays) if self._delays else 0.0
        reload = view.costs.forward_time(paused.context_tokens)
        pin = self.time_to_live(tool_of(paused), delay, reload)
        self._pinned_until[paused.id] = view.now + pin
        return Preserve(reasons={"pin_s": pin, "delay_s": delay, "reload_s": reload, "eta": self._served.eta})

    def time_to_live(self, tool: str, delay: float, reload: float) -> float:
        """tau*, s, for a pause of ``tool``, given T and PrefillReload, s."""
        durations = self._durations.of(tool, self.enough)
        if durations is None:
            benefit = delay + reload
            return math.log(benefit) if benefit > 1.0 else 0.0
        benefit, count = delay * self._served.eta + reload, len(durations)
        best, worth, most = 0.0, durations.share_within(0.0) * benefit, max(0.0, benefit)
        for place, tau in enumerate(durations.ordered, start=1):
            if most - tau <= worth:
                break  # not even the whole benefit is worth a longer pin
            value = place / count * benefit - tau
            if value > worth:  # of equal durations the last has their whole share
                best, worth = tau, value
        return best

    def pinned(self, session: Paused | Queued, now: float) -> bool:
        """Whether the session's context is pinned. If the pin holds when the answer comes, it lasts until the session
        runs."""
        return now < self._pinned_until.get(session.id, -math.inf)

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        now, pinned = view.now, self.pinned
        contexts: Iterable[Paused] = (paused for paused in view.paused if not pinned(paused, now))
        if view.running_sessions == 0:
            kept = [paused for paused in view.paused if pinned(paused, now)]
            contexts = chain(contexts, sorted(kept, key=lambda one: -one.arrival))
        return last_blocks(contexts, blocks, view)

    def review_at(self, view: EngineView) -> float:
        """The next end of a pin: then other sessions may find room."""
        now, until = view.now, self._pinned_until
        return min([end for paused in view.paused if (end := until.get(paused.id, now)) > now], default=NEVER)

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        self._durations.add(tool_of(paused), duration)
        if self.pinned(paused, view.now):
            self._pinned_until[paused.id] = math.inf
        if is_incomplete(paused):
            self._evicted.add(paused.id)

    def on_start(self, started: Queued, view: EngineView) -> None:
        self._pinned_until.pop(started.id, None)
        if started.id in self._evicted:
            self._evicted.remove(started.id)
            self._delays.append(view.now - started.ready_at)

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._pinned_until.pop(finished.id, None)
        self._evicted.discard(finished.id)
        self._served.add(finished.calls_done)

    def on_leave(self, left: Paused, view: EngineView) -> None:
        self._pinned_until.pop(left.id, None)
        self._evicted.discard(left.id)


class ServedAndLeft:
    """The correlation of calls served, k, and calls left, N - k, over all k = 1 ... N - 1 of all finished sessions."""

    def __init__(self) -> None:
        self._count = self._k = self._left = self._kk = self._lefts = self._both = 0

    def add(self, calls: int) -> None:
        """A session of ``calls`` calls has finished."""
        for served in range(1, calls):
            left = calls - served
            self._count += 1
            self._k += served
            self._left += left
            self._kk += served * served
            self._lefts += left * left
            self._both += served * left

    @property
    def eta(self) -> float:
        """-Corr(k, N - k); 1 while either does not vary, as when all sessions are equally long."""
        spread = (self._count * self._kk - self._k**2) * (self._count * self._lefts - self._left**2)
        if spread <= 0:
            return 1.0
        return -(self._count * self._both - self._k * self._left) / math.sqrt(spread)


class PinnedFirst(QueueOrder):
    """Sessions whose context is pinned, then the others, each by the arrival of the session (program-level FCFS).

    Goes with the policy ``continuum``; beside another policy no session is pinned.
    """

    key_names = ("unpinned", "arrival")

    def key(self, queued: Queued, view: EngineView) -> Key:
        pinned = isinstance(self.policy, Continuum) and self.policy.pinned(queued, view.now)
        return (0.0 if pinned else 1.0, queued.arrival)
