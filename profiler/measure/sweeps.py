"""The sweeps over iterations: a grid, random batches off the grid, and whole recomputations."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiler.measure.bench import Timing
from profiler.measure.grid import Point, Shape, grid, held_out, references
from profiler.measure.machine import ClockReader
from profiler.measure.progress import Report
from profiler.measure.repeats import Repeats
from profiler.measure.rig import Rig
from profiler.measure.samples import Samples

REFERENCE_EVERY = 30
"""Points between two visits of the reference shapes."""
CLOCKS_EVERY = 4
"""Visits between two on which the clocks are read: nvidia-smi takes a while to answer."""


@dataclass(frozen=True, slots=True)
class Sweep:
    """What every sweep needs."""

    rig: Rig
    samples: Samples
    report: Report
    repeats: Repeats

    def left(self, table: str, points: Iterable[str]) -> list[str]:
        """Those of ``points`` that are not measured yet."""
        done = self.samples.done(table)
        return [point for point in points if point not in done]


# ---- iterations


def measure_iterations(sweep: Sweep, deadline: float) -> int:
    """Grid and held-out batches in one random order, the reference shapes in between. Returns points left out because
    the time was up.

    Args:
        deadline: when to stop, by ``time.perf_counter``.
    """
    rig, samples, report = sweep.rig, sweep.samples, sweep.report
    request = rig.request
    blocks, size = rig.backend.cache.gpu_blocks, request.block_size
    points = [point for point in grid(request.extent) if point.shape.blocks(size) <= blocks]
    points += held_out(request.extent, blocks, size, request.seed)
    order = np.random.default_rng(request.seed).permutation(len(points))
    done = samples.done("iterations")
    todo = [points[index] for index in order if points[index].name not in done]
    repeated = references(request.extent, blocks, size)
    visit = sum(1 for name in done if name.startswith(repeated[0].name))
    report.stage("iterations", len(todo))
    for index, point in enumerate(todo):
        now = time.perf_counter()
        if now > deadline:
            return len(todo) - index
        allowance = 1.5 * (deadline - now) / (len(todo) - index)
        if index % REFERENCE_EVERY == 0:
            for reference in repeated:
                _visit(sweep, reference, visit, allowance)
            visit += 1
        _measure(sweep, point, point.name, allowance)
        report.advance(deadline - time.perf_counter())
    return 0


def _visit(sweep: Sweep, reference: Point, visit: int, allowance: float) -> None:
    """Measure a reference shape once more; on some visits read the clocks under its load."""
    name = f"{reference.name} {visit:03d}"
    if name in sweep.samples.done("iterations"):
        return
    if visit % CLOCKS_EVERY == 0 and name not in sweep.samples.done("clocks"):
        sweep.rig.bench.set_up(reference.shape)
        clocks = ClockReader(sweep.rig.request.device)
        while clocks.running():
            sweep.rig.bench.run()
        if seen := clocks.read():
            sweep.samples.append("clocks", name, [dict(seen)])
    _measure(sweep, reference, name, allowance)


def _measure(sweep: Sweep, point: Point, name: str, allowance: float) -> None:
    bench = sweep.rig.bench
    bench.set_up(point.shape)
    timings = sweep.repeats.collect(bench.run, lambda timing: timing.device_s, allowance)
    sweep.samples.append("iterations", name, [_row(point.set, point.shape, timing) for timing in timings])


def _row(kind: str, shape: Shape, timing: Timing) -> dict[str, Any]:
    batch = shape.batch()
    return {
        "set": kind,
        "decodes": batch.decode_sessions,
        "padded": timing.padded,
        "decode_context": batch.decode_context,
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
    """Whole contexts computed anew: in one pass, and in chunks one after another."""
    extent, size = sweep.rig.request.extent, sweep.rig.request.block_size
    most = min(extent.context, sweep.rig.request.longest_chunk, (sweep.rig.backend.cache.gpu_blocks - 1) * size)
    cases = {
        f"recompute {context} by {chunk}": (context, chunk)
        for context in (128, 256, 512, 1024, 2048, 4096, 8192)
        for chunk in (context, 128, 256, 512, 1024)
        if context <= most and (chunk == context or chunk <= context // 2)
    }
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
        sweep.samples.append("recompute", name, repeats.collect(once, lambda row: float(row["device_s"]), allowance))
        sweep.report.advance()
