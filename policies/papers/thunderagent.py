"""ThunderAgent (arXiv 2602.13692): sessions are admitted and set aside so that the active ones fit the memory."""

from __future__ import annotations

import math
from collections.abc import Iterator

from policies.basic.cache_lru import last_blocks
from policies.contract import (
    NEVER,
    Change,
    Discard,
    EngineView,
    InterceptPolicy,
    Key,
    Paused,
    Preserve,
    Queued,
    QueueOrder,
    Verdict,
)


class ThunderAgent(InterceptPolicy):
    """Looks every ``tick`` seconds whether

        capacity < sum over reasoning sessions of c + sum over acting ones of c * f(t),  f(t) = 2^-t

    c being the tokens of a context on the GPU and t the seconds since its tool began. If so, acting sessions are set
    aside, the shortest context first since recomputing costs about c^2, until the overflow is gone: their contexts are
    discarded. If they do not suffice, the shortest reasoning sessions lose theirs at their next pause. Contexts of
    active sessions stay while they pause; the least recently used loses its last blocks when they are needed.

    Args:
        tick: seconds.
    """

    def __init__(self, tick: float = 5.0) -> None:
        if not tick > 0:
            raise ValueError("tick is in seconds, above 0")
        self.tick = tick
        self.next_tick = 0.0
        self._spare = 0.0
        self._to_set_aside: set[str] = set()
        self._active: set[str] = set()

    def count_spare(self, view: EngineView) -> None:
        """At the first question after a tick, count the spare tokens; negative ones are the overflow."""
        if view.now >= self.next_tick:
            self.next_tick = (math.floor(view.now / self.tick) + 1) * self.tick
            self._spare = view.gpu_blocks * view.block_size - view.running_context_tokens
            self._spare -= sum(_counted(paused, view.now) for paused in view.undecided)

    def on_pause(self, paused: Paused, view: EngineView) -> Verdict:
        if paused.id in self._to_set_aside:
            self._to_set_aside.remove(paused.id)
            self._active.discard(paused.id)
            return Discard(reasons={"set_aside": 1.0})
        return Preserve()

    def revise(self, view: EngineView) -> Iterator[Change]:
        self.count_spare(view)
        if self._spare >= 0:
            return
        for paused in sorted(view.undecided, key=lambda one: one.resident_tokens):
            if self._spare >= 0:
                return
            reasons = {"overflow_tokens": -self._spare}
            self._spare += _counted(paused, view.now)
            self._active.discard(paused.id)
            yield paused, Discard(reasons=reasons)
        for running in sorted(view.running, key=lambda one: one.context_tokens):
            if self._spare >= 0:
                return
            self._spare += running.context_tokens
            self._to_set_aside.add(running.id)

    def review_at(self, view: EngineView) -> float:
        return self.next_tick

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        return last_blocks(view.paused, blocks, view)

    def admits(self, queued: Queued, view: EngineView) -> bool:
        """Whether the session is active, or fits the spare memory if it is new or was set aside."""
        self.count_spare(view)
        if queued.id in self._active:
            return True
        alone = view.running_sessions == 0 and not view.undecided
        if queued.context_tokens > self._spare and not alone:
            return False
        self._spare -= queued.context_tokens
        self._active.add(queued.id)
        return True

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._to_set_aside.discard(finished.id)
        self._active.discard(finished.id)

    def on_leave(self, left: Paused, view: EngineView) -> None:
        self._to_set_aside.discard(left.id)
        self._active.discard(left.id)


class ActiveFirst(QueueOrder):
    """Sessions under way before new ones, short contexts first; those that do not fit wait for the next tick.

    Goes with the policy ``thunderagent``; beside another policy every session is admitted.
    """

    key_names = ("new", "context")

    def key(self, queued: Queued, view: EngineView) -> Key:
        return (0.0 if queued.calls_done else 1.0, float(queued.context_tokens))

    def admits(self, queued: Queued, view: EngineView) -> bool:
        return not isinstance(self.policy, ThunderAgent) or self.policy.admits(queued, view)

    def review_at(self, view: EngineView) -> float:
        """The next tick. One that has passed brought no question, and brings none while nothing changes."""
        tick = self.policy.next_tick if isinstance(self.policy, ThunderAgent) else NEVER
        return tick if tick > view.now else NEVER


def decay(seconds: float) -> float:
    """f(t) = 2^-t: how much of a context counts ``seconds`` after its tool began."""
    return float(2.0**-seconds)


def _counted(paused: Paused, now: float) -> float:
    return paused.resident_tokens * decay(now - paused.paused_at)
