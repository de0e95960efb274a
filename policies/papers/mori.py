"""MORI (arXiv 2606.00866): the busiest sessions on the GPU, the idlest on the host."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator

from policies.contract import Change, EngineView, InterceptPolicy, Paused, Queued, Swap


class Mori(InterceptPolicy):
    """Ranks paused contexts by

        idleness = T_acting / (T_reasoning + T_acting)

    over the session's last ``cycles`` cycles of a call and its pause, the one under way included. Every ``tick``
    seconds, if less than ``headroom`` of the GPU's blocks is free, the idlest leave for the host until it is: so the
    boundary between GPU and host follows the memory that running sessions need, and contexts on the right side of it
    stay. A context comes back when its session does and there is room; nothing is prefetched. A running session that
    lacks a block takes it from the idlest.

    Args:
        cycles: k of the paper.
        tick: seconds.
        headroom: share of the GPU's blocks that idle contexts should leave free.
    """

    def __init__(self, cycles: int = 5, tick: float = 5.0, headroom: float = 0.1) -> None:
        if not (cycles >= 1 and tick > 0 and 0 <= headroom <= 1):
            raise ValueError("cycles is at least 1, tick above 0 s, and headroom a share, 0 to 1")
        self.cycles = cycles
        self.tick = tick
        self.headroom = headroom
        self._cycles: dict[str, deque[tuple[float, float]]] = {}
        self._next_tick = 0.0

    def idleness(self, paused: Paused, now: float) -> float:
        """T_acting / (T_reasoning + T_acting) by ``now``; 1 is always away. A session whose answer came is not idle."""
        if paused.resumed:
            return 0.0
        cycles = [*self._cycles.get(paused.id, ()), (paused.paused_at - paused.ready_at, now - paused.paused_at)]
        recent = cycles[-self.cycles :]
        acting = sum(away for _, away in recent)
        whole = acting + sum(busy for busy, _ in recent)
        return acting / whole if whole > 0 else 0.0

    def revise(self, view: EngineView) -> Iterator[Change]:
        if view.now < self._next_tick:
            return
        self._next_tick = (math.floor(view.now / self.tick) + 1) * self.tick
        lacking = math.ceil(self.headroom * view.gpu_blocks) - view.free_gpu_blocks
        for idleness, paused in self._idlest_first(view):
            if lacking <= 0:
                return
            lacking -= -(-paused.resident_tokens // view.block_size)
            yield paused, Swap(reasons={"idleness": idleness})

    def review_at(self, view: EngineView) -> float:
        return self._next_tick

    def evict(self, blocks: int, view: EngineView) -> Iterator[Change]:
        for idleness, paused in self._idlest_first(view):
            yield paused, Swap(reasons={"idleness": idleness, "blocks_needed": blocks})

    def on_resume(self, paused: Paused, duration: float, view: EngineView) -> None:
        cycles = self._cycles.setdefault(paused.id, deque(maxlen=self.cycles))
        cycles.append((paused.paused_at - paused.ready_at, duration))

    def on_finish(self, finished: Queued, view: EngineView) -> None:
        self._cycles.pop(finished.id, None)

    def on_leave(self, left: Paused, view: EngineView) -> None:
        self._cycles.pop(left.id, None)

    def on_join(self, joined: Paused, view: EngineView) -> None:
        """The cycles at other replicas are unknown: each is taken to be their mean."""
        busy = joined.ready_at - joined.arrival - joined.paused_s
        mean = busy / joined.calls_done, joined.paused_s / joined.calls_done
        self._cycles[joined.id] = deque([mean] * min(joined.calls_done, self.cycles), maxlen=self.cycles)

    def _idlest_first(self, view: EngineView) -> list[tuple[float, Paused]]:
        ranked = [(self.idleness(paused, view.now), paused) for paused in view.paused if not paused.moving]
        return sorted(ranked, key=lambda pair: -pair[0])
