"""Samples of a GPU that exists on paper: its costs are known, so a fit can be told how right it is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from profiler.measure.grid import Extent, Point, Shape, grid, held_out, references
from profiler.measure.samples import Samples
from profiler.points import Packing
from sim.costs import CostModel, padded
from sim.plan import Batch, Direction
from sim.profile import HostCost, PhysicalForward, Profile, SwapCost

EXTENT = Extent(context=8192)
POOL_BLOCKS = 50_000
BLOCK_BYTES = 16 * 131072
SIZES = (1, 2, 4, *range(8, 264, 8))
PACKING = Packing(decode_sizes=SIZES, most_pieces=50, piece_tokens=128)
FORWARD = PhysicalForward(
    overhead_s=0.6e-3,
    chunks_overhead_s=0.5e-3,
    launch_s=4.6e-3,
    mixed_s=0.4e-3,
    weights_s=3.9e-3,
    per_token_s=22e-6,
    knee=4.0,
    per_session_s=2e-6,
    per_chunk_s=30e-6,
    decode_read_s=34e-9,
    per_piece_s=4e-6,
    prefill_read_s=10e-9,
    pair_s=1.2e-9,
    **asdict(PACKING),
)
SWAP = SwapCost(out_bytes_per_s=53e9, in_bytes_per_s=50e9, latency_s=25e-6, slowdown_out=0.024, slowdown_in=0.08)
HOST = HostCost(
    per_iteration_s=0.3e-3,
    per_session_s=2e-6,
    per_chunk_s=60e-6,
    chunked_s=0.35e-3,
    per_call_s=0.1e-3,
    per_arrival_s=0.45e-3,
    copies_out_s=0.17e-3,
    copies_in_s=0.12e-3,
    cold_s=0.6e-3,
)
PROFILE = Profile(
    name="paper",
    model="llama-3.1-8b",
    gpu="paper",
    origin="estimate",
    source="a test",
    kv_bytes_per_token=131072,
    kv_capacity_tokens=16 * POOL_BLOCKS,
    host_capacity_tokens=16 * POOL_BLOCKS,
    saturation_tokens=180,
    forward=FORWARD,
    swap=SWAP,
    host=HOST,
)
DEVICE = CostModel(PROFILE.model_copy(update={"host": HostCost()}))
WALL = CostModel(PROFILE)


def stairs(batch: Batch, costs: CostModel = DEVICE) -> float:
    """The same GPU with matrix products that go by tiles of 128 tokens, a part-filled one costing most of a whole."""
    tokens = padded(batch.decode_sessions, SIZES) + batch.prefill_tokens
    tiled = 0.6 * (-(-tokens // 128) * 128 - tokens) if tokens > 128 else 0.0
    return costs.iteration_time(batch) + 22e-6 * tiled * tokens / (tokens + 256)


def all_points(extent: Extent = EXTENT) -> list[Point]:
    """Grid, random batches, two visits of the reference shapes."""
    points = [point for point in grid(extent) if point.shape.blocks(16) <= POOL_BLOCKS]
    points += held_out(extent, POOL_BLOCKS, 16, seed=1)
    for visit in range(2):
        points += [Point(f"{one.name} {visit:03d}", one.set, one.shape) for one in references(extent, POOL_BLOCKS, 16)]
    return points


def write_samples(folder: Path, noise: float = 0.01, time: Any = DEVICE.iteration_time, seed: int = 0) -> Samples:
    """A complete folder of samples with log-normal ``noise`` on every time."""
    random = np.random.default_rng(seed)

    def noisy(seconds: float) -> float:
        return float(seconds * np.exp(random.normal(0.0, noise)))

    samples = Samples.begin(folder, {
        "model": {"name": "llama-3.1-8b", "max_context": 131072},
        "machine": {"gpu": "Paper GPU", "torch": "2", "cuda": "13", "driver": "1", "flashinfer": "0"},
        "commit": "abc", "block_size": 16, "seed": 0, "extent": asdict(EXTENT),
    })  # fmt: skip
    samples.note(
        pool_blocks=POOL_BLOCKS, pool_bytes=POOL_BLOCKS * BLOCK_BYTES, block_bytes=BLOCK_BYTES, host_bytes=64e9,
        memory={"total": 1.4e11}, **asdict(PACKING), attention="Paper", swap_way="direct", set_up_s=[30.0],
        runs=[{"date": "2026-01-01 00:00 +0000", "seconds": 400.0}], complete=True,
    )  # fmt: skip
    for point in all_points():
        rows = [sample(point.set, point.shape, noisy(time(point.shape.batch()))) for _ in range(3)]
        samples.append("iterations", point.name, rows)
    _write_copies(samples, noisy)
    _write_serving(samples, noisy)
    for context in (512, 2048):
        for chunk in (context, 256):
            seconds = sum(DEVICE.forward_time(256, start) for start in range(0, context, 256))
            seconds = seconds if chunk == 256 else DEVICE.forward_time(context)
            row = {"context": context, "chunk": chunk, "device_s": noisy(seconds), "wall_s": seconds}
            samples.append("recompute", f"recompute {context} by {chunk}", [row])
    return samples


def sample(kind: str, shape: Shape, seconds: float) -> dict[str, Any]:
    batch = shape.batch()
    sums = {
        "decodes": batch.decode_sessions,
        "padded": padded(batch.decode_sessions, SIZES),
        "decode_context": batch.decode_context,
        "chunks": batch.prefill_sessions,
        "chunk_tokens": batch.prefill_tokens,
        "chunk_context": batch.prefill_context,
        "pairs": batch.prefill_pairs,
    }
    gap = 5e-5 + 60e-6 * batch.prefill_sessions + (0.25e-3 if batch.prefill_sessions else 0.0)
    return {"set": kind, **sums, "device_s": seconds, "host_s": 4e-4, "waited_s": 0.0, "wall_s": seconds + gap}


def _write_copies(samples: Samples, noisy: Any) -> None:
    for blocks in (1, 4, 16, 64, 256):
        for layout in ("scattered", "neighbours") if blocks > 1 else ("neighbours",):
            for kind in ("alone", "both"):
                rows = []
                for way in (Direction.OUT, Direction.IN):
                    seconds = DEVICE.copy_time(16 * blocks, way) * (1.2 if kind == "both" else 1.0)
                    row = {"kind": kind, "layout": layout, "stretches": blocks, "direction": way.value}
                    row |= {"blocks": blocks, "bytes": blocks * BLOCK_BYTES, "submit_s": 1e-5 + 3e-6 * blocks}
                    rows += [{**row, "device_s": noisy(seconds)} for _ in range(3)]
                samples.append("copies", f"{kind} {blocks} {layout}", rows)
    for shape, alone in (("decode 64x1024", 6.5e-3), ("decode 8x1024", 4.6e-3), ("prefill 0+512", 12e-3)):
        for way, ways in (("out", {"out"}), ("in", {"in"}), ("both", {"out", "in"})):
            copying = 10e-3
            share = (SWAP.slowdown_out if "out" in ways else 0.0) + (SWAP.slowdown_in if "in" in ways else 0.0)
            beside = alone + share * min(copying, alone) / (1 - (share if alone < copying else 0.0))
            row = {"shape": shape, "way": way, "blocks": 256, "alone_s": alone, "beside_s": beside}
            row |= {f"copy_{side}_s": copying if side in ways else 0.0 for side in ("out", "in")}
            samples.append("beside", f"{shape} {way}", [row] * 3)


def _write_serving(samples: Samples, noisy: Any) -> None:
    rows: list[dict[str, Any]] = []
    for index, sessions in enumerate(_upwards(1, 256)):
        batch = Batch(decode_sessions=sessions, decode_context=200 * sessions)
        out, into = index % 4 == 0, index % 6 == 0
        if index % 5 == 0:
            for _ in range(1 + index % 3):
                batch.add_chunk(0, 32 if index % 3 else 1500)
            batch.begun = index % 2
        batch.opened = index % 7 == 0
        device = noisy(DEVICE.iteration_time(batch))
        beginning = out * HOST.copies_out_s + into * HOST.copies_in_s
        waited = rows[-1]["wall_s"] if rows else 0.0
        beginning += HOST.cold_s * waited / (waited + HOST.cold_after_s)
        wall = device + noisy(WALL.iteration_time(batch) - DEVICE.iteration_time(batch) + beginning)
        served = sample("serving", Shape(), device)
        served |= {"decodes": sessions, "decode_context": batch.decode_context, "chunks": batch.prefill_sessions}
        served |= {"chunk_tokens": batch.prefill_tokens, "chunk_context": batch.prefill_context}
        served |= {"opened": int(batch.opened), "copies_out": int(out), "copies_in": int(into)}
        rows.append({**served, "pairs": batch.prefill_pairs, "begun": batch.begun, "wall_s": wall})
    samples.append("serving", "serving", rows)


def _upwards(first: int, last: int) -> Iterable[int]:
    return range(first, last + 1)
