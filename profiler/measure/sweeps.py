"""The sweeps over iterations: a grid, random batches off the grid, and whole recomputations."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from profiler.measure.bench import Timing
from profiler.measure.grid import SHORT, Point, Shape, grid, held_out, references
from profiler.measure.machine import ClockReader
from profiler.measure.progress import Report
from profiler.measure.repeats import Repeats
from profiler.measure.rig import Request, Rig
from profiler.measure.samples import Samples

ROUNDS = 8
LEAST_ROUNDS = 4
HEAVY_PAIRS = 20_000_000
"""Query-key pairs of chunks from which a pass is measured in every other round only."""
PART = 40
"""Points that are measured between two visits of the reference shapes, and written down together."""
CLOCKS_EVERY = 20
"""Parts between two in which the clocks are read: nvidia-smi takes a while to answer."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What every sweep needs."""

    rig: Rig
    samples: Samples
    report: Report

    def left(self, table: str, points: Iterable[str]) -> list[str]:
        """Those of ``points`` that are not measured yet."""
        done = self.samples.done(table)
        return [point for point in points if point not in done]


# ---- iterations


def measure_iterations(sweep: Sweep, deadline: float) -> int:
    """Grid and held-out batches in rounds: each round measures every point once, in a random order of its own.

    So each pass runs between others, as a server's do. A GPU that repeats one heavy pass reaches its power limit and
    lowers its clocks; measured so, such passes cost some per cent more than they do in service.

    Args:
        deadline: when to stop, by ``time.perf_counter``.

    Returns:
        Points left out because the time was up: all of them before ``LEAST_ROUNDS`` rounds are through.
    """
    rig, samples, report = sweep.rig, sweep.samples, sweep.report
    request = rig.request
    blocks, size = rig.backend.cache.gpu_blocks, request.block_size
    points = [point for point in grid(request.extent) if point.shape.blocks(size) <= blocks]
    points += held_out(request.extent, blocks, size, request.seed)
    parts = _parts(points, request.seed)
    done = samples.done("iterations")
    todo = [part for part in parts if part.name not in done]
    if not todo:
        return 0
    report.stage("iterations", len(todo))
    if request.device.type == "cuda":
        for point in points:  # the first run of a shape loads kernels
            _timed(sweep, point)
    for part in todo:
        if time.perf_counter() > deadline:
            break
        rows = [_timed(sweep, point) for point in (*part.references(request, blocks), *part.points)]
        samples.append("iterations", part.name, rows)
        if part.reads_clocks:
            _read_clocks(sweep, part.name)
        report.advance(deadline - time.perf_counter())
    least = {part.name for part in parts if part.round < LEAST_ROUNDS}
    return 0 if least <= samples.done("iterations") else len(points)


@dataclass(frozen=True, slots=True)
class _Part:
    """Some of a round's points."""

    name: str
    round: int
    points: tuple[Point, ...]
    reads_clocks: bool

    def references(self, request: Request, pool_blocks: int) -> list[Point]:
        """The reference shapes, named by the round."""
        shapes = references(request.extent, pool_blocks, request.block_size)
        return [replace(point, name=f"{point.name} {self.round:03d}") for point in shapes]


def _parts(points: list[Point], seed: int) -> list[_Part]:
    """Every round's points in its order, cut into parts."""
    parts: list[_Part] = []
    for number in range(ROUNDS):
        due = [point for point in points if number % 2 == 0 or not _is_heavy(point)]
        order = np.random.default_rng((seed, number)).permutation(len(due))
        for begin in range(0, len(order), PART):
            chosen = tuple(due[index] for index in order[begin : begin + PART])
            reads_clocks = len(parts) % CLOCKS_EVERY == 0
            parts.append(_Part(f"round {number:02d} from {begin:03d}", number, chosen, reads_clocks))
    return parts


def _is_heavy(point: Point) -> bool:
    return point.shape.batch().prefill_pairs > HEAVY_PAIRS


def _timed(sweep: Sweep, point: Point) -> dict[str, Any]:
    """One measurement of a point."""
    sweep.rig.bench.set_up(point.shape)
    return {"name": point.name, **_row(point.set, point.shape, sweep.rig.bench.run())}


def _read_clocks(sweep: Sweep, name: str) -> None:
    """Read the clocks while passes of many kinds run."""
    rig = sweep.rig
    mixture = references(rig.request.extent, rig.backend.cache.gpu_blocks, rig.request.block_size)
    clocks = ClockReader(rig.request.device)
    while clocks.running():
        for point in mixture:
            _timed(sweep, point)
    if name not in sweep.samples.done("clocks") and (seen := clocks.read()):
        sweep.samples.append("clocks", name, [dict(seen)])


def _row(kind: str, shape: Shape, timing: Timing) -> dict[str, Any]:
    batch = shape.batch()
    return {
        "set": kind,
        "decodes": batch.decode_sessions,
        "padded": timing.padded,
        "decode_context": batch.decode_context,
        "decode_spread": batch.decode_spread,
        "chunks": batch.prefill_sessions,
        "chunk_tokens": batch.prefill_tokens,
        "chunk_context": batch.prefill_context,
        "pairs": batch.prefill_pairs,
        "ends": int(shape.ends),
        "device_s": timing.device_s,
        "host_s": timing.host_s,
        "waited_s": timing.waited_s,
        "wall_s": timing.wall_s,
    }


# ---- recompute


def measure_recompute(sweep: Sweep, deadline: float) -> None:
    """Whole contexts computed anew: in one pass, and in chunks one after another. The longest take a quarter of a
    minute, and are computed once."""
    extent, size = sweep.rig.request.extent, sweep.rig.request.block_size
    room = min(extent.context, (sweep.rig.backend.cache.gpu_blocks - 1) * size)
    most = min(room, sweep.rig.request.longest_chunk, SHORT)
    cases = {
        f"recompute {context} by {chunk}": (context, chunk)
        for context in (128, 256, 512, 1024, 2048, 4096, SHORT)
        for chunk in (context, 128, 256, 512, 1024)
        if context <= most and (chunk == context or chunk <= context // 2)
    }
    longest = ((32768, 512), (32768, 2048), (131072, 2048))
    cases |= {f"recompute {context} by {chunk}": (context, chunk) for context, chunk in longest if context <= room}
    todo = sweep.left("recompute", cases)
    sweep.report.stage("recompute, whole and in chunks", len(todo))
    bench = sweep.rig.bench
    for index, name in enumerate(todo):
        context, chunk = cases[name]

        def once(context: int = context, chunk: int = chunk) -> dict[str, Any]:
            parts = [(start, min(chunk, context - start)) for start in range(0, context, chunk)]
            timings = []
            for start, tokens in parts:
                bench.set_up(Shape(chunks=((start, tokens),), ends=start + tokens == context))
                timings.append(bench.run())
            total, wall = sum(one.device_s for one in timings), sum(one.wall_s for one in timings)
            return {"context": context, "chunk": chunk, "passes": len(parts), "device_s": total, "wall_s": wall}

        allowance = (deadline - time.perf_counter()) / (len(todo) - index)
        repeats = Repeats(warm_up=1, least=3, most=7, tolerance=0.01)
        if context > SHORT:
            repeats = Repeats(warm_up=0, least=1, most=1, tolerance=0.01)
        sweep.samples.append("recompute", name, repeats.collect(once, lambda row: float(row["device_s"]), allowance))
        sweep.report.advance()
