"""The sweeps over copies: alone, both ways at once, and beside compute."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

from profiler.measure.bench import Timing
from profiler.measure.copies import FIRST, SECOND, CopyBench, Flight
from profiler.measure.grid import Shape
from profiler.measure.repeats import Repeats
from profiler.measure.rig import LONG_COPIES, LONGEST_COPY, Rig
from profiler.measure.sweeps import Sweep

ROUNDS = 9
"""Rounds of iterations with and without copies beside them, in turn."""


def measure_copies(sweep: Sweep, deadline: float) -> None:
    """Copies alone, and both ways at once, over sizes and layouts; those of long contexts alone, scattered."""
    sizes = _copy_sizes(sweep.rig)
    cases = {
        f"{kind} {blocks} {layout}": (kind, blocks, layout)
        for blocks in sizes
        for kind in ("alone", "both")
        for layout in (("scattered", "neighbours") if blocks > 1 else ("neighbours",))
    }
    cases |= {f"alone {blocks} scattered": ("alone", blocks, "scattered") for blocks in _long_copy_sizes(sweep.rig)}
    todo = sweep.left("copies", cases)
    sweep.report.stage("copies, alone and both ways", len(todo))
    sweep.rig.bench.set_up(Shape())
    for index, name in enumerate(todo):
        kind, blocks, layout = cases[name]
        bench = CopyBench(sweep.rig.backend, blocks, layout == "scattered")
        least = 5 if blocks <= sizes[-1] else 3
        stretches = bench.stretches()
        if kind == "both":
            bench.fly([FIRST])

        def once(bench: CopyBench = bench, kind: str = kind) -> list[Flight]:
            if kind == "both":
                return bench.fly([FIRST, SECOND]) + bench.fly([FIRST, SECOND])
            return bench.fly([FIRST]) + bench.fly([FIRST])

        allowance = (deadline - time.perf_counter()) / (len(todo) - index)
        repeats = Repeats(warm_up=1, least=least, most=3 * least, tolerance=0.01)
        rounds = repeats.collect(once, lambda flights: sum(one.seconds for one in flights), allowance)
        bench.close()
        what = {"kind": kind, "layout": layout, "stretches": stretches}
        rows = [{**what, **_flight(sweep.rig, blocks, one)} for flights in rounds for one in flights]
        sweep.samples.append("copies", name, rows)
        sweep.report.advance()


def _flight(rig: Rig, blocks: int, flight: Flight) -> dict[str, Any]:
    return {
        "direction": "out" if flight.out else "in",
        "blocks": blocks,
        "bytes": blocks * rig.block_bytes,
        "device_s": flight.seconds,
        "submit_s": flight.submit_s,
    }


def _copy_sizes(rig: Rig) -> list[int]:
    """Blocks: powers of two up to the longest copy that another one flies beside, as far as contexts and pools go."""
    cache, longest = rig.backend.cache, min(LONGEST_COPY, rig.request.reach)
    most = min(longest // cache.block_size, (cache.gpu_blocks - 1) // 3, cache.host_blocks // 2)
    return [1 << power for power in range(most.bit_length()) if 1 << power <= most]


def _long_copy_sizes(rig: Rig) -> list[int]:
    """Blocks of whole long contexts, as far as the pools hold two of them on the device and one on the host."""
    cache = rig.backend.cache
    most = min(rig.request.extent.context // cache.block_size, (cache.gpu_blocks - 1) // 3, cache.host_blocks)
    return [blocks for blocks in (tokens // cache.block_size for tokens in LONG_COPIES) if blocks <= most]


def measure_beside(sweep: Sweep, deadline: float) -> None:
    """Iterations with a copy beside them and without, in turn: how each slows the other."""
    rig, extent = sweep.rig, sweep.rig.request.extent
    blocks = _copy_sizes(rig)[-1]
    free = (rig.backend.cache.gpu_blocks - 2 * blocks) * rig.request.block_size
    context = min(1024, extent.context)
    sessions = [min(count, extent.decodes, max(1, free // context)) for count in (64, 8)]
    shapes = {f"decode {count}x{context}": Shape((context,) * count) for count in sessions}
    chunk = min(512, extent.chunk)
    shapes[f"prefill 0+{chunk}"] = Shape(chunks=((0, chunk),))
    ways: dict[str, list[str]] = {"out": [FIRST], "in": [FIRST], "both": [FIRST, SECOND]}
    cases = {f"{name} {way}": (shape, way) for name, shape in shapes.items() for way in ways}
    todo = sweep.left("beside", cases)
    sweep.report.stage("copies beside compute", len(todo))
    for name in todo:
        shape, way = cases[name]
        rig.bench.set_up(Shape())
        copier = CopyBench(rig.backend, blocks, scattered=True)
        rig.bench.set_up(shape)
        if way != "out":
            copier.fly([FIRST])
        rows: list[dict[str, Any]] = []
        for index in range(ROUNDS + 1):
            row = _one_round(rig, copier, ways[way], turn_back=way != "both")
            if index and (len(rows) < 3 or time.perf_counter() < deadline):
                rows.append({"shape": name.removesuffix(f" {way}"), "way": way, "blocks": blocks, **row})
        copier.close()
        sweep.samples.append("beside", name, rows)
        sweep.report.advance()


def _one_round(rig: Rig, copier: CopyBench, keys: list[str], turn_back: bool) -> dict[str, Any]:
    """One iteration alone and one with copies beside it; then the copies go back, alone."""
    runs: list[Timing] = [rig.bench.run()]
    run: Callable[[], None] = lambda: runs.append(rig.bench.run())  # noqa: E731
    beside = copier.fly(keys, run)
    if turn_back:
        copier.fly(keys)
    runs.append(rig.bench.run())
    alone = median((runs[0].device_s, runs[2].device_s))
    row: dict[str, Any] = {"alone_s": alone, "beside_s": runs[1].device_s}
    for direction, out in (("out", True), ("in", False)):
        seconds = [one.seconds for one in beside if one.out is out]
        row[f"copy_{direction}_s"] = seconds[0] if seconds else 0.0
    return row
