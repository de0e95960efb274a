"""Autellix, later Agentix (arXiv 2502.13965): sessions that were served least go first."""

from __future__ import annotations

import math

from policies.contract import EngineView, Queued
from policies.promotion import PromotingOrder


class LeastAttained(PromotingOrder):
    """PLAS, program-level attained service, in discrete queues.

        p(call) = sum of the run times of the completed calls of its session

    A call enters the queue of its p: queue 0 below ``quantum`` seconds, and each further one takes up to twice as many.
    Within a queue the call that became ready first goes first. So newcomers and short sessions overtake those that have
    had much, at every pause. A call is promoted before all others when its session has waited ``beta`` times as long as
    it was served:

        (W_p + W_c) / (T_p + T_c) >= beta

    Running calls are not interrupted, so none is demoted before it ends, and T_c is 0.

    Args:
        quantum: seconds of service that the first queue takes.
        levels: number of queues, at least 1.
        beta: waiting by service from which a call is promoted; infinite never promotes.
    """

    def __init__(self, quantum: float = 0.5, levels: int = 8, beta: float = 10.0) -> None:
        if not (quantum > 0 and levels >= 1 and beta > 0):
            raise ValueError("quantum is in seconds and beta a ratio, both above 0, and levels at least 1")
        super().__init__()
        self.quantum = quantum
        self.levels = levels
        self.beta = beta

    def rank(self, queued: Queued, view: EngineView) -> tuple[float, ...]:
        return (float(self.level(queued.served(view.now))), queued.ready_at)

    def level(self, served: float) -> int:
        """The queue of a call whose session has been served for ``served`` seconds."""
        if served < self.quantum:
            return 0
        return min(self.levels - 1, 1 + math.floor(math.log2(served / self.quantum)))

    def due(self, queued: Queued) -> float:
        since = queued.waits_since
        served = queued.served(since)
        return since + self.beta * served - queued.waited(since) if served > 0 else math.inf
