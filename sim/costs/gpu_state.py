"""What passes do to those after them: a GPU at its power limit slows down and recovers, a host that waits grows cold.

Matrix products draw more power than reads of memory. A GPU that does mostly matrix products lowers its clocks until it
stays within its limit, and raises them when decoding gives it a rest; what a pass takes therefore depends on those
before it. Here the share of recent time in which matrix products ran stands for the power that was drawn.

The host works between passes and waits while they run; the longer it waits, the less of what it needs is in its caches.
"""

from __future__ import annotations

from collections.abc import Iterator

from sim.costs.batch import Batch
from sim.costs.cost_model import CostModel
from sim.costs.profile import PhysicalForward, PowerLimit

NO_LIMIT = PowerLimit(memory_s=1.0, free_share=0.0, reference_share=0.0, slowdown=0.0, slowdown_matrix=0.0)


class GpuState:
    """The state of one GPU and of its host.

    Args:
        costs: what passes take at ``limit.reference_share``.
        limit: how that changes with the share.
    """

    def __init__(self, costs: CostModel, limit: PowerLimit) -> None:
        self._costs, self._limit = costs, limit
        self._share, self._at = 0.0, 0.0
        self._last = self._stall = 0.0
        self._taken: list[tuple[float, float]] = []  # share after each pass asked for, and its seconds
        host = costs.profile.host
        self._cold_s, self._cold_after_s = host.cold_s, host.cold_after_s
        self._decodes: dict[int, tuple[float, float]] = {}  # ``_parts`` by sessions, without a chunk

    def pass_times(self, batch: Batch, at: float, iterations: int, stall: float = 0.0) -> list[float]:
        """``step_times``, all at once."""
        return list(self.step_times(batch, at, iterations, stall))

    def step_times(self, batch: Batch, at: float, iterations: int, stall: float = 0.0) -> Iterator[float]:
        """Seconds of iterations of ``batch`` that begin at ``at`` and follow one another, each with every context
        longer by what the one before computed. A single one may wait ``stall`` seconds for copies, in which the GPU
        computes nothing; the host has planned it by then. The state changes when ``took`` says how many of them took
        place."""
        assert stall == 0 or iterations == 1, "a leap waits for no copies"
        self._stall = stall
        costs, limit = self._costs, self._limit
        share = rested(self._share, at + stall - self._at, limit)
        memory, flat, steep = limit.memory_s, limit.slowdown, limit.slowdown_matrix
        free, reference = limit.free_share, limit.reference_share
        outside, busy = self._parts(batch)
        later = costs.host_time(batch, later=True) if batch.new_calls and iterations > 1 else outside
        cold, after, waited = self._cold_s, self._cold_after_s, self._last + (at - self._at)
        taken = self._taken = []
        for nominal in costs.step_times(batch, iterations):
            device = nominal - outside
            matrix = busy if busy < device else device
            seconds = nominal + (flat * device + steep * matrix) * ((share if share > free else free) - reference)
            seconds += cold * waited / (waited + after)
            share += (matrix - share * seconds) / (memory + seconds)
            taken.append((share, seconds))
            waited = seconds
            yield seconds
            outside = later

    def _parts(self, batch: Batch) -> tuple[float, float]:
        """Seconds of a pass in which the device has nothing to do, and seconds of its matrix work."""
        if batch.prefill_sessions or batch.new_calls:
            return self._costs.host_time(batch), self._costs.matrix_seconds(batch)
        parts = self._decodes.get(batch.decode_sessions)
        if parts is None:
            parts = self._costs.host_time(batch), self._costs.matrix_seconds(batch)
            self._decodes[batch.decode_sessions] = parts
        return parts

    def took(self, iterations: int, end: float) -> None:
        """``iterations`` of those asked for last took place; the last of them ended at ``end``."""
        self._share, last = self._taken[iterations - 1]
        self._last = last + self._stall
        self._at = end


def gpu_state_of(costs: CostModel) -> GpuState | None:
    """The state of a GPU with these costs, at rest; None if no pass matters to those after it."""
    forward = costs.profile.forward
    limit = forward.power if isinstance(forward, PhysicalForward) else None
    if limit is None and not costs.profile.host.cold_s:
        return None
    return GpuState(costs, limit or NO_LIMIT)


def rested(share: float, seconds: float, limit: PowerLimit) -> float:
    """The share after ``seconds`` in which the GPU computed nothing."""
    return share * limit.memory_s / (limit.memory_s + seconds) if seconds > 0 else share
