"""Where the GPU's memory went: every block of the pool, for every second, has one use.

Useful memory is held by sessions that compute new tokens. The rest is waste, by cause, after InferCept (arXiv
2402.01869, section 3): contexts *preserved* while nothing is computed for them; contexts under *recompute*, and
all others while the recompute lengthens the iteration; *swap*: all blocks while the batch waits for a copy, and
the blocks that a copy is reading or filling; and *unused* blocks.
"""

from __future__ import annotations

from collections.abc import Sequence

from sim.costs.batch import Direction
from sim.costs.cost_model import CostModel
from sim.costs.measured_range import measured_range_of
from sim.engine.engine import Engine
from sim.engine.plan import Plan

USES = ("useful", "preserve", "recompute_own", "recompute_others", "swap", "unused")
OTHERS = ("host_used", "running", "waiting", "swapped", "paused", "forward", "recompute_forward", "swap_stall")
COLUMNS = (*USES, *OTHERS)
_USEFUL, _UNUSED = USES.index("useful"), USES.index("unused")


class MemoryAccounting:
    """Accumulates blocks x seconds by use, session x seconds by state, and seconds of work, by steps of time.

    Args:
        costs: gives the time that an iteration would have taken without its recomputation.
        blocks: blocks of the GPU pool.
        host_blocks: blocks of the host pool.
        block_size: tokens per block.
        step: seconds of one step of the timeline.
    """

    def __init__(self, costs: CostModel, blocks: int, host_blocks: int, block_size: int, step: float) -> None:
        self.costs = costs
        self.reach = measured_range_of(costs.profile)
        self._blocks, self._host_blocks, self._block_size = blocks, host_blocks, block_size
        self._step = step
        self._steps: list[list[float]] = []
        self.iterations = 0
        self.events = 0
        self.computed_tokens = 0

    def work(self, engine: Engine, plan: Plan, begin: float, stall: float, ends: Sequence[float]) -> None:
        """Iterations that end at ``ends``, of which the first waits ``stall`` seconds for copies before it computes."""
        self.events += 1
        self.iterations += len(ends)
        self.computed_tokens += plan.batch.query_tokens * len(ends)
        if self.reach is not None:
            self.reach.took(plan.batch, begin + stall, ends)
        kv, end = engine.kv, ends[-1]
        idle, copying, free = kv.idle_blocks, kv.copying_blocks, kv.gpu.free_blocks
        running = self._blocks - free - idle - copying
        waits = stall / (end - begin)  # shares of the time: waiting for copies, recomputing, computing anything new
        computes = 1.0 - waits
        recomputes = own = 0.0
        if plan.chunks and plan.recomputes:
            recomputes = self.lengthened(plan) * computes
            recomputing = sum(kv.recomputing(chunk) for chunk in plan.chunks if chunk.recomputed)
            own = min(recomputing, running)  # contexts may share blocks
        reads = min(free, _read_blocks(plan)) if waits else 0
        densities = (
            (running - own) * (computes - recomputes),
            idle,
            own * computes,
            (running - own) * recomputes,
            (running + reads) * waits + copying,
            free - reads * waits,
            *self._counts(engine),
            computes,
            recomputes,
            waits,
        )
        self.spread(begin, end, densities)
        if len(ends) > 1 and plan.growth[len(ends) - 1]:
            self._grow(ends, plan.growth)

    def lengthened(self, plan: Plan) -> float:
        """The share of an iteration's forward pass that it would not take without its recomputation."""
        if not plan.recomputes:
            return 0.0
        rest = plan.batch_without_recompute()
        return 1.0 - self.costs.iteration_time(rest) / self.costs.iteration_time(plan.batch)

    def idle(self, engine: Engine, begin: float, end: float) -> None:
        """Nothing was computed from ``begin`` to ``end``. Admitted sessions that wait for memory hold it idly too."""
        if end > begin:
            self.spread(begin, end, self.at_rest(engine))

    def at_rest(self, engine: Engine) -> tuple[float, ...]:
        """What holds while nothing is computed, as ``spread`` takes it."""
        kv = engine.kv
        copying = kv.copying_blocks
        uses = (0.0, kv.gpu.used - copying, 0.0, 0.0, copying, kv.gpu.free_blocks)
        return (*uses, *self._counts(engine), 0.0, 0.0, 0.0)

    @staticmethod
    def _counts(engine: Engine) -> tuple[int, ...]:
        host, queues = engine.kv.host, engine.queues
        return (
            host.capacity - host.free_blocks,
            queues.running,
            len(queues.waiting),
            len(queues.swapped),
            len(queues.paused),
        )

    def spread(self, begin: float, end: float, densities: Sequence[float]) -> None:
        """Add what holds from ``begin`` to ``end`` to every step that this touches."""
        steps, first = self._steps, int(begin / self._step)
        if first == int(end / self._step) < len(steps):
            _add(steps[first], densities, end - begin)
            return
        for row, seconds in self._touched(begin, end):
            _add(row, densities, seconds)

    def _grow(self, ends: Sequence[float], growth: Sequence[int]) -> None:
        """Blocks counted as unused were useful: in iteration i of a leap contexts had grown by ``growth[i]`` blocks."""
        begin = ends[0]
        index = int(begin / self._step)
        edge, grown = (index + 1) * self._step, 0.0
        for end, blocks in zip(ends[1:], growth[1:], strict=False):
            while end > edge:
                self._shift(index, grown + blocks * (edge - begin))
                begin, grown = edge, 0.0
                index, edge = index + 1, (index + 2) * self._step
            grown += blocks * (end - begin)
            begin = end
        self._shift(index, grown)

    def _shift(self, index: int, block_seconds: float) -> None:
        self._steps[index][_USEFUL] += block_seconds
        self._steps[index][_UNUSED] -= block_seconds

    def _touched(self, begin: float, end: float) -> list[tuple[list[float], float]]:
        """The steps from ``begin`` to ``end``, each with the seconds of it."""
        step, steps = self._step, self._steps
        first, last = int(begin / step), int(end / step)
        while len(steps) <= last:
            steps.append([0.0] * len(COLUMNS))
        if first == last:
            return [(steps[first], end - begin)]
        edges = [begin, *(index * step for index in range(first + 1, last + 1)), end]
        return [(steps[first + index], edges[index + 1] - edges[index]) for index in range(last - first + 1)]

    def totals(self, end: float) -> dict[str, float]:
        """Sums over the run, token-seconds and seconds."""
        sums = {name: sum(row[place] for row in self._steps) for place, name in enumerate(COLUMNS)}
        size = self._block_size
        token_s = {name: sums[name] * size for name in USES}
        return {
            "end_time": end,
            "iterations": self.iterations,
            "events": self.events,
            "computed_tokens": self.computed_tokens,
            "forward_s": sums["forward"],
            "recompute_forward_s": sums["recompute_forward"],
            "swap_stall_s": sums["swap_stall"],
            "idle_s": end - sums["forward"] - sums["swap_stall"],
            "gpu_blocks": self._blocks,
            "host_blocks": self._host_blocks,
            "block_size": size,
            "memory_token_s": self._blocks * size * end,
            "useful_token_s": token_s["useful"],
            "waste_preserve_token_s": token_s["preserve"],
            "waste_recompute_own_token_s": token_s["recompute_own"],
            "waste_recompute_others_token_s": token_s["recompute_others"],
            "waste_swap_token_s": token_s["swap"],
            "unused_token_s": token_s["unused"],
        }

    def timeline(self, end: float) -> dict[str, list[float]]:
        """A row for each step, the last one perhaps shorter, of means over it: blocks by use, host blocks, sessions by
        state, and the shares of time spent computing, recomputing and waiting for copies."""
        step = self._step
        widths = [min(step, end - index * step) for index in range(len(self._steps))]
        rows = [(index * step, row, width) for index, (row, width) in enumerate(zip(self._steps, widths, strict=True))]
        rows = [entry for entry in rows if entry[2] > 0]
        columns: dict[str, list[float]] = {
            "time": [time for time, _, _ in rows],
            "seconds": [width for _, _, width in rows],
        }
        for place, name in enumerate(COLUMNS):
            columns[name] = [row[place] / width for _, row, width in rows]
        return columns


def _add(row: list[float], densities: Sequence[float], seconds: float) -> None:
    row[:] = [total + density * seconds for total, density in zip(row, densities, strict=True)]


def _read_blocks(plan: Plan) -> int:
    """Blocks that copies out read while the batch waits: free in the accounts already, unless claimed anew."""
    return sum(copy.blocks for copy in plan.copies if copy.blocking and copy.direction is Direction.OUT)
