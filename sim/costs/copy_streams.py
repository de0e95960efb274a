"""The two copy streams between GPU and host, one out and one in: copies beside the batch queue on each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from sim.costs.batch import CopyOfBlocks, Direction
from sim.costs.cost_model import CostModel

C = TypeVar("C", bound=CopyOfBlocks)


class CopyStreams:
    """When copies end.

    Args:
        costs: seconds of a copy.

    Attributes:
        busy_until: when the last copy that was begun ends, s.
    """

    def __init__(self, costs: CostModel) -> None:
        self._costs = costs
        self._free = {Direction.OUT: 0.0, Direction.IN: 0.0}
        self.busy_until = 0.0

    def begin(self, copies: Iterable[C], now: float) -> tuple[float, list[tuple[float, C]]]:
        """Copies beside the batch queue for their direction's channel; the others make it wait. Returns for how long,
        s, and when those beside it end."""
        stall, ending = 0.0, []
        for copy in copies:
            way = copy.direction
            seconds = self._costs.copy_time(copy.tokens, way)
            if copy.blocking:
                stall += seconds
                continue
            free = self._free[way]
            end = self._free[way] = (free if free > now else now) + seconds
            ending.append((end, copy))
        self.busy_until = max(self._free.values())
        return stall, ending

    def beside(self, computes_at: float) -> dict[Direction, float]:
        """For how long copies run beside a batch that computes from then on, s."""
        return {way: free - computes_at for way, free in self._free.items() if free > computes_at}
