"""Where the GPU's memory went: every block of the pool, for every second, has one use.

Useful memory is held by sessions that compute new tokens. The rest is waste, by cause, after InferCept (arXiv
2402.01869, section 3): contexts *preserved* while nothing is computed for them; contexts under *recompute*, and
everyone else's while the recompute lengthens the iteration; *swap*: everyone's while the batch waits for a copy, and
the blocks that a copy is reading or filling; and *unused* blocks.
"""

from __future__ import annotations

from sim.costs import CostModel
from sim.engine import Engine
from sim.plan import Plan

USES = ("useful", "preserved", "recomputing", "copying", "free")
STATES = ("running", "waiting", "swapped", "paused")


class Ledger:
    """Accumulates blocks x seconds by use, in total and by steps of time.

    Args:
        costs: gives the time that an iteration would have taken without its recomputation.
        blocks: blocks of the GPU pool.
        host_blocks: blocks of the host pool.
        block_size: tokens per block.
        step: seconds of one step of the timeline.
    """

    def __init__(self, costs: CostModel, blocks: int, host_blocks: int, block_size: int, step: float) -> None:
        self._costs = costs
        self._blocks, self._host_blocks, self._block_size = blocks, host_blocks, block_size
        self._step = step
        self._steps: list[list[float]] = []
        self.iterations = 0
        self.computed_tokens = 0
        self.forward_s = self.recompute_s = self.stall_s = self.idle_s = 0.0
        self.useful = self.preserved = self.recompute_own = self.recompute_others = self.swap = self.unused = 0.0

    def iteration(self, engine: Engine, plan: Plan, begin: float, stall: float, forward: float) -> None:
        """An iteration of ``stall`` seconds of waiting for copies and ``forward`` seconds of compute."""
        self.iterations += 1
        self.computed_tokens += plan.batch.query_tokens
        self.forward_s += forward
        self.stall_s += stall
        contexts = engine.contexts
        seconds = stall + forward
        idle, copying, free = contexts.idle_blocks, contexts.copying_blocks, contexts.gpu.free
        running = contexts.gpu.used - idle - copying
        own = extra = 0.0
        rest = plan.batch_without_recompute()
        if rest is not plan.batch:
            whole = self._costs.iteration_time(plan.batch)
            extra = forward * (1.0 - self._costs.iteration_time(rest) / whole)
            own = sum(
                contexts.blocks(chunk.start + chunk.tokens) * chunk.recomputed / chunk.tokens for chunk in plan.chunks
            )
        self.recompute_s += extra
        self.preserved += idle * seconds
        self.unused += free * seconds
        self.swap += running * stall + copying * seconds
        self.recompute_own += own * forward
        self.recompute_others += (running - own) * extra
        self.useful += (running - own) * (forward - extra)
        self._add(engine, begin, seconds, (running - own, idle, own, copying, free))

    def idle(self, engine: Engine, begin: float, seconds: float) -> None:
        """Nothing was computed for ``seconds`` seconds."""
        if seconds <= 0:
            return
        contexts = engine.contexts
        copying, free = contexts.copying_blocks, contexts.gpu.free
        held = contexts.gpu.used - copying  # admitted sessions that wait for memory hold it idly too
        self.idle_s += seconds
        self.preserved += held * seconds
        self.unused += free * seconds
        self.swap += copying * seconds
        self._add(engine, begin, seconds, (0.0, held, 0.0, copying, free))

    def _add(self, engine: Engine, begin: float, seconds: float, blocks: tuple[float, ...]) -> None:
        row = (
            *blocks,
            engine.contexts.host.used,
            engine.queues.running,
            len(engine.queues.waiting),
            len(engine.queues.swapped),
            engine.queues.paused,
        )
        at, end = begin, begin + seconds
        while True:
            index = int(at / self._step)
            edge = (index + 1) * self._step
            while len(self._steps) <= index:
                self._steps.append([0.0] * len(row))
            upto = min(edge, end)
            into = self._steps[index]
            for place, value in enumerate(row):
                into[place] += value * (upto - at)
            if end <= edge:
                return
            at = edge

    def totals(self, end: float) -> dict[str, float]:
        """Sums over the run, token-seconds and seconds."""
        size = self._block_size
        return {
            "end_time": end,
            "iterations": self.iterations,
            "computed_tokens": self.computed_tokens,
            "forward_s": self.forward_s,
            "recompute_forward_s": self.recompute_s,
            "swap_stall_s": self.stall_s,
            "idle_s": self.idle_s,
            "gpu_blocks": self._blocks,
            "host_blocks": self._host_blocks,
            "block_size": size,
            "memory_token_s": self._blocks * size * end,
            "useful_token_s": self.useful * size,
            "waste_preserve_token_s": self.preserved * size,
            "waste_recompute_own_token_s": self.recompute_own * size,
            "waste_recompute_others_token_s": self.recompute_others * size,
            "waste_swap_token_s": self.swap * size,
            "unused_token_s": self.unused * size,
        }

    def timeline(self, end: float) -> dict[str, list[float]]:
        """Means over each step; the last step may be shorter than the others."""
        step = self._step
        names = (*USES, "host_used", *STATES)
        columns: dict[str, list[float]] = {"time": [index * step for index in range(len(self._steps))]}
        widths = [min(step, end - index * step) or step for index in range(len(self._steps))]
        for place, name in enumerate(names):
            columns[name] = [row[place] / width for row, width in zip(self._steps, widths, strict=True)]
        return columns
