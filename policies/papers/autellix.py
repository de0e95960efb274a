"""Autellix, later Agentix (arXiv 2502.13965): the sessions with the least attained service go first."""

from __future__ import annotations

import math

from policies.contract import EngineView, Queued
from policies.papers.aging import AgingOrder
from policies.papers.mlfq import FeedbackQueue


class AttainedService(FeedbackQueue):
    """PLAS, program-level attained service, in discrete queues.

        p(call) = sum of the run times of the completed calls of its session

    A call enters the queue of its p: queue 1 below ``quantum`` seconds, and each further one takes up to twice as many.
    A call that has run for as many seconds as its queue is wide falls to the next one, and is preempted if other calls
    go before it. Within a queue the call that entered first goes first. So newcomers and short sessions pass sessions
    that were served much. A call rises to queue 1 when its session has waited ``beta`` times as long as it was served:

        (W_p + W_c) / (T_p + T_c) >= beta

    Args:
        quantum: seconds of service that the first queue takes.
        levels: number of queues, at least 1.
        beta: waiting by service from which a call is promoted; infinite never promotes.
    """

    def __init__(self, quantum: float = 0.5, levels: int = 8, beta: float = 10.0) -> None:
        _require_possible(quantum, levels, beta)
        super().__init__(levels, falls_by=1)
        self.quantum = quantum
        self.beta = beta

    def joins(self, queued: Queued, view: EngineView) -> int:
        return queue_of(queued.served(view.now), self.quantum, self.queues)

    def quantum_of(self, level: int, view: EngineView) -> float:
        return float(self.quantum * 2 ** max(0, level - 2))

    def due(self, queued: Queued, now: float) -> float:
        return _starves_at(queued, now if math.isnan(queued.waits_since) else queued.waits_since, self.beta)


class LeastAttained(AgingOrder):
    """PLAS for calls that run to their end: none falls, T_c is 0, and a promoted call goes before all others.

    Args:
        quantum, levels, beta: as for ``AttainedService``.
    """

    key_names = ("queue", "since")

    def __init__(self, quantum: float = 0.5, levels: int = 8, beta: float = 10.0) -> None:
        _require_possible(quantum, levels, beta)
        super().__init__()
        self.quantum = quantum
        self.levels = levels
        self.beta = beta

    def rank(self, queued: Queued, view: EngineView) -> tuple[float, ...]:
        return (float(queue_of(queued.served(view.now), self.quantum, self.levels)), queued.ready_at)

    def due(self, queued: Queued) -> float:
        return _starves_at(queued, queued.waits_since, self.beta)


def queue_of(served: float, quantum: float, queues: int) -> int:
    """Queue, from 1, of a call whose session was served for ``served`` seconds in its earlier calls."""
    if served < quantum:
        return 1
    return min(queues, 2 + math.floor(math.log2(served / quantum)))


def _starves_at(queued: Queued, since: float, beta: float) -> float:
    """Time at which a session that waits from ``since`` on has waited ``beta`` times as long as it was served, s."""
    served = queued.served(since)
    return since + beta * served - queued.waited(since) if served > 0 else math.inf


def _require_possible(quantum: float, levels: int, beta: float) -> None:
    if not (quantum > 0 and levels >= 1 and beta > 0):
        raise ValueError("quantum is in seconds and beta a ratio, both above 0, and levels at least 1")
